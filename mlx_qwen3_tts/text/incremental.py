"""Incremental encoding of a text that is still being written, by a pipe or a language model.

    strings ─ IncrementalEncoder ─ ids, each as soon as no later text can change it

The ids are those of the whole text, however it is cut: a piece may end inside a word, a run of spaces or an emoji.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain

from .tokenizer import TextTokenizer

MIN_LONG_WORD = 256  # characters, from which a word is not examined at each piece


def _is_starter(character: str) -> bool:
    """Return True if NFC never joins `character` to the one before it: it is not a mark or a Hangul vowel or final."""
    return not unicodedata.category(character).startswith("M") and not "\u1160" <= character <= "\u11ff"


class IncrementalEncoder:
    """Encodes a text that grows. `feed` and `finish` return the ids that are final."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tail = ""  # text that is not encoded yet
        self._next_length = 0  # the length of the tail at which it is examined again

    def feed(self, piece: str) -> list[int]:
        """Append `piece` and return the ids of what no later text can change."""
        self._tail += piece
        if len(self._tail) < self._next_length:
            return []
        # NFC is final up to the last starter.
        starters = (i for i in range(len(self._tail) - 1, -1, -1) if _is_starter(self._tail[i]))
        last_starter = next(starters, 0)
        normalized = unicodedata.normalize("NFC", self._tail[:last_starter])
        # The pattern looks ahead by one character, or to the end of a run of white space, so everything before the last
        # word, whose first character is known, is final.
        end = self._tokenizer.last_word_start(normalized)
        self._tail = normalized[end:] + self._tail[last_starter:]
        # A very long word is examined again when it has grown by a quarter, or the work would be quadratic.
        is_long = len(self._tail) >= MIN_LONG_WORD
        self._next_length = 5 * len(self._tail) // 4 if is_long else 0
        return self._tokenizer.encode(normalized[:end]) if end else []

    def finish(self) -> list[int]:
        """Return the ids of the rest at the end of the text."""
        rest = self._tail
        self._tail = ""
        return self._tokenizer.encode(rest) if rest else []


def encode_live(tokenizer: TextTokenizer, head: str, pieces: Iterable[str]) -> Iterator[list[int]]:
    """Yield the ids of `head` and all `pieces` as one text, in batches, each as soon as it is final."""
    encoder = IncrementalEncoder(tokenizer)
    for piece in chain([head], pieces):
        yield encoder.feed(piece)
    yield encoder.finish()
