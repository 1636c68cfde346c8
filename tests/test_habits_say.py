"""Habits of who knows another `say`: words, files and pipes, -v '?', qtts, short help, completion, termination."""

import errno
import io
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS, RequestError
from mlx_qwen3_tts.cli import make_parsers, settings, speaker
from mlx_qwen3_tts.cli.completion import COMPLETERS
from mlx_qwen3_tts.cli.flags import flag_of
from mlx_qwen3_tts.cli.spoken_text import read_file
from mlx_qwen3_tts.program import NAMES
from mlx_qwen3_tts.released import SHORT_NAMES, VOICES
from mlx_qwen3_tts.request import Request
from tests.support import checkpoints
from tests.support.process import ROOT, spawn

MODEL = ("--model", "demo-random", "--seed", 1, "--max-frames", 2)
pytestmark = pytest.mark.usefixtures("no_warm_up")


@pytest.fixture
def requests(monkeypatch):
    """Record the texts that `say` speaks; two frames of another one are made in place of each."""
    spoken = []
    stream_attempts = Qwen3TTS.stream_attempts

    def recorded(tts, request):
        spoken.append("".join(request.text))
        return stream_attempts(tts, Request("Hi", seed=1, max_frames=2))

    monkeypatch.setattr(Qwen3TTS, "stream_attempts", recorded)
    return spoken


def last_line(result) -> str:
    code, out, err = result
    assert (code != 0, out) == (True, "")
    return err.splitlines()[-1]


# --- texts ---


@pytest.mark.parametrize(
    "argv, text",
    [
        (["hello", "world"], "hello world"),
        (["-v", "ben", "hello", "world"], "hello world"),
        (["hello", "world", "-v", "ben"], "hello world"),
        (["hello", "-v", "ben", "whole", "world"], "hello whole world"),
        (["it costs", "5", "--", "-3", "or so"], "it costs 5 -3 or so"),
    ],
)
def test_words_without_quotes(run_cli, requests, tmp_path, argv, text):
    argv = ["-o", tmp_path / "a.wav", *argv] if "--" in argv else [*argv, "-o", tmp_path / "a.wav"]
    code, _, err = run_cli("say", "--model", "demo-random", *argv)
    assert code == 0, err
    assert requests == [text]


def test_a_file(run_cli, requests, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\ufeffOne.\r\n\r\nTwo.\n", encoding="utf-8")
    code, _, err = run_cli("say", "--model", "demo-random", "-f", path, "-o", tmp_path / "a.wav")
    assert code == 0, err
    assert [text.strip() for text in requests] == ["One.", "Two."]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["hello", "-f", "x.txt"], "--file and a text exclude each other"),
        (["-f", "x.txt", "--lines", "x.txt", "--out-dir", "o"], "--file and --lines exclude each other"),
        (["-f", "missing.txt"], "cannot read missing.txt: No such file"),
        (["-f", "a\0b"], "cannot read a\\x00b: embedded null byte"),
    ],
)
def test_wrong_files(run_cli, monkeypatch, argv, message):
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded first"))
    assert message in last_line(run_cli("say", *argv))


def test_a_directory_is_not_a_text_file(run_cli, tmp_path):
    assert "cannot read" in last_line(run_cli("say", "-f", tmp_path, *MODEL, "-o", tmp_path / "a.wav"))


def test_a_file_that_is_not_utf_8(run_cli, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Ça va.".encode("latin-1"))
    line = last_line(run_cli("say", "-f", path, *MODEL, "-o", tmp_path / "a.wav"))
    assert f"{path} is not UTF-8 from here on; convert it first" in line


@pytest.mark.parametrize("argv", [[], ["-"], ["-f", "-"]])
def test_a_pipe_needs_no_dash(run_cli, requests, tmp_path, monkeypatch, argv):
    reading, writing = os.pipe()
    os.write(writing, b"Hello.\n")
    os.close(writing)
    with open(reading) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        code, _, err = run_cli("say", *argv, *MODEL, "-o", tmp_path / "a.wav")
    assert code == 0, err
    assert [text.strip() for text in requests] == ["Hello."]


def test_no_text_on_a_terminal():
    """Two lines of help, and no model."""
    ours, theirs = pty.openpty()
    done = subprocess.run(spawn("say"), stdin=theirs, capture_output=True, text=True)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("usage: mlx-qwen3-tts say [TEXT ...] [-v VOICE]")
    assert "nothing to say: give a text, -f FILE" in lines[1]


# --- voices ---


def test_a_question_mark_lists_voices(run_cli):
    code, out, _ = run_cli("say", "-v", "?", "--model", "demo-random")
    assert code == 0
    assert out == run_cli("voices", "--model", "demo-random")[1]
    assert "voice     ada (default)" in out


def test_an_unknown_voice_is_refused_before_a_download(run_cli, monkeypatch, tmp_path):
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path))
    (tmp_path / "anna.safetensors").touch()
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded first"))
    line = last_line(run_cli("say", "hello", "-v", "Rian", "-o", tmp_path / "a.wav"))
    assert "unknown voice 'Rian': did you mean Ryan? Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice and your library" in line
    assert "did you mean anna?" in last_line(run_cli("say", "hello", "-v", "Anne", "-o", tmp_path / "a.wav"))
    line = last_line(run_cli("voices", "--remove", "ana"))
    assert "did you mean anna? `voices` lists" in line


@pytest.mark.parametrize("model", [(), ("--model", "0.6B"), ("--model", "Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice")])
@pytest.mark.parametrize(
    "argv, message",
    [
        (["-v", "Ryan", "--language", "englsh"], "unknown language 'englsh': did you mean English?"),
        (["-v", "Rian"], "unknown voice 'Rian': did you mean Ryan?"),
    ],
)
def test_what_a_released_model_lacks_is_refused_before_its_download(
    run_cli, monkeypatch, tmp_path, model, argv, message
):
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded first"))
    assert message in last_line(run_cli("say", "hello", *argv, *model, "-o", tmp_path / "a.wav"))
    (tmp_path / "book.txt").write_text("Hello.")
    assert message in last_line(run_cli("book", tmp_path / "book.txt", *argv, *model, "-o", tmp_path / "a.m4b"))


def test_a_preset_voice_finds_its_model(run_cli, monkeypatch, tmp_path):
    asked = []

    def load(model, *_, **__):
        asked.append(model)
        raise KeyboardInterrupt

    monkeypatch.setattr(Qwen3TTS, "from_pretrained", load)
    assert run_cli("say", "hello", "-v", "ryan", "-o", tmp_path / "a.wav")[0] == 130
    assert asked == ["Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"]


def test_an_unknown_voice_of_the_library(run_cli, monkeypatch, tmp_path):
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path))
    (tmp_path / "anna.safetensors").touch()
    line = last_line(run_cli("say", "hello", "-v", "Anne", "--model", "demo-base", "-o", tmp_path / "a.wav"))
    assert "no voice 'Anne' in your library" in line
    assert "did you mean anna?" in line


# --- the program's name, help, and wrong words ---


def test_the_name_that_was_typed(run_cli, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/qtts"])
    assert last_line(run_cli("say", "", "--model", "demo-random")).startswith("qtts: error: ")
    assert run_cli("say", "--help")[1].startswith("usage: qtts say ")
    assert flag_of("clone_voice") == "`qtts clone`"
    monkeypatch.setattr(sys, "argv", ["/tmp/x.py"])
    assert last_line(run_cli("say", "", "--model", "demo-random")).startswith("mlx-qwen3-tts: error: ")


def test_both_names_are_installed():
    text = (ROOT / "pyproject.toml").read_text()
    assert all(f'{name} = "mlx_qwen3_tts.__main__:main"' in text for name in NAMES)


def test_help_fits_a_screen(run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, brief, err = run_cli("say", "--help")
    assert (code, err) == (0, "")
    assert 24 <= len(brief.splitlines()) <= 40
    options = [line.split()[0] for line in brief.splitlines() if line.startswith("  -")]
    assert options[:5] == ["-v", "-o", "-f", "--model", "--language"]
    assert "--help-all" in brief
    assert "--top-k" not in brief


def test_all_help(run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    before = run_cli("say", "--help")[1]
    complete = run_cli("say", "--help-all")[1]
    _, commands = make_parsers()
    assert commands["say"].brief_help() == before
    assert commands["say"].format_help() == complete
    for action in commands["say"].arguments():
        assert all(flag in complete for flag in action.option_strings)
    groups = [line for line in complete.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups[-2].startswith("sampling")
    assert groups[-1] == "help:"


def test_help_of_other_commands(run_cli):
    code, out, _ = run_cli("voices", "--help")
    assert code == 0
    assert "--debug" in out
    assert "--help-all" not in out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["sya", "hello"], "unknown command 'sya': did you mean say? The commands are say,"),
        (["hello"], "unknown command 'hello'; the commands are say,"),
        (
            ["say", "hello", "--voise", "x"],
            "unknown option '--voise': did you mean --voice? `mlx-qwen3-tts say",
        ),
        (["say", "hello", "--langage=x"], "unknown option '--langage': did you mean --language?"),
        (["voices", "hello"], "unrecognized arguments: hello"),
        (["voices", "--delete", "me"], "unknown option '--delete'; `mlx-qwen3-tts voices --help` lists the options"),
        (["say", "-r", "200", "hello"], "unknown option '-r': the model has a speed of its own; --instruct asks"),
        (["say", "hello", "--speed=2"], "unknown option '--speed': the model has a speed of its own"),
        (["-v", "slt", "seven"], "options come after the command: mlx-qwen3-tts COMMAND -v ..."),
        (["--model", "demo", "voices"], "options come after the command: mlx-qwen3-tts COMMAND --model ..."),
        (["--debug", "say", "hi"], "options come after the command: mlx-qwen3-tts COMMAND --debug ..."),
    ],
)
def test_wrong_words(run_cli, argv, message):
    result = run_cli(*argv)
    assert result[0] == 2
    assert message in last_line(result)


def test_a_dash_and_words(run_cli):
    code, _, err = run_cli("say", "-", "eight", "--model", "demo")
    assert code == 1
    assert "- stands for standard input, and a text follows it; leave one out" in err
    assert run_cli("--vers")[0] == 0, "argparse takes the beginning of an option"


@pytest.mark.parametrize("argv", [("--completion", "zsh"), ("say", "--help-all"), ("--version",)])
def test_who_reads_the_output_leaves_early(argv):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(spawn(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() in (0, 1), "argparse itself hides some errors"


# --- completion ---


def completions(line: str, tmp_path) -> list[str]:
    """Return what a shell offers at the end of a line."""
    found = tmp_path / "found"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    env = os.environ | asked | {"_ARGCOMPLETE_STDOUT_FILENAME": str(found), "MLX_QWEN3_TTS_VOICES": str(tmp_path)}
    subprocess.run(spawn(), env=env, check=True)
    return [one.strip() for one in found.read_text().split("\n")]


def test_completion(tmp_path):
    (tmp_path / "Ruth.safetensors").touch()
    assert completions("qtts say -v R", tmp_path) == ["Ruth", "Ryan"]
    (tmp_path / "models").mkdir()
    assert completions(f"mlx-qwen3-tts say hello --model {tmp_path}/mo", tmp_path) == [f"{tmp_path}/models/"]
    assert completions("qtts co", tmp_path) == ["convert", "config"]


def test_names_to_complete(tmp_path):
    assert set(VOICES) <= set(COMPLETERS["voice"]())
    assert set(SHORT_NAMES) <= set(COMPLETERS["model"]("1.7"))
    assert "mixed-4" in COMPLETERS["recipe"]()
    assert "German" in COMPLETERS["language"]()
    assert COMPLETERS["items"]() == list(settings.NAMES)
    dests = {action.dest for command in make_parsers()[1].values() for action in command.arguments()}
    assert COMPLETERS.keys() <= dests


@pytest.mark.parametrize("shell", ["zsh", "bash", "fish"])
def test_completion_scripts(run_cli, shell):
    code, out, _ = run_cli("--completion", shell)
    assert code == 0
    assert "_ARGCOMPLETE" in out
    assert "qtts" in out
    assert "mlx-qwen3-tts" in out
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)


def test_completion_in_bash(tmp_path):
    """A real shell, with the script as a user has it in .bashrc."""
    (tmp_path / "qtts").write_text(f'#!/bin/sh\nexec {shlex.join(spawn())} "$@"\n')
    (tmp_path / "qtts").chmod(0o755)
    code = f"""
PATH={shlex.quote(str(tmp_path))}:$PATH
eval "$({shlex.join(spawn("--completion", "bash"))})"
COMP_LINE="qtts convert --recipe mix" COMP_POINT=25 COMP_TYPE=9 COMP_WORDS=(qtts convert --recipe mix) COMP_CWORD=3
_python_argcomplete qtts
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["mixed-4"], done.stderr


# --- termination ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_of_a_conversion(tmp_path, number):
    """Other commands than `say` leave no partial file, either."""
    source = checkpoints.write_wide(tmp_path / "source")
    out = tmp_path / "out"
    out.mkdir()
    slow = tmp_path / "sitecustomize.py"
    slow.write_text(
        "import time, shutil\ncopy = shutil.copyfile\n"
        "def copyfile(*args):\n    copy(*args)\n    time.sleep(20)\nshutil.copyfile = copyfile\n"
    )
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', os.getcwd())}"}
    command = spawn("convert", "--model", source, "--bits", 4, "--scales", "plain", "--out", out / "small")
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, env=env, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)
    )
    deadline = time.monotonic() + 60
    while not any(path.is_file() for path in out.rglob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(out.iterdir()), "nothing was begun"
    process.send_signal(number)
    err = process.stderr.read()
    assert process.wait() == 128 + number
    assert b"Traceback" not in err
    assert list(out.iterdir()) == []


# --- settings in `say` ---


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """Let the settings be those of a file of this test; returns a function that writes it."""
    monkeypatch.setenv("MLX_QWEN3_TTS_CONFIG", str(tmp_path / "settings" / "config.toml"))
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path / "voices"))
    return lambda **values: settings.write_settings(values)


def spoken_by(monkeypatch, run_cli, *argv):
    """Return the request of a command line, and what it prints."""
    seen = []

    def stop(tts, request):
        seen.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr(Qwen3TTS, "stream_attempts", stop)
    code, _, err = run_cli("say", "hello", *argv)
    assert code == 130, err
    return seen[0], err


def test_settings_are_taken(run_cli, monkeypatch, tmp_path, configured):
    configured(model="demo-random", voice="ben", language="English")
    request, _ = spoken_by(monkeypatch, run_cli, "-o", tmp_path / "a.wav")
    assert (request.voice, request.language) == ("ben", "English")
    request, _ = spoken_by(monkeypatch, run_cli, "-v", "ada", "--language", "auto", "-o", tmp_path / "a.wav")
    assert (request.voice, request.language) == ("ada", "auto")
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICE", "chuan")
    request, _ = spoken_by(monkeypatch, run_cli, "-o", tmp_path / "a.wav")
    assert (request.voice, request.language) == ("chuan", "English")


def test_settings_that_the_model_lacks_are_left_out(run_cli, monkeypatch, tmp_path, configured):
    configured(voice="Ryan", language="Klingon")
    request, err = spoken_by(monkeypatch, run_cli, "--model", "demo-random", "-o", tmp_path / "a.wav")
    assert (request.voice, request.language) == (None, None)
    assert "demo-random does not have the voice of your settings; ignoring it" in err
    assert "demo-random does not have the language of your settings, Klingon; ignoring it" in err


def test_a_cloned_voice_of_the_settings(run_cli, monkeypatch, tmp_path, configured, demo_base):
    """It brings its model with it, and is left out if another is named that cannot speak in it."""
    voice = demo_base.clone_voice((np.sin(np.arange(48000) / 9).astype(np.float32) * 0.3, 24000))
    (tmp_path / "voices").mkdir()
    voice.save(tmp_path / "voices" / "me.safetensors")
    configured(voice="me", model="demo-random")
    request, err = spoken_by(monkeypatch, run_cli, "-o", tmp_path / "a.wav")
    np.testing.assert_array_equal(request.voice.speaker_embedding, voice.speaker_embedding)
    assert "model: demo-base (the one that the voice was made with" in err
    request, err = spoken_by(monkeypatch, run_cli, "--model", "demo-random", "-o", tmp_path / "a.wav")
    assert request.voice is None
    assert "demo-random does not have the voice of your settings; ignoring it" in err


def test_the_model_of_the_settings(monkeypatch, configured, capsys):
    assert speaker.preset_model(None).endswith("0.6B-CustomVoice")
    assert speaker.base_model().endswith("0.6B-Base")
    configured(model="demo-base")
    assert speaker.base_model() == "demo-base"
    assert speaker.preset_model("Ryan").endswith("0.6B-CustomVoice")
    assert "your settings' demo-base has no voice Ryan" in capsys.readouterr().err
    assert speaker.preset_model("nobody") == "demo-base"
    configured(model="demo-random")
    assert speaker.base_model().endswith("0.6B-Base")
    assert speaker.preset_model("ada") == "demo-random"
    assert speaker.preset_model(None) == "demo-random"


def test_the_settings_of_a_book(run_cli, monkeypatch, tmp_path, configured):
    configured(model="demo-random", voice="ben", language="Klingon")
    (tmp_path / "a.txt").write_text("Hello.")
    seen = []

    def stop(tts, planned, folder, options, **_):
        seen.append((tts.name, options.voice, options.language))
        raise KeyboardInterrupt

    monkeypatch.setattr("mlx_qwen3_tts.cli.book.Renderer", stop)
    argv = ("book", tmp_path / "a.txt", "-o", tmp_path / "a.flac")
    assert run_cli(*argv)[0] == 130
    assert run_cli(*argv, "-v", "ada", "--language", "english")[0] == 130
    assert seen == [("demo-random", "ben", None), ("demo-random", "ada", "english")]


def test_the_settings_of_voices(run_cli, configured):
    configured(model="demo-random")
    assert "voice     ada (default)" in run_cli("voices")[1]


def test_damaged_settings_do_not_matter_if_all_is_named(run_cli, monkeypatch, tmp_path, configured):
    configured(model="demo-random")
    settings.settings_path().write_text("model =")
    line = last_line(run_cli("say", "hello", "-o", tmp_path / "a.wav"))
    assert f"your settings in {settings.settings_path()} are damaged" in line
    argv = ("--model", "demo-random", "-v", "ada", "--language", "auto")
    assert spoken_by(monkeypatch, run_cli, *argv, "-o", tmp_path / "a.wav")[0].voice == "ada"


def test_every_command_has_help_last():
    for command in make_parsers()[1].values():
        assert [action.dest for action in command.arguments()][-1] == "debug"


def test_a_disk_that_fails_is_one_line():
    class Failing(io.BytesIO):
        name = "text.txt"

        def read(self, _size=-1):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(RequestError, match=r"^cannot read text\.txt: Input/output error$"):
        list(read_file(Failing()))


def test_the_default_voice_comes_with_the_command_that_lists_the_others():
    """The voices of a named model are listed with it alone, and so are those that an adapter adds."""
    tts = SimpleNamespace(default_speaker="Ryan")
    cases = (
        (None, None, "voices"),
        ("demo", None, "voices --model demo"),
        (None, "my adapter", "voices --adapter 'my adapter'"),
    )
    for model, adapter, command in cases:
        args = SimpleNamespace(model=model, adapter=adapter)
        assert f"qwen3-tts {command}` lists" in speaker.default_voice_notice(tts, None, args)
        assert speaker.default_voice_notice(tts, "Ryan", args) is None
