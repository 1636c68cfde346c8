"""Spoken forms of words: a list that the user keeps, and its use on a text.

words.tsv ─ read_pronunciations ─ [Pronunciation] ─ Pronouncer ─ a text with spoken forms in place of its words

A line of the list is a word, a tab and its spoken form; a third column, "any" or "exact", says whether the word's case
counts. "#" begins a line of comment.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DocumentError
from .lengths import UNSPACED

CASES = {"any": True, "exact": False, "": None}
# Letters, digits and accents of scripts with spaces between words: a word ends where they end.
INSIDE = rf"(?![{UNSPACED}])[\w\u0300-\u036f]"


@dataclass(frozen=True)
class Pronunciation:
    """A word, or several with spaces, and how it is spoken. any_case: None takes BookOptions.any_case."""

    word: str
    spoken: str
    any_case: bool | None = None


class Pronouncer:
    """Puts the spoken forms of a list in place of its words.

    Whole words only; a word of Chinese, Japanese or Korean matches anywhere. Of several that match at a place the
    longest counts, and a spoken form is not looked up again. Raises DocumentError for a word that is empty, and for one
    with two spoken forms.
    """

    def __init__(self, entries: Sequence[Pronunciation], any_case: bool = False) -> None:
        self._exact: dict[str, str] = {}
        self._folded: dict[str, str] = {}
        patterns: dict[str, str] = {}
        for entry in entries:
            word = _normalized(entry.word)
            if not word or not entry.spoken.strip():
                raise DocumentError(f"a pronunciation needs a word and a spoken form, not {entry}", "pronounce")
            folds = any_case if entry.any_case is None else entry.any_case
            forms = self._exact
            key = word
            if folds:
                forms = self._folded
                key = word.casefold()
            if forms.setdefault(key, entry.spoken.strip()) != entry.spoken.strip():
                raise DocumentError(f"{word!r} has two spoken forms in the pronunciation list", "pronounce")
            patterns[_pattern(word, folds)] = word
        longest_first = sorted(patterns, key=lambda pattern: (-len(patterns[pattern]), pattern))
        self._pattern = re.compile("|".join(longest_first)) if patterns else None

    def apply(self, text: str) -> str:
        """Return the text as it is spoken."""
        if self._pattern is None:
            return text
        return self._pattern.sub(self._spoken, unicodedata.normalize("NFC", text))

    def _spoken(self, match: re.Match[str]) -> str:
        word = _normalized(match[0])
        return self._exact.get(word) or self._folded.get(word.casefold()) or match[0]


def _normalized(word: str) -> str:
    return " ".join(unicodedata.normalize("NFC", word).split())


def _pattern(word: str, any_case: bool) -> str:
    """Return the regular expression of a word: whole, with any white space for its spaces."""
    body = r"\s+".join(re.escape(part) for part in word.split())
    if any_case:
        body = f"(?i:{body})"
    before = rf"(?<!{INSIDE})" if re.match(INSIDE, word) else ""
    after = rf"(?!{INSIDE})" if re.match(INSIDE, word[-1]) else ""
    return f"{before}{body}{after}"


def read_pronunciations(path: str | os.PathLike[str]) -> list[Pronunciation]:
    """Read a pronunciation list. Raises DocumentError, with the file and the line, for one that is invalid."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DocumentError(f"{path} is not UTF-8: convert the pronunciation list first") from None
    except OSError as error:
        raise DocumentError(f"cannot read the pronunciation list {path}: {error.strerror}") from None
    found: dict[tuple[str, bool | None], int] = {}
    entries = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = _read_line(f"{path}, line {number}", line)
        first = found.setdefault((_normalized(entry.word), entry.any_case), number)
        if first != number:
            raise DocumentError(f"{path}, line {number}: {entry.word!r} is in line {first} already; leave one out")
        entries.append(entry)
    return entries


def _read_line(place: str, line: str) -> Pronunciation:
    columns = [column.strip() for column in line.rstrip("\r\n").split("\t")]
    if not 2 <= len(columns) <= 3 or not columns[0] or not columns[1]:
        raise DocumentError(f"{place}: write a word, a tab and its spoken form, not {line.strip()!r}")
    case = columns[2] if len(columns) == 3 else ""
    if case not in CASES:
        raise DocumentError(f"{place}: the third column is 'any' or 'exact' (case), not {case!r}")
    return Pronunciation(columns[0], columns[1], CASES[case])
