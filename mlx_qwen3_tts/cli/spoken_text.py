"""The text that `say` speaks: words of the command line, a file, or standard input.

words ─ joined        -f FILE ─┐
                 -, or nothing ┴─ pieces of bytes, as they come
"""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import RequestError

STANDARD_INPUT = "-"
PIECE = 65536  # bytes


def settle_text(args: argparse.Namespace) -> None:
    """Let `args.text` be the text, STANDARD_INPUT if it comes from there or from --file, or None with --lines.

    Raises RequestError for arguments that exclude each other; exits if there is nothing to say.
    """
    if args.text and args.text[0] == STANDARD_INPUT and len(args.text) > 1:
        raise RequestError(f"{STANDARD_INPUT} stands for standard input, and a text follows it; leave one out")
    text = " ".join(args.text) if args.text else None
    if args.file is not None:
        if text is not None or args.lines is not None:
            other = "a text" if args.lines is None else "--lines"
            raise RequestError(f"--file and {other} exclude each other; leave one out")
        text = STANDARD_INPUT
    elif text is None and args.lines is None:
        if sys.stdin is None or sys.stdin.isatty():
            args.usage_error("there is nothing to say: give a text, -f FILE, or a text on standard input (see --help)")
        text = STANDARD_INPUT
    args.text = text


def text_pieces(args: argparse.Namespace) -> Iterator[bytes] | None:
    """Return the pieces of --file or of standard input, None if the text is known. Raises RequestError."""
    if args.text != STANDARD_INPUT:
        return None
    if args.file in (None, STANDARD_INPUT):
        if sys.stdin is None:
            raise RequestError("standard input is closed: there is no text to read")
        return read_pipe()
    try:
        return read_file(open(args.file, "rb"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"cannot read {args.file}: {reason}") from None


def source_of(args: argparse.Namespace) -> str:
    """Return what an error calls the text."""
    if args.file in (None, STANDARD_INPUT):
        return "the text"
    return args.file


def read_file(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file, piece by piece. Raises RequestError."""
    with file:
        try:
            while piece := file.read(PIECE):
                yield piece
        except OSError as error:  # a directory, or a disk that fails
            raise RequestError(f"cannot read {file.name}: {error.strerror}") from None


def read_pipe() -> Iterator[bytes]:
    """Yield standard input, piece by piece as it comes."""
    os.set_blocking(sys.stdin.fileno(), True)
    while piece := os.read(sys.stdin.fileno(), PIECE):
        yield piece
