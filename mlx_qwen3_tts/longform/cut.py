"""Cut a text into segments of a good length.

text ─ where it can be cut, and how badly ─ the cheapest way to cut it ─ pieces, each with the kind of its end

A sentence's end is the best place, then a clause's, then a word's, then any. Pieces are at most `longest` letters long
(see lengths.py); a piece shorter than `shortest` costs more the shorter it is, so that the end of a text is balanced
with what is before it. A text that fits into one piece is one.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise

from .lengths import UNSPACED, letters_of
from .sentences import clause_ends, sentence_ends


class End(IntEnum):
    """What ends at a place in a text, from the best place for a cut to the worst."""

    PARAGRAPH = 0
    SENTENCE = 1
    CLAUSE = 2
    WORD = 3
    CHARACTER = 4


# What a cut costs. A piece that is much too short costs up to SHORT, which is less than a cut inside a word and more
# than one after a clause: a one-word sentence does not become a segment if its neighbour can spare a clause.
COSTS = {End.PARAGRAPH: 0.0, End.SENTENCE: 5.0, End.CLAUSE: 30.0, End.WORD: 120.0, End.CHARACTER: 500.0}
SHORT = 50.0
UNEVEN = 5.0  # for a piece as far from the middle of the range as its ends are
STEPS = 32  # places in a piece between whose characters it can be cut
SILENT = 1000.0  # for a piece without any letter or digit

WORD_GAP = re.compile(r"\s+(?=\S)")
# Where a Japanese phrase begins, as a rule: a kanji or katakana word after hiragana.
PHRASE = re.compile(r"(?<=[\u3041-\u309f])(?=[\u30a1-\u30fa\u4e00-\u9fff])")
NEVER_FIRST = re.compile(r"[\s\u3001-\u3003\u3005\u3009\u300b\u300d\u300f\u3011\u3015\u301c\u309d\u309e\u30fc-\u30fe]")
SMALL_KANA = "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
JOINERS = "\u200d\ufe0e\ufe0f"


@dataclass(frozen=True)
class Piece:
    """A part of a text, without white space around it, and what ends with it."""

    text: str
    end: End


def cut(text: str, shortest: float, longest: float) -> list[Piece]:
    """Return the pieces of a text of one or more paragraphs, which line ends separate.

    shortest, longest: letters. Joined, the pieces are the text up to white space.
    """
    if not text:
        return []
    lengths = [0.0, *accumulate(letters_of(character) for character in text)]
    ends = _places(text, lengths, longest)
    starts = _cheapest(text, lengths, ends, shortest, longest)
    pieces = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        part = text[start:end].strip()
        if part:
            pieces.append(Piece(part, ends[end]))
    return pieces


def _places(text: str, lengths: list[float], longest: float) -> dict[int, End]:
    """Return where a text can be cut, in order, and what ends there."""
    places: dict[int, End] = {}

    def add(found: Iterable[int], kind: End) -> None:
        for place in found:
            places.setdefault(place, kind)

    add([len(text), *(match.end() for match in re.finditer(r"\n+", text))], End.PARAGRAPH)
    add(sentence_ends(text), End.SENTENCE)
    add(clause_ends(text), End.CLAUSE)
    # Worse places are added only if better ones are far apart.
    for start, end in _gaps(places, lengths, longest / 2):
        add((match.end() for match in WORD_GAP.finditer(text, start, end)), End.WORD)
        add((match.start() for match in PHRASE.finditer(text, start, end)), End.WORD)
    for start, end in _gaps(places, lengths, longest / 2):
        add(_between_characters(text, lengths, start, end, longest), End.CHARACTER)
    return dict(sorted(places.items()))


def _gaps(places: Iterable[int], lengths: list[float], limit: float) -> list[tuple[int, int]]:
    """Return the stretches between neighbouring places that are longer than `limit` letters."""
    return [(start, end) for start, end in pairwise([0, *sorted(places)]) if lengths[end] - lengths[start] > limit]


def _between_characters(text: str, lengths: list[float], start: int, end: int, longest: float) -> list[int]:
    """Return places in a text without white space, such as Chinese or an address: STEPS in a piece, or some more."""
    found: list[int] = []
    last = start
    for place in range(start + 1, end):
        distance = lengths[place] - lengths[last]
        is_good = _may_begin(text[place]) and text[place - 1] not in JOINERS
        if distance >= longest / STEPS and (is_good or distance > longest / 4):
            found.append(place)
            last = place
    return found


def _may_begin(character: str) -> bool:
    """Return whether a piece may begin with a character; one may not with a mark that belongs to the one before."""
    if character in SMALL_KANA or character in JOINERS or NEVER_FIRST.match(character):
        return False
    return bool(re.match(rf"[\w{UNSPACED}]", character)) or unicodedata.category(character) not in (
        "Mn", "Mc", "Me", "Sk", "Pe", "Pf", "Po",
    )  # fmt: skip


def _cheapest(
    text: str, lengths: list[float], ends: dict[int, End], shortest: float, longest: float
) -> list[int]:  # fmt: skip
    """Return the starts of the pieces that cost least together: the shortest path from place to place."""
    spoken = [0, *accumulate(int(character.isalnum()) for character in text)]
    places = [0, *(place for place in ends if place > 0)]
    best: list[tuple[float, int]] = [(0.0, 0)]  # the cost up to each place, and where its last piece begins
    first = 0
    for index in range(1, len(places)):
        end = places[index]
        while first < index - 1 and lengths[end] - lengths[places[first]] > longest:
            first += 1
        options = []
        for start in range(first, index):
            length = lengths[end] - lengths[places[start]]
            cost = best[start][0] + _cost(length, shortest, longest)
            if spoken[end] == spoken[places[start]]:
                cost += SILENT
            options.append((cost, start))
        cost, start = min(options)
        if index < len(places) - 1:
            cost += COSTS[ends[end]]
        best.append((cost, start))
    starts = []
    index = len(places) - 1
    while index > 0:
        index = best[index][1]
        starts.append(places[index])
    return starts[::-1]


def _cost(length: float, shortest: float, longest: float) -> float:
    """Return what the length of a piece costs."""
    middle = (shortest + longest) / 2
    half = max(1.0, (longest - shortest) / 2)
    missing = max(0.0, 1 - length / shortest)
    return SHORT * missing**2 + UNEVEN * min(4.0, ((length - middle) / half) ** 2)
