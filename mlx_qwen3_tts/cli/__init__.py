"""The command line: each sub-command is one file, which has its parser as well.

Results go to files or standard output, everything else to standard error. Exit code 0: done; 1: an error, printed in
one line; 2: a wrong option; 130: interrupted; 143: terminated.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .. import __version__
from ..errors import Qwen3TTSError
from ..program import program_name
from ..suggest import unknown
from .completion import SHELLS, PrintScript, complete, is_asked
from .console import note
from .flags import error_message
from .parser import CommandParser

NO_GPU = "No Metal device available"  # part of MLX's message

# Each is a module of this package with a function add_NAME. A command imports its own alone: `say` is heard some 0.15 s
# sooner without the modules of books, training and conversion.
COMMANDS = (
    "say", "book", "clone", "design", "voices", "serve", "convert", "finetune", "evaluate", "verify", "bench", "config",
    "demo",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if argv is None:
        argv = sys.argv[1:]
    parser, commands = make_parsers(asked_commands(argv))
    if is_asked():
        complete(parser, list(commands.values()))
    debug = False
    try:
        args = parse(parser, commands, argv)
        debug = args.debug
        args.run(args)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has left
        return 1
    except (Qwen3TTSError, OSError) as error:
        if debug:
            raise
        note(f"{program_name()}: error: {error_message(error)}")
        return 1
    except (RuntimeError, MemoryError) as error:  # MLX's own: no memory for an array, no place for its compiler's files
        if debug:
            raise
        note(f"{program_name()}: error: {explain_failure(error)}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def asked_commands(argv: Sequence[str]) -> Sequence[str]:
    """Return the command that a line begins with, or all of them if it begins with none or is to be completed."""
    if argv and argv[0] in COMMANDS and not is_asked():
        return argv[:1]
    return COMMANDS


def import_commands(names: Sequence[str]) -> None:
    """Import the modules of these commands."""
    for name in names:
        import_module(f".{name}", __package__)


def make_parsers(names: Sequence[str] = COMMANDS) -> tuple[CommandParser, dict[str, CommandParser]]:
    """Return the parser, and those of these commands by their names."""
    parser = CommandParser(prog=program_name(), description="Qwen3-TTS on MLX: text in, speech out.")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--completion", choices=SHELLS, action=PrintScript, help="print a script that completes commands in this shell"
    )
    parser.add_last_options(debug=False)
    for name in names:
        module = import_module(f".{name}", __package__)
        command = getattr(module, f"add_{name}")(commands)
        assert isinstance(command, CommandParser)
        command.add_last_options()
    return parser, dict(commands.choices)


def parse(parser: CommandParser, commands: dict[str, CommandParser], argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments. Exits with an error for a command or an option that does not exist."""
    if argv and not argv[0].startswith("-") and argv[0] not in commands:
        parser.error(unknown("command", argv[0], commands, f"the commands are {', '.join(commands)}"))
    if argv and argv[0].startswith("-") and not parser.takes(argv[0]):
        parser.error(f"options come after the command: {program_name()} COMMAND {argv[0]} ...")
    args, extra = parser.parse_known_args(argv)
    are_words = not any(word.startswith("-") for word in extra)
    if extra and are_words and isinstance(getattr(args, "text", None), list):
        args.text += extra  # words behind an option, which argparse does not join to those before it
    elif extra:
        commands[args.command].refuse(extra)
    return args


def explain_failure(error: RuntimeError | MemoryError) -> str:
    """Return what MLX's own error means and what to do, in one line."""
    if NO_GPU in str(error):
        return (
            "MLX finds no GPU in this session, as over ssh, in a sandbox or in a virtual machine: run this in a "
            "terminal of the user who is logged in on the Mac"
        )
    why = " ".join(str(error).split())[:200] or "out of memory"
    return f"the computation failed ({why}): try a smaller or quantized model, or a shorter text"
