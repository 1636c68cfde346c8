"""Strings that are Unicode text."""

from ..errors import RequestError


def check_text(name: str, text: str) -> None:
    """Refuse a string that is not Unicode text: Python marks bytes it could not decode as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} is not valid Unicode at character {error.start}: write it as UTF-8") from None


def is_unicode(text: str) -> bool:
    """Whether `text` has no lone surrogates, which JSON and Python allow and UTF-8 does not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
