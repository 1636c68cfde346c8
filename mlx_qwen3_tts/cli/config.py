"""`config`: show and change the settings that hold if no flag names another.

set, unset ─ checked ─ config.toml          (nothing) ─ what holds, and where it comes from
"""

import argparse
import os
from pathlib import Path

from ..capabilities import match
from ..errors import RequestError
from ..hub import CONFIG_FILES, HUB_ID, hub_name, resolve
from ..released import LANGUAGES, VOICES
from ..suggest import unknown
from ..text.unicode import check_text
from ..voice_library import library_names
from .console import emit, note
from .options import DEFAULT_MODEL
from .parser import Commands
from .settings import NAMES, Setting, read_settings, setting, settings_path, write_settings

ACTIONS = ("set", "unset")
DEFAULTS = {"model": DEFAULT_MODEL, "voice": "the model's first", "language": "auto"}


def add_config(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "config",
        help="keep a model, a voice and a language as your defaults",
        description="Show the defaults that hold and where they come from; `config set voice Ryan language German` "
        "keeps some, `config unset voice` drops them. The environment variables MLX_QWEN3_TTS_MODEL, _VOICE and "
        "_LANGUAGE win over them, and flags over all.",
    )
    parser.add_argument("action", nargs="?", help=f"{' or '.join(ACTIONS)}; without it, show what holds")
    parser.add_argument("items", nargs="*", metavar="NAME [VALUE]", help=f"{', '.join(NAMES)}; for set with values")
    parser.set_defaults(run=config)
    return parser


def config(args: argparse.Namespace) -> None:
    """Show the settings, or change some."""
    if args.action is None:
        show()
        return
    if args.action not in ACTIONS:
        raise RequestError(unknown("action", args.action, ACTIONS, f"config takes {' and '.join(ACTIONS)}"))
    values = read_settings()
    names = args.items[::2] if args.action == "set" else args.items
    for name in names:
        if name not in NAMES:
            raise RequestError(unknown("setting", name, NAMES, f"the settings are {', '.join(NAMES)}"))
    if not names or (args.action == "set" and len(args.items) % 2):
        example = "config set voice Ryan language German" if args.action == "set" else "config unset voice"
        raise RequestError(f"name what to {args.action}, as in `{example}`")
    if args.action == "set":
        values |= {name: checked(name, value) for name, value in zip(names, args.items[1::2], strict=True)}
    else:
        values = {name: value for name, value in values.items() if name not in names}
    write_settings(values)
    show()


def show() -> None:
    """Print the settings, and where each comes from."""
    for name in NAMES:
        found = setting(name) or Setting(DEFAULTS[name], "default")
        emit(f"{name:9} {found.value}  ({found.source})")
    if not settings_path().exists():
        note(f"`config set` writes {settings_path()}")


def checked(name: str, value: str) -> str:
    """Return a value as it is kept: a path is made absolute. Raises RequestError and CheckpointError."""
    check_text(name, value)
    if not value.strip():
        raise RequestError(f"{name} is empty; `config unset {name}` drops it")
    if name == "model":
        return checked_model(value)
    if name == "voice":
        if value.endswith(".safetensors") or os.sep in value:
            return str(Path(value).expanduser().absolute())
        known = [*library_names(), *VOICES]
    else:
        known = list(LANGUAGES)
    if match(value, known) is None:
        note(f"warning: {unknown(name, value, known, 'it is kept, for a model that has it')}")
    return value


def checked_model(name: str) -> str:
    """Return the name of a model, of a directory the absolute path. Raises CheckpointError if it cannot be one."""
    if os.path.isdir(os.path.expanduser(name)):
        return str(Path(name).expanduser().absolute())
    if not HUB_ID.fullmatch(hub_name(name)):
        with resolve(name, files=CONFIG_FILES):  # built in, or an error
            pass
    return name
