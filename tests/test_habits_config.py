"""The user's settings: the file, the environment, and the command `config`."""

import os

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from mlx_qwen3_tts import RequestError
from mlx_qwen3_tts.cli import settings

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.fixture
def path(monkeypatch, tmp_path):
    file = tmp_path / "my settings" / "config.toml"
    monkeypatch.setenv("MLX_QWEN3_TTS_CONFIG", str(file))
    return file


@hypothesis_settings(max_examples=60, deadline=None)
@given(values=st.dictionaries(st.sampled_from(settings.NAMES), TEXT))
def test_what_is_written_is_read(tmp_path_factory, values):
    """Quotes, backslashes, line ends, control characters and emoji stay as they are."""
    before = os.environ["MLX_QWEN3_TTS_CONFIG"]
    os.environ["MLX_QWEN3_TTS_CONFIG"] = str(tmp_path_factory.mktemp("settings") / "config.toml")
    try:
        settings.write_settings(values)
        assert settings.read_settings() == values
    finally:
        os.environ["MLX_QWEN3_TTS_CONFIG"] = before


def test_special_characters(path):
    values = {"voice": 'a "b" \\ c\n\t\x00\x7f', "model": "👩‍🚀\u2028\ue000"}
    settings.write_settings(values)
    assert settings.read_settings() == values


def test_set_show_and_unset(run_cli, path):
    code, out, _ = run_cli("config", "set", "model", "1.7B", "voice", "Ryan", "language", "German")
    assert code == 0
    assert out.splitlines() == [f"model     1.7B  ({path})", f"voice     Ryan  ({path})", f"language  German  ({path})"]
    assert path.read_text().splitlines()[1:] == ['model = "1.7B"', 'voice = "Ryan"', 'language = "German"']
    assert [file.name for file in path.parent.iterdir()] == ["config.toml"]
    code, out, _ = run_cli("config", "unset", "model", "language")
    assert code == 0
    assert out.splitlines()[0] == "model     Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice  (default)"
    assert out.splitlines()[1:] == [f"voice     Ryan  ({path})", "language  auto  (default)"]
    assert run_cli("config")[1] == out


def test_the_environment_wins(run_cli, path, monkeypatch):
    settings.write_settings({"voice": "Ryan"})
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICE", "Vivian")
    monkeypatch.setenv("MLX_QWEN3_TTS_MODEL", "")
    out = run_cli("config")[1]
    assert "voice     Vivian  ($MLX_QWEN3_TTS_VOICE)" in out
    assert "CustomVoice  (default)" in out, "an empty variable is none"


def test_nothing_is_set(run_cli, path):
    code, out, err = run_cli("config")
    assert code == 0
    assert out.count("(default)") == 3
    assert f"`config set` writes {path}" in err
    assert not path.exists()


@pytest.mark.parametrize(
    "text, message",
    [
        (b"voice = ", "are damaged ("),
        (b'voice = "\xff"', "are damaged ("),
        (b"voise = 'Ryan'", "unknown setting 'voise': did you mean voice? Correct or delete "),
        (b"voice = 3", "voice must be a text in quotes, not 3: correct or delete "),
        (b"voice = ''", "voice must be a text in quotes, not '': correct or delete "),
    ],
)
def test_a_damaged_file(run_cli, path, text, message):
    path.parent.mkdir()
    path.write_bytes(text)
    for argv in ([], ["set", "voice", "Ryan"], ["unset", "voice"]):
        code, out, err = run_cli("config", *argv)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert message in err
        assert str(path) in err
    assert path.read_bytes() == text


@pytest.mark.parametrize(
    "argv, message",
    [
        (["sett", "voice", "x"], "unknown action 'sett': did you mean set?"),
        (["set", "voise", "x"], "unknown setting 'voise': did you mean voice?"),
        (["set", "voice"], "name what to set, as in `config set voice Ryan language German`"),
        (["set"], "name what to set"),
        (["unset"], "name what to unset, as in `config unset voice`"),
        (["set", "voice", " "], "voice is empty; `config unset voice` drops it"),
        (["set", "model", "1.7B-desing"], "did you mean 1.7B-design?"),
        (["set", "model", "no/such/place"], "neither a directory nor a hub id"),
        (["set", "voice", "a\udcffb"], "not valid Unicode"),
    ],
)
def test_refused(run_cli, path, argv, message):
    code, out, err = run_cli("config", *argv)
    assert (code, out) == (1, "")
    assert message in err
    assert not path.exists()


def test_unknown_voices_and_languages_are_kept(run_cli, path):
    code, _, err = run_cli("config", "set", "voice", "Rian", "language", "Germn")
    assert code == 0
    assert "warning: unknown voice 'Rian': did you mean Ryan? It is kept, for a model that has it" in err
    assert "warning: unknown language 'Germn': did you mean German?" in err
    assert settings.read_settings() == {"voice": "Rian", "language": "Germn"}


def test_paths_are_absolute(run_cli, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert run_cli("config", "set", "model", "model", "voice", "me.safetensors")[0] == 0
    assert settings.read_settings() == {
        "model": str(tmp_path / "model"), "voice": str(tmp_path / "me.safetensors"),
    }  # fmt: skip


def test_the_file_cannot_be_written(path, monkeypatch):
    path.parent.write_text("a file in the way")
    with pytest.raises(RequestError, match=r"cannot write your settings to .*config\.toml"):
        settings.write_settings({"voice": "Ryan"})
    with pytest.raises(RequestError, match=r"cannot read your settings in .*config\.toml"):
        settings.read_settings()


def test_where_the_file_is(monkeypatch):
    monkeypatch.delenv("MLX_QWEN3_TTS_CONFIG")
    assert settings.settings_path().parts[-2:] == ("mlx-qwen3-tts", "config.toml")
    monkeypatch.setenv("MLX_QWEN3_TTS_CONFIG", "~/x.toml")
    assert settings.settings_path() == settings.Path("~/x.toml").expanduser()


def test_all_directories_of_the_file_are_made(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_QWEN3_TTS_CONFIG", str(tmp_path / "new" / "home" / "config.toml"))
    settings.write_settings({"voice": "Ryan"})
    assert settings.read_settings() == {"voice": "Ryan"}
