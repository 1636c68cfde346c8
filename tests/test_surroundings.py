"""Where and as whom it runs: names of all kinds, no home directory, other locales, and others who write the same."""

import os
import pwd
import subprocess
import threading
import unicodedata
from errno import EPERM
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import RequestError, VoiceClonePrompt, VoiceError
from mlx_qwen3_tts.capabilities import match
from mlx_qwen3_tts.cli import clone, settings
from mlx_qwen3_tts.files import MAX_NAME, PartialPath, atomic_path, remove_partial, write_file
from mlx_qwen3_tts.voice_library import library, library_names, library_path
from tests.support.process import spawn

pytestmark = pytest.mark.usefixtures("no_warm_up")
SHORT = ("--model", "demo-random", "--seed", 1, "--max-frames", 2)
VOICE = VoiceClonePrompt(np.ones(64, np.float32))
NFC, NFD = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))


def last_line(result) -> str:
    code, out, err = result
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.fixture
def voices(tmp_path, monkeypatch) -> Path:
    """An empty library."""
    folder = tmp_path / "voices"
    folder.mkdir()
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(folder))
    return folder


@pytest.fixture
def clip(tmp_path) -> Path:
    sound = 0.2 * np.sin(np.arange(48000) / 20)
    soundfile.write(tmp_path / "clip.wav", sound, 24000)
    return tmp_path / "clip.wav"


# --- names of files ---

LONGEST = "x" * (MAX_NAME - 4)
STRANGE = ["new\nline", '-"it\'s" a dash', "🙂", NFD, "é" * 120, LONGEST]


@pytest.mark.parametrize("stem", STRANGE)
def test_say_to_files_of_any_name(run_cli, tmp_path, stem):
    path = tmp_path / f"{stem}.mp3"
    code, _, err = run_cli("say", "Hello", *SHORT, "-o", path)
    assert code == 0, err
    assert soundfile.info(path).frames >= 2 * 1920
    assert os.listdir(tmp_path) == [path.name], "the name is as it was given, and nothing else is left"


def test_a_name_that_begins_with_a_dash(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_cli("say", "Hello", *SHORT, "-o=-a.wav")[0] == 0
    assert run_cli("say", "Hello", *SHORT, "-o", "./-b.wav")[0] == 0
    assert sorted(os.listdir()) == ["-a.wav", "-b.wav"]


def test_a_folder_of_lines_of_any_name(run_cli, tmp_path):
    lines = tmp_path / "new\nline 'q'.txt"
    lines.write_text("Hello\nworld\n")
    for name in ("new\nline", "x" * MAX_NAME):
        assert run_cli("say", "--lines", lines, *SHORT, "--out-dir", tmp_path / name)[0] == 0
        assert len(os.listdir(tmp_path / name)) == 2


@pytest.mark.parametrize(
    "argv",
    [
        ("say", "Hello", *SHORT, "-o", f"x{LONGEST}.wav"),
        ("book", "book.txt", "--model", "demo-random", "-o", f"x{LONGEST}.m4b"),
        ("book", "book.txt", "--model", "demo-random", "-o", f"{LONGEST}.m4b"),  # the folder beside it is longer
        ("say", "--lines", "book.txt", *SHORT, "--out-dir", f"x{LONGEST}.xxx"),
        ("convert", "--model", "demo-random", "--bits", 8, "--out", f"x{LONGEST}.xxx"),
    ],
)
def test_names_that_are_too_long(run_cli, tmp_path, monkeypatch, argv):
    """They are refused before a model is loaded."""
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("Hello.")
    line = last_line(run_cli(*argv))
    assert line.startswith("mlx-qwen3-tts: error: cannot ")
    assert "File name too long" in line
    assert os.listdir() == ["book.txt"]


def test_the_longest_names_are_written_whole_or_not(tmp_path):
    target = tmp_path / ("é" * 127)  # 254 bytes
    for data in (b"old", b"new"):
        with atomic_path(target) as partial:
            assert len(os.fsencode(partial.name)) <= MAX_NAME
            partial.write_bytes(data)
        assert target.read_bytes() == data
    killed = PartialPath(target)
    killed.path.touch()
    remove_partial(tmp_path, target.name)
    assert os.listdir(tmp_path) == [target.name]


# --- names of voices ---


def test_accents_have_two_spellings(run_cli, voices):
    """macOS gives the names of files with letter and accent apart; who types them gives them together."""
    assert match(NFC, [NFD]) == NFD != NFC, "a preset voice, too"
    for saved, asked in ((NFC, NFD), (NFD, NFC)):
        VOICE.save(voices / f"{saved}.safetensors")
        assert library_names() == [NFC]
        assert library_path(asked) == voices / f"{saved}.safetensors"
        assert match(asked.upper(), library_names()) == NFC
        code, _, _ = run_cli("clone", voices / "no.wav", "--save-as", asked)
        assert code == 1
        assert run_cli("voices", "--remove", asked)[0] == 0
        assert os.listdir(voices) == []
    assert library_path(NFD) == voices / f"{NFC}.safetensors", "a new one"


def test_a_clone_under_one_spelling_speaks_under_the_other(run_cli, voices, clip, tmp_path):
    assert run_cli("clone", clip, "--save-as", NFD, "--model", "demo-base")[0] == 0
    assert os.listdir(voices) == [f"{NFC}.safetensors"]
    assert f"there is a voice '{NFC}' already" in last_line(run_cli("clone", clip, "--save-as", NFD))
    for name in (NFC, NFD):
        assert run_cli("say", "Hello", "-v", name, "--max-frames", 2, "-o", tmp_path / "a.wav")[0] == 0


@pytest.mark.parametrize("name", ["हिन्दी", "สวัสดี", "Việt", "漢" * 64, "a b-c_1", "한" * 64])
def test_names_of_all_scripts(voices, name):
    VOICE.save(library_path(name))
    assert library_names() == [name]


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "𠀀" * 64, "🙂", "a/b", "..", ".a", " a", "-a", "a\nb", "a\0b", '"a"', "\ud800", "\u0301/"]
)
def test_invalid_names(voices, name):
    with pytest.raises(VoiceError, match="invalid name"):
        library_path(name)


# --- others who write the same ---


@pytest.mark.parametrize("has_links", [True, False])
def test_a_name_is_taken_once(tmp_path, monkeypatch, has_links):
    def refuse(*_):
        raise OSError(EPERM, "Operation not permitted")

    if not has_links:  # as on an exFAT disk
        monkeypatch.setattr(os, "link", refuse)
    first, second = PartialPath(tmp_path / "file"), PartialPath(tmp_path / "file")
    first.path.write_bytes(b"first")
    second.path.write_bytes(b"second")
    first.commit(replace=False)
    with pytest.raises(FileExistsError):
        second.commit(replace=False)
    for partial in (first, second):
        partial.discard()
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_of_two_clones_of_one_name_one_is_kept(run_cli, voices, clip, monkeypatch):
    """Another process saves a voice of that name while the clip is cloned."""
    path = voices / "me.safetensors"
    make_voice = clone.make_voice

    def meanwhile(*args):
        VOICE.save(path)
        return make_voice(*args)

    monkeypatch.setattr(clone, "make_voice", meanwhile)
    argv = ("clone", clip, "--save-as", "me", "--model", "demo-base")
    assert last_line(run_cli(*argv)).endswith("already; --force replaces it")
    assert VoiceClonePrompt.load(path).provenance == {}
    assert run_cli(*argv, "--force")[0] == 0
    assert VoiceClonePrompt.load(path).provenance["model"] == "demo-base"


def test_many_writers_of_one_file(tmp_path):
    """Whoever reads meanwhile finds one of the files, whole."""
    path = tmp_path / "file"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    write_file(path, contents[0])
    found = []

    def write(data: bytes) -> None:
        for _ in range(20):
            write_file(path, data)
            found.append(path.read_bytes())

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160
    assert all(data in contents for data in found)
    assert os.listdir(tmp_path) == ["file"]


# --- no place of one's own ---


def test_a_library_that_cannot_be_made(run_cli, clip, monkeypatch):
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", "/dev/null/voices")
    line = last_line(run_cli("clone", clip, "--save-as", "me", "--model", "demo-base"))
    assert "cannot make /dev/null/voices: Not a directory; MLX_QWEN3_TTS_VOICES names another" in line


def test_a_library_on_a_read_only_disk(run_cli, clip, voices, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    VOICE.save(voices / "me.safetensors")
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    line = last_line(run_cli("voices", "--remove", "me"))
    assert line.endswith("cannot delete " + str(voices / "me.safetensors") + ": Permission denied")
    line = last_line(run_cli("clone", clip, "--save-as", "me", "--force", "--model", "demo-base"))
    assert "is not a writable directory; MLX_QWEN3_TTS_VOICES names another" in line


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home directory and without an entry in the user database, as in a container."""

    def unknown(_):
        raise KeyError

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "MLX_QWEN3_TTS_CONFIG", "MLX_QWEN3_TTS_VOICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home(run_cli, homeless, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_cli("say", "Hello", *SHORT, "-o", tmp_path / "a.wav")[0] == 0
    assert run_cli("voices", "--model", "demo-random")[0] == 0
    line = last_line(run_cli("clone", clip, "--save-as", "me", "--model", "demo-base"))
    assert line.endswith("you have no home directory: set HOME, or MLX_QWEN3_TTS_VOICES to a directory for voices")
    assert "set HOME, or MLX_QWEN3_TTS_CONFIG" in last_line(run_cli("config", "set", "language", "English"))
    with pytest.raises(VoiceError):
        library()
    with pytest.raises(RequestError):
        settings.settings_path()
    assert sorted(os.listdir()) == ["a.wav", "clip.wav"], "no directory of the name ~"


# --- locales ---


def test_a_locale_without_accents(run_cli, tmp_path):
    """Python takes the arguments as UTF-8 in the locale C; so do we for text and names."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    argv = ("say", "Grüße, 你好", *SHORT, "-o")
    done = subprocess.run(spawn(*argv, tmp_path / "Füße.wav"), capture_output=True, env=env | {"LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    assert run_cli(*argv, tmp_path / "expected.wav")[0] == 0
    assert (tmp_path / "Füße.wav").read_bytes() == (tmp_path / "expected.wav").read_bytes()


def test_a_terminal_that_cannot_show_a_name():
    env = os.environ | {"MLX_QWEN3_TTS_VOICE": "Jürgen", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(spawn("config"), capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    assert b"J\\xfcrgen  ($MLX_QWEN3_TTS_VOICE)" in done.stdout
