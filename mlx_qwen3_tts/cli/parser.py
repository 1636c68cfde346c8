"""The parser of a command: help that fits a screen, and errors that name the nearest option.

arguments ─ CommandParser ─┬─ --help       the options that matter first, if `show_first` says which these are
                           ├─ --help-all   all options
                           └─ an unknown option ─ one line, the nearest option
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ..suggest import nearest

# argparse has no public names for what add_subparsers returns, and for what takes arguments: a parser or a group.
Commands = argparse._SubParsersAction  # noqa: SLF001
Container = argparse._ActionsContainer  # noqa: SLF001


class CommandParser(argparse.ArgumentParser):
    """A parser that shows its help last, and of many options the important ones only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(add_help=False, **options)
        self._first: frozenset[str] | None = None
        self._answers: dict[str, str] = {}

    def show_first(self, *names: str) -> None:
        """Let --help show these arguments only, and --help-all the others as well."""
        self._first = frozenset({*names, "help", "help_all"})

    def answer(self, *options: str, text: str) -> None:
        """Say what to do in place of options that other programs have."""
        self._answers |= dict.fromkeys(options, text)

    def add_last_options(self, debug: bool = True) -> None:
        """Add the last group of options: help, and how errors are shown."""
        group = self.add_argument_group("help")
        kind = "this help" if self._first is None else "the options that matter first"
        group.add_argument("-h", "--help", action=_Help, help=f"show {kind}")
        if self._first is not None:
            group.add_argument("--help-all", action=_Help, help="show all options")
        if debug:
            group.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def arguments(self) -> list[argparse.Action]:
        """Return all arguments."""
        return list(self._actions)

    def takes(self, option: str) -> bool:
        """Return whether this is an option, as argparse reads it: the beginning of a long one is enough."""
        flag = option.split("=")[0]
        known = [known for action in self._actions for known in action.option_strings]
        return flag in known or (flag.startswith("--") and any(one.startswith(flag) for one in known))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit; an error of standard output is raised before, while it can be handled."""
        if sys.stdout:
            sys.stdout.flush()
        super().exit(status, message)

    def brief_help(self) -> str:
        """Return the help of the options that matter first."""
        if self._first is None:
            return self.format_help()
        hidden = [action for action in self._actions if action.dest not in self._first]
        texts = [action.help for action in hidden]
        for action in hidden:
            action.help = argparse.SUPPRESS
        try:
            return self.format_help()
        finally:
            for action, text in zip(hidden, texts, strict=True):
                action.help = text

    def show(self, text: str) -> None:
        """Print a help text on standard output."""
        self._print_message(text, sys.stdout)

    def refuse(self, extra: Sequence[str]) -> None:
        """Exit with an error for arguments that are not known."""
        option = next((one.split("=")[0] for one in extra if one.startswith("-")), None)
        if option is None:
            self.error(f"unrecognized arguments: {' '.join(extra)}")
        if option in self._answers:
            self.error(f"unknown option {option!r}: {self._answers[option]}")
        known = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        near = nearest(option.lstrip("-"), [flag.lstrip("-") for flag in known])  # all of them begin alike
        guess = "" if near is None else f": did you mean --{near}?"
        self.error(f"unknown option {option!r}{guess or ';'} `{self.prog} --help` lists the options")


class _Help(argparse.Action):
    """Print the help that the option is named after, and exit."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002  (argparse's name)
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        assert isinstance(parser, CommandParser)
        if self.dest == "help":
            parser.show(parser.brief_help())
        else:
            parser.show(parser.format_help())
        parser.exit()
