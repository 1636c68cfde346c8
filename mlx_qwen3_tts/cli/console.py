"""Messages and results on the terminal."""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import AudioError, printable
from .flags import with_flag


def note(message: str) -> None:
    """Print a message for the user on standard error."""
    if sys.stderr:
        print(printable(message), file=sys.stderr)  # noqa: T201


def emit(line: str) -> None:
    """Print one or more lines of a result on standard output."""
    if sys.stdout is None:
        raise AudioError("standard output is closed: the result cannot be printed")
    print("\n".join(map(printable, line.split("\n"))))  # noqa: T201


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print the library's warnings as messages for the user, with flags in place of arguments."""

    def show(message: Warning | str, *_args: object, **_options: object) -> None:
        text = str(message)
        for argument in ("batch_size", "max_frames", "frames_per_token"):
            text = with_flag(text, argument)
        note(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = show
        yield


@contextmanager
def announced_if_slow(message: str, seconds: float = 1.0) -> Iterator[None]:
    """Print a message if the block takes longer than some seconds, while it still runs."""
    timer = threading.Timer(seconds, note, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
