"""The command line: what it writes to which stream, and one line for every error."""

import fcntl
import io
import os
import pty
import shlex
import shutil
import signal
import struct
import subprocess
import termios
import time

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import Qwen3TTS, Qwen3TTSError, Sampling, cli
from mlx_qwen3_tts.codec.codec import Codec
from mlx_qwen3_tts.request import Request
from tests.support.process import heed_interrupts, spawn

pytestmark = pytest.mark.usefixtures("no_warm_up")


def error_of(result) -> str:
    code, out, err = result
    assert code == 1
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("mlx-qwen3-tts: error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_say(run_cli, tmp_path, demo):
    path = tmp_path / "hello.wav"
    code, out, err = run_cli(
        "say", "Hello.", "--model", "demo-random", "--voice", "Ben", "--seed", 3, "--max-frames", 4, "-o", path
    )
    assert (code, out) == (0, "")
    assert "4 frames, 0.32 s of audio" in err
    assert "real-time factor" in err
    assert "babbles" in err
    assert "voice:" not in err
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == 24000
    np.testing.assert_allclose(audio, demo.synthesize("Hello.", voice="ben", seed=3, max_frames=4).audio, atol=1e-4)


def test_default_voice_is_named(run_cli, tmp_path):
    _, _, err = run_cli("say", "Hi", "--model", "demo-random", "--max-frames", 2, "-o", tmp_path / "a.wav")
    assert "voice: ada (the default" in err


def test_every_option_reaches_the_model(run_cli, monkeypatch, tmp_path):
    requests = []
    stream_attempts = Qwen3TTS.stream_attempts

    def speak_little(tts, request):
        requests.append(request)
        return stream_attempts(tts, Request("Hi", max_frames=2))

    monkeypatch.setattr(Qwen3TTS, "stream_attempts", speak_little)
    code, _, _ = run_cli(
        "say", "Hello", "--model", "demo-random", "--voice", "ben", "--language", "English", "--instruct", "Slowly",
        "--seed", 9, "--max-frames", 77, "--no-non-streaming-mode", "--do-sample", "--temperature", 0.5, "--top-k", 4,
        "--top-p", 0.7,
        "--repetition-penalty", 1.2, "--subtalker-dosample", "--subtalker-temperature", 0.6, "--subtalker-top-k", 6,
        "--subtalker-top-p", 0.8, "--no-stop-runaway", "--chunk-frames", "1,3",
        "-o", tmp_path / "a.wav",
    )  # fmt: skip
    assert code == 0
    sampling = Sampling(True, 0.5, 4, 0.7, 1.2, True, 0.6, 6, 0.8)
    expected = Request(
        text="Hello", voice="ben", language="English", instruct="Slowly", seed=9, sampling=sampling, max_frames=77,
        non_streaming_mode=False, stop_runaway=False, chunk_frames=(1, 3),
    )  # fmt: skip
    assert requests == [expected]


def test_greedy(run_cli, tmp_path, demo):
    path = tmp_path / "a.wav"
    run_cli("say", "Hello", "--model", "demo-random", "--greedy", "--max-frames", 3, "-o", path)
    expected = demo.synthesize("Hello", max_frames=3, sampling=Sampling(do_sample=False, subtalker_dosample=False))
    np.testing.assert_allclose(soundfile.read(path, dtype="float32")[0], expected.audio, atol=1e-4)


def test_standard_input_and_output(tmp_path):
    process = subprocess.run(
        spawn("say", "-", "--model", "demo-random", "--seed", 1, "--max-frames", 2, "-o", "-"),
        input="Grüße 你好\n".encode(), capture_output=True,
    )  # fmt: skip
    assert process.returncode == 0
    audio, rate = soundfile.read(io.BytesIO(process.stdout))
    assert (len(audio), rate) == (2 * 1920, 24000)
    assert b"frames/s" not in process.stderr, "no progress bar if standard error is not a terminal"


def test_progress_bar_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows and columns
    command = spawn("say", "Hello", "--model", "demo-random", "--seed", 1, "--max-frames", 4, "-o", tmp_path / "a.wav")
    process = subprocess.Popen(command, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the other end of a terminal closes with an error
        pass
    assert process.wait() == 0
    assert b"4 frames" in shown
    assert b"s of audio" in shown
    assert b"x real time" in shown


def test_voices(run_cli):
    code, out, _ = run_cli("voices", "--model", "demo-random")
    assert code == 0
    assert "voice     ada (default)\n" in out
    assert "voice     chuan (sichuan_dialect)\n" in out
    assert "language  english\n" in out


def test_demo(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli("demo")
    assert code == 0
    assert "Hello. It is" in err
    assert "frames" in err
    assert 15 * 1920 <= soundfile.info("demo.wav").frames <= 40 * 1920


@pytest.mark.parametrize(
    "options, message",
    [
        (["--voice", "nobody"], "ada, ben, chuan"),
        (["--language", "klingon"], "auto, english, chinese"),
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "0"], "--top-p"),
        (["--top-p", "1.5"], "--top-p"),
        (["--max-frames", "0"], "--max-frames"),
        (["--seed", "-5"], "seed"),
        (["--greedy", "--temperature", "0.5"], "exclude"),
        (["--greedy", "--do-sample"], "exclude"),
        (["--model", "no/such/place"], "neither a directory nor a hub id"),
        (["-o", "x.aac"], "must end in"),
        (["-o", "/no/such/directory/x.wav"], "cannot write"),
    ],
)
def test_errors(run_cli, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["say", "Hello", "--model", "demo-random", *options]
    assert message in error_of(run_cli(*argv))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text(run_cli, text):
    assert "text is empty" in error_of(run_cli("say", text, "--model", "demo-random"))


def test_output_is_checked_before_the_model_is_loaded(run_cli, monkeypatch):
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda *a, **k: pytest.fail("the model was loaded first"))
    assert "cannot write" in error_of(run_cli("say", "Hello", "-o", "/no/such/directory/x.wav"))


def test_line_ends_are_not_text(run_cli, tmp_path, monkeypatch):
    argv = ("--model", "demo-random", "--seed", 1, "--max-frames", 2, "-o")
    assert run_cli("say", "Hello.", "--no-non-streaming-mode", *argv, tmp_path / "plain.wav")[0] == 0
    (tmp_path / "text").write_bytes("\ufeffHello.\r\n".encode())
    with open(tmp_path / "text") as text:
        monkeypatch.setattr("sys.stdin", text)
        assert run_cli("say", "-", *argv, tmp_path / "piped.wav")[0] == 0
    assert (tmp_path / "plain.wav").read_bytes() == (tmp_path / "piped.wav").read_bytes()


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["voices", "say Hi --max-frames 2 -o -"])
def test_unwritable_standard_output(command, redirect):
    if redirect == ">/dev/full" and not os.path.exists("/dev/full"):
        pytest.skip("there is no such device here")
    line = shlex.join(spawn()) + f" {command} --model demo-random {redirect}"
    process = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "mlx-qwen3-tts: error: " in process.stderr.splitlines()[-1]


def test_closed_standard_input():
    process = subprocess.run(
        ["bash", "-c", shlex.join(spawn("say", "-", "--model", "demo-random")) + " <&-"], capture_output=True
    )
    assert process.returncode == 1
    assert b"standard input is closed" in process.stderr


def test_non_unicode_arguments(tmp_path):
    command = [*spawn("say"), b"caf\xff", "--model", "demo-random", "-o", str(tmp_path / "a.wav")]
    process = subprocess.run(command, capture_output=True)
    assert process.returncode == 1
    assert b"not valid Unicode" in process.stderr
    assert b"Traceback" not in process.stderr


def test_non_text_standard_input():
    process = subprocess.run(spawn("say", "-", "--model", "demo-random"), input=b"\xff\xfe", capture_output=True)
    assert process.returncode == 1
    assert b"not UTF-8" in process.stderr


@pytest.mark.parametrize("error", [RuntimeError("[metal::malloc] Attempting to\nallocate"), MemoryError()])
def test_errors_of_mlx_are_one_line_too(run_cli, tmp_path, monkeypatch, error):
    """If memory runs out during generation, the audio so far is kept, as after any error."""
    decode, calls = Codec.decode_async, []

    def full(codec, codes, state=None):
        calls.append(len(codes))
        if len(calls) == 3:
            raise error
        return decode(codec, codes, state)

    monkeypatch.setattr(Codec, "decode_async", full)
    path = tmp_path / "a.wav"
    argv = ("say", "Hello", "--model", "demo-random", "--seed", 1, "--max-frames", 9, "-o", path)
    assert "the computation failed" in error_of(run_cli(*argv))
    assert soundfile.info(path).frames == 2 * 1920
    calls.clear()
    with pytest.raises(type(error)):
        run_cli(*argv, "--debug")


def test_debug_shows_the_traceback(run_cli):
    with pytest.raises(Qwen3TTSError):
        cli.main(["say", "", "--model", "demo-random", "--debug"])


@pytest.mark.parametrize("argv", [[], ["sing"], ["say", "Hello", "--top-k", "many"], ["say", "Hello", "--nope"]])
def test_usage(run_cli, argv):
    code, out, err = run_cli(*argv)
    assert (code, out) == (2, "")
    assert "usage" in err


@pytest.mark.parametrize("module", ["mlx.core", "mlx_qwen3_tts.generation.engine"])
def test_interrupt_during_imports(checkpoint, tmp_path, module):
    """There is nothing to clean up, and the signal ends the process: a shell shows 130."""
    command = spawn("say", "Hello", "--model", checkpoint, "-o", tmp_path / "a.wav")
    command[1:1] = ["-X", "importtime"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=heed_interrupts)
    imported = next(line for line in process.stderr if line.split()[-1] == module.encode())
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == -signal.SIGINT, imported
    assert b"Traceback" not in rest
    assert not (tmp_path / "a.wav").exists()


def test_interrupt_during_speech(checkpoint, tmp_path):
    """Ctrl-C exits at once without output or files."""
    directory = tmp_path / "out"
    directory.mkdir()
    command = spawn("say", "Hello", "--model", checkpoint, "--seed", 1, "--no-stop-runaway", "-o", directory / "a.wav")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=heed_interrupts)
    while not list(directory.iterdir()):
        time.sleep(0.05)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert process.wait() == 130
    assert time.monotonic() - sent < 2
    assert b"Traceback" not in err
    assert list(directory.iterdir()) == []


def test_termination_leaves_no_file(checkpoint, tmp_path):
    directory = tmp_path / "out"
    directory.mkdir()
    command = spawn("say", "Hello", "--model", checkpoint, "--no-stop-runaway", "-o", directory / "a.wav")
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(directory.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(directory.iterdir()), "no partial file appeared"
    process.send_signal(signal.SIGTERM)
    err = process.stderr.read()
    assert process.wait() == 128 + signal.SIGTERM
    assert b"Traceback" not in err
    assert list(directory.iterdir()) == []


def test_the_fallback_file_is_announced_only_for_a_valid_voice(run_cli, monkeypatch, tmp_path):
    """Without a loudspeaker, the fallback file is not mentioned if the voice is unknown."""
    from mlx_qwen3_tts.errors import PlaybackError

    def none(device):
        raise PlaybackError("there is no device: none")

    monkeypatch.setattr("mlx_qwen3_tts.cli.say.open_device", none)
    monkeypatch.chdir(tmp_path)
    _, _, err = run_cli("say", "Hello", "--model", "demo-random", "--voice", "nobody")
    assert "speech.wav" not in err
    _, _, err = run_cli("say", "Hello", "--model", "demo-random", "--seed", 1, "--max-frames", 2)
    assert "there is no device: the speech goes to speech.wav" in err


def test_reader_closes_the_pipe():
    process = subprocess.Popen(
        spawn("say", "Hello", "--model", "demo-random", "--max-frames", 60, "-o", "-"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() != 0
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


@pytest.mark.skipif(mx.metal.is_available() or mx.cuda.is_available(), reason="a GPU's compiler comes with MLX")
def test_without_a_compiler_the_plain_path_is_used_and_reported(run_cli, tmp_path):
    argv = ("say", "Hello", "--model", "demo", "--seed", 3, "--max-frames", 4, "-o", tmp_path / "a.wav")
    plain = os.environ | {"PATH": "/nowhere", "TMPDIR": str(tmp_path)}  # compiled functions are kept in TMPDIR
    done = subprocess.run(spawn(*argv), env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("C++ compiler") == 1
    audio = soundfile.read(tmp_path / "a.wav")[0]
    _, _, err = run_cli(*argv)
    assert ("C++ compiler" in err) == (shutil.which("g++") is None)
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], audio, atol=1e-4)
