"""Every example runs on the built-in checkpoints, in at most 40 lines."""

import asyncio
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from mlx_qwen3_tts import Qwen3TTS, evaluate
from tests.support import checkpoints, sounds
from tests.support.process import ROOT

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run an example in an empty directory; return its standard output."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *argv: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLES / name), *argv])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 40, path


def test_clone_voice(run, tmp_path, monkeypatch):
    synthesize = Qwen3TTS.synthesize  # random weights do not end by themselves
    monkeypatch.setattr(Qwen3TTS, "synthesize", lambda *args, **named: synthesize(*args, **{**named, "max_frames": 4}))
    soundfile.write(tmp_path / "me.wav", *sounds.SOUNDS["speech"])
    assert "cloned.wav" in run("clone_voice.py", "me.wav", "hello this voice", "Hello")
    assert soundfile.info(tmp_path / "cloned.wav").samplerate == 24000
    assert (tmp_path / "voice.safetensors").exists()


def test_batch(run, tmp_path):
    assert "batch-3.wav" in run("batch.py", "demo")
    assert all(soundfile.info(tmp_path / f"batch-{i}.wav").frames > 12_000 for i in range(4))


def test_read_book(run, tmp_path):
    (tmp_path / "times.md").write_text("# One\n\nIt is three o'clock.\n\n# Two\n\nFour five six.\n")
    assert "of 4 segments are to be made" in run("read_book.py", "times.md", "times.flac")
    assert soundfile.info(tmp_path / "times.flac").duration > 2
    assert "0 of 4 segments" in run("read_book.py", "times.md", "times.flac")


def test_asyncio_stream(run):
    lines = run("asyncio_stream.py").splitlines()
    ends = [number for number, line in enumerate(lines) if line.endswith("complete")]
    assert sorted(lines[number][0] for number in ends) == ["A", "B"]
    assert {line[0] for line in lines[: ends[0]]} == {"A", "B"}, "one after the other"


def test_asyncio_stream_is_cancelled(demo):
    """The request leaves the batch, and the model goes on."""
    speak = runpy.run_path(str(EXAMPLES / "asyncio_stream.py"))["speak"]

    async def first_chunks():
        async for _ in speak(demo, "Hello", 1):
            begun.set()

    async def cancel():
        task = asyncio.create_task(first_chunks())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun = asyncio.Event()
    asyncio.run(cancel())
    assert len(demo.synthesize("Hello", seed=1, max_frames=3).codes) == 3
    assert demo.scheduler.count == 0


def test_llm_to_speech(tmp_path):
    """The example runs unchanged, with stand-ins for mlx-lm and the loudspeaker."""
    (tmp_path / "mlx_lm.py").write_text("""
from types import SimpleNamespace
def load(name):
    return None, SimpleNamespace(apply_chat_template=lambda messages, **options: messages)
def stream_generate(model, tokenizer, prompt, max_tokens):
    assert prompt == [{"role": "user", "content": "What is it?"}]
    for word in "Hello world , this is a voice .".split():
        yield SimpleNamespace(text=word + " ")
""")
    code = f"""
import sys, runpy
import mlx_qwen3_tts.tts, mlx_qwen3_tts.audio.player
from tests.support.device import opener
opened = []
mlx_qwen3_tts.audio.player.open_device = lambda name=None: opener(opened)
stream = mlx_qwen3_tts.tts.Qwen3TTS.stream
mlx_qwen3_tts.tts.Qwen3TTS.stream = lambda self, text: stream(self, text, seed=1, max_frames=12)
sys.argv = ["x", "What is it?"]
runpy.run_path({str(EXAMPLES / "llm_to_speech.py")!r})
assert (opened[0].sound != 0).sum() >= 12 * 1900
"""
    known = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Hello world")


def test_convert_and_compare(run, tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_qwen3_tts.evaluate", lambda *args, **_: evaluate(*args, max_frames=4))
    checkpoints.write_wide(tmp_path / "source", dtype="bfloat16")
    out = run("convert_and_compare.py", "source", "small")
    assert "codebook  3:" in out
    assert "GB ->" in out
    assert (tmp_path / "small" / "model.safetensors").exists()


def test_openai_client(server, monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "argv", ["x", "It is ten.", f"{server.url}/v1"])
    runpy.run_path(str(EXAMPLES / "openai_client.py"), run_name="__main__")
    out, err = capfdbinary.readouterr()
    assert soundfile.info(io.BytesIO(out)).frames > 12_000
    assert err.startswith(b"voices: slt, rms")
