"""`book`: from a text file to a file with chapters."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from mlx_qwen3_tts.cli.book import clock, shorten
from tests.support import sounds
from tests.support.process import ROOT, heed_interrupts, spawn

pytestmark = pytest.mark.usefixtures("no_warm_up")
BOOK = """# One o'clock

It is one o'clock.

It is twenty past seven.

# Two

One two three.

It is eleven twenty-six.

Four five six seven.
"""
SHORT = "# One o'clock\n\nIt is one.\n\nTwo.\n\n# Two\n\nThree.\n"
OPTIONS = ("--model", "demo", "--voice", "slt", "--max-chars", 40, "--min-chars", 1)


@pytest.fixture
def read(run_cli, tmp_path):
    """Read a book: exit code, standard output, standard error."""
    path = tmp_path / "times.md"
    path.write_text(BOOK)

    def run(*argv, text=None):
        if text is not None:
            path.write_text(text)
        return run_cli("book", path, *OPTIONS, "-o", tmp_path / "times.m4b", *argv)

    return run


def made(folder: Path) -> dict[str, float]:
    """When each segment's file was written, by its text."""
    entries = json.loads((folder / "times.book" / "manifest.json").read_text())["segments"]
    return {entry["text"]: (folder / "times.book" / entry["file"]).stat().st_mtime_ns for entry in entries}


def test_a_book(read, tmp_path):
    """Chapters and tags are read back with a library that did not write them; a second run makes nothing."""
    import mutagen.mp4

    code, _, err = read("--subtitles", "vtt", text=SHORT)
    assert code == 0, err
    assert "times.m4b: 0:" in err
    assert "segments, 2 chapters; the segments are kept in" in err
    file = mutagen.mp4.MP4(tmp_path / "times.m4b")
    assert [chapter.title for chapter in file.chapters] == ["One o'clock", "Two"]
    assert file.tags["\xa9nam"]
    assert (tmp_path / "times.vtt").read_text().startswith("WEBVTT")
    first = made(tmp_path)
    whole = (tmp_path / "times.m4b").read_bytes()
    code, _, err = read()
    assert code == 0, err
    assert made(tmp_path) == first
    assert (tmp_path / "times.m4b").read_bytes() == whole


@pytest.mark.slow
def test_redo_edits_and_formats(read, tmp_path):
    """One segment once more with a seed, an edit, other formats: all else is kept."""
    assert read("--seed", 3)[0] == 0
    first = made(tmp_path)
    code, _, err = read("--redo", "2:2", "--seed", 5)
    assert code == 0, err
    second = made(tmp_path)
    assert [text for text in first if first[text] != second[text]] == ["One two three."]
    code, _, err = read(text=BOOK.replace("Four five six", "Four five"))
    assert code == 0, err
    third = made(tmp_path)
    assert set(third) - set(second) == {"Four five seven."}
    assert all(third[text] == second[text] for text in second if text in third), "the seeds of before are remembered"
    code, _, err = read("--speed", 1.2, "--chapters", "2", "-o", tmp_path / "times.flac")
    assert code == 0, err
    assert "in 4 segments, 1 chapter; the" in err
    assert all(third[text] == when for text, when in made(tmp_path).items())
    assert soundfile.info(tmp_path / "times.flac").duration > 3


def test_list(read, tmp_path):
    code, out, err = read("--list")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split()[0] == "1"
    assert lines[0].endswith("One o'clock")
    assert lines[2].split()[0] == "all"
    assert "segments" in lines[2]
    assert not (tmp_path / "times.book").exists()


def test_list_tells_each_thing_once(read):
    code, out, _ = read("--list", text="# One\n\nA word [sic].\n\n```\nx = 0\n```\n")
    assert code == 0
    assert out.splitlines()[2:] == [
        "left out of 'One': code: x = 0",
        "note: chapter 1: [sic] is read as text: it is not a script mark",
    ]


def test_list_at_another_speed(read):
    """The speech becomes shorter, the pauses do not."""
    silent = [flag for name in ("chapter", "heading", "paragraph") for flag in (f"--{name}-pause", 0)]

    def seconds(*argv):
        minutes, seconds = read("--list", *argv)[1].splitlines()[2].split()[1].split(":")
        return 60 * int(minutes) + int(seconds)

    speech = seconds(*silent)
    assert seconds(*silent, "--speed", 1.5) == pytest.approx(speech / 1.5, abs=1)
    assert seconds() - seconds("--speed", 1.5) == pytest.approx(speech / 3, abs=1.5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-o", "x.txt"], "its name must end in"), (["-o", "nowhere/x.m4b"], "cannot write nowhere/x.m4b"),
        (["--voice", "nobody"], "unknown voice 'nobody'"), (["--redo", "9:1"], "chapter 9 is not among"),
        (["--check", "/nowhere/ear"], "--check: cannot run /nowhere/ear"),
        (["--model", "demo-base"], "there is no voice 'slt' in your library"),
        (["--instruct", "Slowly."], "takes no --instruct"),
        (["--check", "true", "--check-limit", "2"], "--check-limit must be a number from 0 to 1"),
        (["--check-limit", "0.5"], "--check-limit has no effect without --check; leave it out"),
    ],
)  # fmt: skip
def test_errors_are_one_line(read, argv, message, monkeypatch, tmp_path):
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path / "voices"))
    code, _, err = read(*argv)
    assert code == 1
    errors = [line for line in err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in err


def test_a_missing_book_is_named_once(run_cli, tmp_path):
    code, _, err = run_cli("book", tmp_path / "none.md", "-o", tmp_path / "a.wav")
    assert (code, err) == (1, f"mlx-qwen3-tts: error: cannot read '{tmp_path}/none.md': No such file or directory\n")


def test_a_designed_voice_is_refused(run_cli, tmp_path):
    from tests.support import checkpoints

    model = checkpoints.write(tmp_path / "design", "projected", "voice_design")
    (tmp_path / "a.md").write_text(BOOK)
    code, _, err = run_cli("book", tmp_path / "a.md", "--model", model, "--instruct", "Calm.", "-o", tmp_path / "a.wav")
    assert code == 1
    assert "another speaker: design one, keep it with `mlx-qwen3-tts design" in err
    assert err.endswith("--save-as NAME`, and read the book with --voice NAME\n")
    assert not (tmp_path / "a.book").exists()


def test_voices_of_the_library(run_cli, tmp_path, monkeypatch, demo_base):
    """The book's and those that the script names, in a dialogue."""
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path / "voices"))
    (tmp_path / "voices").mkdir()
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 4)  # random weights do not end by themselves
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.FRAMES_PER_TOKEN", 1.0)
    voice = demo_base.clone_voice(sounds.SOUNDS["speech"])
    for name in ("me", "anna"):
        voice.save(tmp_path / "voices" / f"{name}.safetensors")
    (tmp_path / "a.md").write_text("Anna: Hello.\n\nNobody. [voice me]This is me.[/voice]\n")
    argv = ("book", tmp_path / "a.md", "--model", "demo-base", "-o", tmp_path / "a.flac", "--attempts", 1)
    code, _, err = run_cli(*argv, "--voice", "ME", "--cast", "anna=Anna")
    assert code == 0, err
    entries = json.loads((tmp_path / "a.book" / "manifest.json").read_text())["segments"]
    assert [entry["voice"] for entry in entries] == ["Anna", "(the book's)", "me"]
    assert "of 3 segments seem wrong: --redo 1:" in err
    code, _, err = run_cli(*argv, "--voice", "me", "--cast", "anna=bob")
    assert (code, "there is no voice 'bob'" in err) == (1, True)


def test_clock():
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 3600, 36061)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "10:01:01",
    ]


def test_ctrl_c_keeps_what_was_made(tmp_path):
    """It says how to go on, and exits with 130."""
    (tmp_path / "a.md").write_text(BOOK * 20)
    argv = spawn("book", tmp_path / "a.md", *OPTIONS, "-o", tmp_path / "a.wav", "--batch", 2)
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as child:
        folder = tmp_path / "a.book" / "segments"
        while child.poll() is None and len(list(folder.glob("*.flac"))) < 2:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        err = child.communicate(timeout=60)[1]
    assert child.returncode == 130, err
    assert "the same command goes on" in err
    count = len(list(folder.glob("*.flac")))
    assert f"interrupted: {count} of " in err
    assert not (tmp_path / "a.wav").exists()
    assert not list(tmp_path.glob(".*.part*"))
    entries = json.loads((tmp_path / "a.book" / "manifest.json").read_text())["segments"]
    assert sum(entry["made"] for entry in entries) == count


@pytest.mark.slow
def test_several_processes(tmp_path):
    """mlx.launch: the same file, one report."""
    (tmp_path / "a.md").write_text(SHORT)
    argv = spawn("book", tmp_path / "a.md", *OPTIONS, "--batch", 1, "-o", tmp_path / "a.m4b")
    launch = [f"{sys.prefix}/bin/mlx.launch", "-n", "2", "--backend", "ring", "--"]
    done = subprocess.run([*launch, *argv], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the segments are kept in") == 1
    together = (tmp_path / "a.m4b").read_bytes()
    shutil.rmtree(tmp_path / "a.book")
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=100).returncode == 0
    assert (tmp_path / "a.m4b").read_bytes() == together


def test_texts_are_shortened():
    assert shorten("a\n b") == "a b"
    assert shorten("x" * 60) == "x" * 60
    assert shorten("x" * 61) == "x" * 57 + "..."
