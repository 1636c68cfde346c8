"""The README's Python blocks run, its first command is at the top, and CONTRIBUTING knows every file."""

import re
from pathlib import Path

import pytest
import soundfile

from tests.support import sounds

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_block(block, tmp_path, monkeypatch):
    """Runs unchanged, except that the demos take the place of the released models, whose voices they do not have."""
    from mlx_qwen3_tts import Qwen3TTS

    load = Qwen3TTS.from_pretrained
    stand_in = {"Base": "demo-base", "CustomVoice": "demo-random"}
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda model, **o: load(stand_in[model.split("-")[-1]], **o))
    monkeypatch.chdir(tmp_path)
    soundfile.write("me.wav", *sounds.SOUNDS["speech"])
    block = block.replace('"Ryan"', '"ben"').replace("seed=7", "seed=7, max_frames=4")
    exec(compile(block, str(README), "exec"), {})
    assert (tmp_path / "hello.wav").exists()
    assert "max_frames=4" in block


def test_first_command_comes_early():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert any("make demo" in line for line in lines[:15])


def test_the_layout_lists_every_file():
    """The file tree of CONTRIBUTING.md has every source file and every folder."""
    text = README.with_name("CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"```\nmlx_qwen3_tts/\n(.*?)```", text, re.DOTALL)[1]
    words = set(re.findall(r"\w+", tree))
    files = [path for path in (README.parent / "mlx_qwen3_tts").rglob("*.py") if path.name != "__init__.py"]
    missing = [path.stem for path in files if not {path.stem, path.parent.name} <= words | {"mlx_qwen3_tts"}]
    assert missing == []
