"""The README's Python blocks run, its first command is at the top, and CONTRIBUTING lists every file."""

import re
from pathlib import Path

import pytest
import soundfile

from tests.support import sounds

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_block(block, tmp_path, monkeypatch):
    """Each block runs unchanged, except that the demos and their voices replace the released models."""
    from mlx_qwen3_tts import Qwen3TTS

    load = Qwen3TTS.from_pretrained
    stand_in = {"Base": "demo-base", "CustomVoice": "demo-random"}
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda model, **o: load(stand_in[model.split("-")[-1]], **o))
    monkeypatch.chdir(tmp_path)
    soundfile.write("me.wav", *sounds.SOUNDS["speech"])
    block = block.replace('"Ryan"', '"ben"').replace('"Serena"', '"ada"').replace("seed=7", "seed=7, max_frames=4")
    exec(compile(block, str(README), "exec"), {})
    assert (tmp_path / "hello.wav").exists()
    assert "max_frames=4" in block


def test_first_command_comes_early():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert any("make demo" in line for line in lines[:15])


def test_the_layout_lists_every_file():
    """The file tree of CONTRIBUTING.md has every source file in its folder, and no other."""
    text = README.with_name("CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"```\nmlx_qwen3_tts/\n(.*?)\ntools/", text, re.DOTALL)[1]
    listed = set()
    for line in tree.splitlines():
        folder = re.match(r"  (\w+)/", line)
        if folder or not line.startswith("   "):
            directory = folder[1] if folder else ""
            line = line.removeprefix(f"  {directory}/")
        if directory:  # groups of names, most with a colon and a description
            groups = [group.partition(":")[0] for group in re.split(r"\s{2,}|;", line)]
            listed |= {f"{directory}/{name}.py" for name in " ".join(groups).split() if not name.endswith("/")}
        else:
            listed |= set(re.findall(r"\w+\.py", line))
    package = README.parent / "mlx_qwen3_tts"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if path.name != "__init__.py"}
    assert listed == files
