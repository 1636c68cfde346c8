"""Completion in a shell: options, files, and the names of voices, models, languages and recipes.

--completion zsh ─ a script, which calls this program at each Tab ─ complete
"""

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..conversion.recipes import NAMED
from ..demo import registry as demo
from ..program import NAMES
from ..released import LANGUAGES, SHORT_NAMES, VOICES
from ..voice_library import library_names
from . import settings
from .console import emit
from .parser import CommandParser

SHELLS = ("zsh", "bash", "fish")


class PrintScript(argparse.Action):
    """Print the script for a shell, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, _args: object, shell: Any, _option: object = None) -> None:
        import argcomplete  # takes a moment, and only this needs it

        emit(argcomplete.shellcode(NAMES, shell=shell))
        parser.exit(0)


def voices(**_: object) -> list[str]:
    """Return the library's voices and the released ones."""
    return [*library_names(), *VOICES]


def models(prefix: str, **_: object) -> list[str]:
    """Return the short names, the built-in models, and directories that begin with `prefix`."""
    from argcomplete.completers import DirectoriesCompleter

    return [*SHORT_NAMES, *demo.NAMES, *DirectoriesCompleter()(prefix)]


def names(known: Iterable[str]) -> Callable[..., list[str]]:
    """Return the completer of fixed names."""
    return lambda **_: list(known)


COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "voice": voices,
    "remove": lambda **_: library_names(),
    "model": models,
    "reference": models,
    "base": models,
    "language": names(LANGUAGES),
    "recipe": names(["list", *NAMED]),
    "items": names(settings.NAMES),
}


def is_asked() -> bool:
    """Return whether a shell wants to complete a line."""
    return "_ARGCOMPLETE" in os.environ


def complete(parser: CommandParser, commands: Sequence[CommandParser]) -> None:
    """Print the completions of the line that the shell has put into the environment, and exit."""
    import argcomplete

    for command in commands:
        for action in command.arguments():
            if action.dest in COMPLETERS:
                action.completer = COMPLETERS[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)
