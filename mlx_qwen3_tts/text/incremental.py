"""Text that is still being written: from a pipe or a language model, piece by piece.

    bytes ─ decode_pieces ─ strings ─ paragraphs ─ one iterator of strings per paragraph
    strings ─ LiveEncoder ─ ids, each as soon as no later text can change it

The ids are those of the whole text, however it was cut: a piece may end inside a word, a run of spaces or an emoji.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain

from .tokenizer import TextTokenizer

LONG_WORD = 256  # characters


def _starts_a_unit(character: str) -> bool:
    """Whether normalization never joins `character` to what stands before it: no mark, no Hangul vowel or final."""
    return not unicodedata.category(character).startswith("M") and not "\u1160" <= character <= "\u11ff"


class LiveEncoder:
    """Encodes a text that grows. `feed` and `finish` return the ids that have become certain."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tail = ""  # what is not encoded yet
        self._enough = 0  # its length at which the next look is worth it

    def feed(self, piece: str) -> list[int]:
        """Add `piece`; return the ids of what no later text can change."""
        self._tail += piece
        if len(self._tail) < self._enough:
            return []
        # Up to the last character that starts a unit, NFC is final.
        last = next((i for i in range(len(self._tail) - 1, -1, -1) if _starts_a_unit(self._tail[i])), 0)
        normalized = unicodedata.normalize("NFC", self._tail[:last])
        # The pattern looks one character ahead, or to the end of a run of white space: everything before the last word
        # is certain, since that word's first character is there.
        certain = self._tokenizer.before_last_word(normalized)
        self._tail = normalized[certain:] + self._tail[last:]
        # A word that does not end is looked at again when it has grown by a quarter, not at each of its letters.
        self._enough = 0 if len(self._tail) < LONG_WORD else 5 * len(self._tail) // 4
        return self._tokenizer.encode(normalized[:certain]) if certain else []

    def finish(self) -> list[int]:
        """The ids of the rest, at the end of the text."""
        rest, self._tail = self._tail, ""
        return self._tokenizer.encode(rest) if rest else []


def encode_live(tokenizer: TextTokenizer, head: str, pieces: Iterable[str]) -> Iterator[list[int]]:
    """The ids of `head` and all `pieces` as one text, in batches, each as soon as it is certain."""
    encoder = LiveEncoder(tokenizer)
    for piece in chain([head], pieces):
        yield encoder.feed(piece)
    yield encoder.finish()
