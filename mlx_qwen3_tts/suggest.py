"""The error for an unknown name, with the nearest known one.

name, known names ─ difflib ─ "unknown voice 'Rian': did you mean Ryan? This model has: ..."
"""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`, in any case, or None if none is like it."""
    by_folded = {one.casefold(): one for one in known}
    found = get_close_matches(name.casefold(), by_folded, n=1)
    if not found:
        return None
    return by_folded[found[0]]


def unknown(kind: str, name: str, known: Iterable[str], rest: str) -> str:
    """Return the message for a name that is not among the known ones.

    kind: what the name is of, such as "voice". rest: what else helps, as the end of a sentence.
    """
    return suggest(f"unknown {kind} {name!r}", name, known, rest)


def suggest(message: str, name: str, known: Iterable[str], rest: str) -> str:
    """Return `message`, the nearest known name if there is one, and `rest`."""
    near = nearest(name, known)
    if near is None:
        return f"{message}; {rest}"
    return f"{message}: did you mean {near}? {rest[0].upper()}{rest[1:]}"
