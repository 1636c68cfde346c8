"""Every example runs on the built-in checkpoints, in at most 40 lines."""

import subprocess
import sys
from pathlib import Path

import soundfile

import sounds

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *argv: str, cwd: Path) -> str:
    command = [sys.executable, EXAMPLES / name, *argv]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 40, path


def test_clone_voice(tmp_path):
    soundfile.write(tmp_path / "me.wav", *sounds.SOUNDS["speech"])
    assert "cloned.wav" in run("clone_voice.py", "me.wav", "hello this voice", "Hello", cwd=tmp_path)
    assert soundfile.info(tmp_path / "cloned.wav").samplerate == 24000
    assert (tmp_path / "voice.safetensors").exists()
