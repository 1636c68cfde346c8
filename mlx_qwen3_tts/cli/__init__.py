"""The command line: each sub-command is one file, which has its parser as well.

Results go to files or standard output, everything else to standard error. Exit code 0: done; 1: an error, printed in
one line; 2: a wrong option; 130: interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import Qwen3TTSError
from .bench import add_bench
from .book import add_book
from .clone import add_clone
from .console import note
from .convert import add_convert
from .demo import add_demo
from .design import add_design
from .evaluate import add_evaluate
from .finetune import add_finetune
from .flags import error_message
from .say import add_say
from .serve import add_serve
from .verify import add_verify
from .voices import add_voices

NO_GPU = "No Metal device available"  # in MLX's message

COMMANDS = (
    add_say, add_book, add_clone, add_design, add_voices, add_serve, add_convert, add_finetune, add_evaluate, add_verify,
    add_bench, add_demo,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="mlx-qwen3-tts", description="Qwen3-TTS on MLX: text in, speech out.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands).add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
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
        note(f"mlx-qwen3-tts: error: {error_message(error)}")
        return 1
    except (RuntimeError, MemoryError) as error:  # MLX's own: no memory for an array, no place for its compiler's files
        if args.debug:
            raise
        note(f"mlx-qwen3-tts: error: {explain_failure(error)}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def explain_failure(error: RuntimeError | MemoryError) -> str:
    """Return what MLX's own error means and what to do, in one line."""
    if NO_GPU in str(error):
        return (
            "MLX finds no GPU in this session, as over ssh, in a sandbox or in a virtual machine: run this in a "
            "terminal of the user who is logged in on the Mac"
        )
    why = " ".join(str(error).split())[:200] or "out of memory"
    return f"the computation failed ({why}): try a smaller or quantized model, or a shorter text"
