"""The user's settings: the model, voice and language that the command line takes if no flag names another.

flag ─ else $MLX_QWEN3_TTS_VOICE ─ else the file config.toml ─ else the default
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_config_path

from ..errors import RequestError
from ..files import user_path, write_file
from ..suggest import unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = ("model", "voice", "language")
HEADER = "# Written by `mlx-qwen3-tts config`.\n"
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


@dataclass(frozen=True)
class Setting:
    """A setting that holds, and the variable or the file that it comes from."""

    value: str
    source: str


def settings_path() -> Path:
    """Return the file of the settings: $MLX_QWEN3_TTS_CONFIG, or config.toml in the user's configuration directory.

    Raises RequestError if there is none.
    """
    path = user_path("MLX_QWEN3_TTS_CONFIG", user_config_path, "config.toml")
    if path is None:
        raise RequestError("you have no home directory: set HOME, or MLX_QWEN3_TTS_CONFIG to the file of your settings")
    return path


def setting(name: str) -> Setting | None:
    """Return a setting of the environment, or else of the file. Raises RequestError if the file is damaged."""
    variable = f"MLX_QWEN3_TTS_{name.upper()}"
    if value := os.environ.get(variable):
        return Setting(value, f"${variable}")
    kept = read_settings().get(name)
    return None if kept is None else Setting(kept, str(settings_path()))


def setting_value(name: str) -> str | None:
    """Return the value of a setting, None if there is none. Raises RequestError if the file is damaged."""
    found = setting(name)
    return None if found is None else found.value


def read_settings() -> dict[str, str]:
    """Return what the file holds; nothing if there is none. Raises RequestError if it is damaged."""
    try:
        path = settings_path()
    except RequestError:  # there is no place for settings
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RequestError(f"cannot read your settings in {path}: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, not TOML
        raise RequestError(f"your settings in {path} are damaged ({error}): correct the file or delete it") from None
    for name, value in values.items():
        if name not in NAMES:
            message = unknown("setting", name, NAMES, f"correct or delete {path}")
            raise RequestError(message)
        if not isinstance(value, str) or not value:
            message = f"{name} must be a text in quotes, not {value!r}: correct or delete {path}"
            raise RequestError(message)
    return values


def write_settings(values: dict[str, str]) -> None:
    """Replace what the file holds. Raises RequestError if it cannot be written."""
    path = settings_path()
    lines = [f"{name} = {_quoted(values[name])}\n" for name in NAMES if name in values]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, (HEADER + "".join(lines)).encode())
    except OSError as error:
        raise RequestError(f"cannot write your settings to {path}: {error.strerror}") from None


def _quoted(text: str) -> str:
    """Return a text as a basic string of TOML, in which quotes, backslashes and control characters are escaped."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
