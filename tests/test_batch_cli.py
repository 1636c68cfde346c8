"""`say --batch` and `say --lines`."""

import io
import json
import signal
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.cli.batch import Speed
from mlx_qwen3_tts.errors import AudioError
from mlx_qwen3_tts.generation.batch import Batch
from mlx_qwen3_tts.generation.frames import FrameFunctions
from mlx_qwen3_tts.models.talker import NO_CODE
from tests.support.process import spawn

BOOK = b"One.\n\nTwo three four.\n\nFive.\n\nSix\nseven.\n\nEight.\n"


@pytest.fixture
def speak_book(run_cli, tmp_path, monkeypatch):
    """Speak a text of standard input into a file: exit code, standard error and the file's bytes."""

    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)

    def speak(*argv, text=BOOK):
        path = tmp_path / "in.txt"
        path.write_bytes(text)
        output = tmp_path / "out.wav"
        output.unlink(missing_ok=True)
        with path.open("rb") as file:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
            code, _, err = run_cli("say", "-", "--model", "demo", "--seed", 3, "-o", output, *argv)
        return code, err, output.read_bytes() if output.exists() else b""

    return speak


@pytest.mark.parametrize("options", [(), ("--non-streaming-mode", "--temperature", 0.5)])
def test_paragraphs_side_by_side_give_the_same_file(speak_book, spy, options):
    code, err, one_by_one = speak_book(*options)
    assert code == 0, err
    calls = spy(Batch, "begin")
    code, err, side_by_side = speak_book(*options, "--batch", 4)
    assert code == 0, err
    assert side_by_side == one_by_one
    assert max(len(rows) for _, (_, rows) in calls) == 4
    assert "real-time factor" in err


def test_invalid_bytes_keep_the_paragraphs_before(speak_book):
    code, err, kept = speak_book("--batch", 4, text=b"One.\n\nTwo.\n\n\xff\xff\n\nThree.")
    assert code == 1
    assert "not UTF-8" in err
    assert kept == speak_book(text=b"One.\n\nTwo.")[2]


def test_an_empty_book(speak_book):
    code, err, _ = speak_book("--batch", 4, text=b"\n \n")
    assert (code, "text is empty" in err) == (1, True)


def fail_in_the_middle(monkeypatch) -> None:
    """Let all rows fail from the tenth frame on."""
    frame = FrameFunctions.frame
    calls = []

    def failing(self, *args):
        codes, *rest = frame(self, *args)
        calls.append(1)
        if len(calls) > 10:
            codes = codes * 0 + NO_CODE
        return codes, *rest

    monkeypatch.setattr(FrameFunctions, "frame", failing)


def test_a_failing_paragraph_keeps_those_before(speak_book, monkeypatch):
    text = b"One.\n\nTwo three four.\n"
    whole = speak_book(text=text)[2]
    with monkeypatch.context() as patch:
        fail_in_the_middle(patch)
        code, err, kept = speak_book("--batch", 2, text=text)
    assert code == 1
    assert "not finite" in err
    assert 44 < len(kept) < len(whole)
    assert kept[44:] == whole[44 : len(kept)]


def test_too_little_memory_is_reported(speak_book, monkeypatch):
    monkeypatch.setattr("mlx_qwen3_tts.generation.scheduler.MEMORY_SHARE", 1e-9)
    code, err, audio = speak_book("--batch", 4, text=b"One.\n\nTwo.\n")
    assert code == 0
    assert "warning: --batch 4: the 0.0 GB for keys and values hold 1 at a time" in err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert audio == speak_book(text=b"One.\n\nTwo.\n")[2]


def test_lines(run_cli, tmp_path):
    """Each line has the audio and the seed that it has alone; blank lines have no file."""
    lines = tmp_path / "lines.txt"
    lines.write_text("One.\n\nTwo three.\nFour.\n")
    out = tmp_path / "new" / "out"
    code, _, err = run_cli("say", "--lines", lines, "--out-dir", out, "--model", "demo", "--seed", 5)
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["0001.wav", "0003.wav", "0004.wav"]
    assert "3 of 3 lines" in err
    tts = Qwen3TTS.from_pretrained("demo")
    for seed, (name, text) in enumerate([("0001", "One."), ("0003", "Two three."), ("0004", "Four.")], start=5):
        found, rate = soundfile.read(out / f"{name}.wav", dtype="float32")
        assert rate == 24000
        np.testing.assert_allclose(found, tts.synthesize(text, seed=seed).audio, atol=1e-4)


def test_an_error_leaves_no_half_written_line(run_cli, tmp_path, monkeypatch):
    lines = tmp_path / "lines.txt"
    lines.write_text("One.\nTwo three.\n")

    def fail(files, index):
        raise AudioError("the disk is full")

    monkeypatch.setattr("mlx_qwen3_tts.cli.lines.LineFiles.close", fail)
    code, _, err = run_cli("say", "--lines", lines, "--out-dir", tmp_path / "out", "--model", "demo")
    assert (code, "the disk is full" in err) == (1, True)
    assert list((tmp_path / "out").iterdir()) == []


def test_lines_as_flac(run_cli, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("One.")
    argv = ("say", "--lines", lines, "--out-dir", tmp_path, "--model", "demo", "--out-format", "flac", "--batch", 2)
    assert run_cli(*argv)[0] == 0
    assert soundfile.info(tmp_path / "0001.flac").format == "FLAC"


def test_a_failing_line_fails_alone(run_cli, tmp_path, monkeypatch):
    lines = tmp_path / "lines.txt"
    lines.write_text("One.\nTwo three four five six seven.\n")
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)
    fail_in_the_middle(monkeypatch)
    code, _, err = run_cli("say", "--lines", lines, "--out-dir", tmp_path / "out", "--model", "demo", "--seed", 1)
    assert code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0001.wav"]
    assert "line 2: the logits of a frame are not finite" in err
    assert "1 of 2 lines failed" in err


def test_interrupted_lines_leave_whole_files_only(tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("One.\n" + "Two three four five six seven eight nine ten eleven twelve.\n" * 200)
    out = tmp_path / "out"
    process = subprocess.Popen(
        spawn("say", "--lines", lines, "--out-dir", out, "--model", "demo", "--seed", 1),
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (out / "0001.wav").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130, process.stderr.read()
    names = [path.name for path in out.iterdir()]
    assert all(name.endswith(".wav") for name in names)
    assert len(names) < 200
    for name in names:
        assert soundfile.info(out / name).frames > 0


@pytest.mark.parametrize(
    "argv, message",
    [
        (("Hello", "--batch", 4), "--batch speaks paragraphs of standard input (-), of --file or --lines"),
        (("-", "--batch", 4, "--max-frames", 9), "leave out --batch or --max-frames"),
        (("-", "--batch", 17), "--batch must be a whole number from 1 to 16, not 17"),
        (("Hello", "--out-dir", "x"), "--out-dir and --out-format are for --lines"),
        (("Hello", "--lines", "x.txt", "--out-dir", "x"), "--lines FILE and a text exclude each other"),
        (("--lines", "x.txt"), "name a directory with --out-dir"),
        (("--lines", "x.txt", "--out-dir", "x", "-o", "a.wav"), "leave out -o, --play and --device"),
        (("--lines", "missing.txt", "--out-dir", "x"), "cannot read missing.txt"),
    ],
)
def test_wrong_arguments(run_cli, argv, message):
    """They are found before a model is loaded."""
    code, _, err = run_cli("say", *argv, "--model", "no-such-directory/at-all")
    assert code == 1
    assert message in err


@pytest.mark.parametrize("content, message", [(b"", "has no text"), (b" \n\n", "has no text"), (b"\xff", "not UTF-8")])
def test_wrong_files_of_lines(run_cli, tmp_path, content, message):
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    code, _, err = run_cli("say", "--lines", path, "--out-dir", tmp_path / "out", "--model", "demo")
    assert (code, message in err) == (1, True)
    code, _, err = run_cli("say", "--lines", tmp_path, "--out-dir", tmp_path / "out", "--model", "demo")
    assert (code, "cannot read" in err) == (1, True)


def test_a_directory_that_cannot_be_made(run_cli, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("One.")
    code, _, err = run_cli("say", "--lines", lines, "--out-dir", lines / "out", "--model", "demo")
    assert (code, "cannot make the directory" in err) == (1, True)


def test_bench(run_cli, monkeypatch):
    """A row for each size, then a line of JSON for each."""
    monkeypatch.setattr("mlx_qwen3_tts.evaluation.batch_benchmark.REPEATS", 1)
    code, out, err = run_cli("bench", "--model", "demo-random", "--batch", "1,2", "--frames", 3)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("batch_size  frames_per_second")
    figures = [json.loads(line) for line in lines[3:]]
    assert [row["batch_size"] for row in figures] == [1, 2]
    assert all(row["frames_per_second"] > 0 and row["first_audio_ms"] > 0 for row in figures)
    assert figures[1]["launches_per_step"] <= 1.05 * figures[0]["launches_per_step"]
    for wrong in ("0", "1,x", "17"):
        assert run_cli("bench", "--batch", wrong)[0] == 2
    assert "leave out --batch" in run_cli("bench", "--batch", "1", "--share")[2]


def test_progress_counts_the_frames_of_all_rows():
    """Also those that are not written yet; the speed is over the time since the beginning."""
    tts = SimpleNamespace(codec=SimpleNamespace(samples_per_frame=1920), sample_rate=24000)
    listener = SimpleNamespace(frames=0)
    speed = Speed(tts, listener)
    listener.frames = 50
    time.sleep(0.1)
    assert speed.audio_seconds == 4.0
    frames, seconds, factor = str(speed).split(", ")
    assert (frames, seconds) == ("50 frames", "4.0 s of audio")
    assert 4 < float(factor.split("x")[0]) <= 40
