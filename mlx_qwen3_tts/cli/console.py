"""Lines for the user."""

import sys

from ..errors import AudioError, printable


def note(message: str) -> None:
    """Tell the user something, on standard error."""
    if sys.stderr:
        print(printable(message), file=sys.stderr)  # noqa: T201


def emit(line: str) -> None:
    """Print a line of a result, or several."""
    if sys.stdout is None:
        raise AudioError("standard output is closed: there is nowhere to write the list")
    print("\n".join(map(printable, line.split("\n"))))  # noqa: T201
