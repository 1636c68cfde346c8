"""The README's Python blocks run, and its first command stands at the top."""

import re
from pathlib import Path

import pytest
import soundfile

import sounds

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_block(block, tmp_path, monkeypatch):
    """As it stands, but for the models: the demos stand in for the released ones, whose voices they do not have."""
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


def test_layout_is_the_tree():
    """Every source file is in the README's file tree."""
    text = README.read_text(encoding="utf-8")
    for path in (README.parent / "mlx_qwen3_tts").rglob("*.py"):
        assert path.name in text, path
