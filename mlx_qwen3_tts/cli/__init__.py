"""The command line: each sub-command is one file, which has its parser as well.

Results go to files or standard output, everything else to standard error. Exit code 0: done; 1: an error, printed in
one line; 2: a wrong option; 130: interrupted; 143: terminated.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import Qwen3TTSError
from ..program import program_name
from ..suggest import unknown
from .bench import add_bench
from .book import add_book
from .clone import add_clone
from .completion import SHELLS, PrintScript, complete, is_asked
from .config import add_config
from .console import note
from .convert import add_convert
from .demo import add_demo
from .design import add_design
from .evaluate import add_evaluate
from .finetune import add_finetune
from .flags import error_message
from .parser import CommandParser
from .say import add_say
from .serve import add_serve
from .verify import add_verify
from .voices import add_voices

NO_GPU = "No Metal device available"  # in MLX's message

COMMANDS = (
    add_say, add_book, add_clone, add_design, add_voices, add_serve, add_convert, add_finetune, add_evaluate,
    add_verify, add_bench, add_config, add_demo,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser, commands = make_parsers()
    if is_asked():
        complete(parser, list(commands.values()))
    args = parse(parser, commands, sys.argv[1:] if argv is None else argv)
    try:
        args.run(args)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has left
        return 1
    except (Qwen3TTSError, OSError) as error:
        if args.debug:
            raise
        note(f"{program_name()}: error: {error_message(error)}")
        return 1
    except (RuntimeError, MemoryError) as error:  # MLX's own: no memory for an array, no place for its compiler's files
        if args.debug:
            raise
        note(f"{program_name()}: error: {explain_failure(error)}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make_parsers() -> tuple[CommandParser, dict[str, CommandParser]]:
    """Return the parser, and those of the commands by their names."""
    parser = CommandParser(prog=program_name(), description="Qwen3-TTS on MLX: text in, speech out.")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--completion", choices=SHELLS, action=PrintScript, help="print a script that completes commands in this shell"
    )
    parser.add_last_options(debug=False)
    for add in COMMANDS:
        command = add(commands)
        assert isinstance(command, CommandParser)
        command.add_last_options()
    return parser, dict(commands.choices)


def parse(parser: CommandParser, commands: dict[str, CommandParser], argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments. Exits with an error for a command or an option that does not exist."""
    if argv and not argv[0].startswith("-") and argv[0] not in commands:
        parser.error(unknown("command", argv[0], commands, f"the commands are {', '.join(commands)}"))
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
