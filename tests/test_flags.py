"""Errors of the library in the words of the command line."""

import pytest

from mlx_qwen3_tts import AudioError, ConversionError, PlaybackError
from mlx_qwen3_tts.cli.flags import FLAGS, error_message


@pytest.mark.parametrize("argument", FLAGS)
def test_arguments_become_flags(argument):
    error = ConversionError(f"it is so; pass {argument}, or use another")
    assert error_message(error) == f"it is so; pass {FLAGS[argument]}, or use another"
    assert error_message(ConversionError(argument)) == FLAGS[argument]


def test_names_of_files_stay():
    message = "/a/max_seconds, max_seconds.wav and max_seconds/x are 7 s long"
    assert error_message(AudioError(message)) == message


def test_playback_has_an_alternative():
    assert error_message(PlaybackError("no sound")) == "no sound; -o FILE writes a file instead"


def test_the_command_line_speaks_of_flags(run_cli, tmp_path):
    (tmp_path / "out").mkdir()
    code, _, err = run_cli("convert", "--model", "demo-random", "--bits", 4, "--out", tmp_path / "out")
    assert code == 1
    assert "pass --force to replace" in err
    assert "force=True" not in err
