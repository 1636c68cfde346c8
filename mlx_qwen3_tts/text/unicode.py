"""Strings that are Unicode text: Python and JSON also allow lone surrogates, which UTF-8 does not."""

import unicodedata

from ..errors import RequestError


def check_text(subject: str, text: str, *arguments: str, about: str | None = None) -> None:
    """Raise RequestError for a string with lone surrogates, which Python uses for bytes that it could not decode.

    arguments: those that `subject` names, if any. about: the one that is wrong, if `subject` does not name it.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"{subject} is not valid Unicode at character {error.start}: write it as UTF-8"
        raise RequestError(message, *arguments, about=about) from None


def is_unicode(text: str) -> bool:
    """Return True if `text` has no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def composed(name: str) -> str:
    """Return a name with each letter and its accent as one character (NFC), if there is one."""
    return unicodedata.normalize("NFC", name)
