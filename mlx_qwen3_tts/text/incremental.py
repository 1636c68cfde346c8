"""Text that is still being written: from a pipe or a language model, piece by piece.

    bytes ─ decode_pieces ─ strings ─ paragraphs ─ one iterator of strings per paragraph
    strings ─ LiveEncoder ─ ids, each as soon as no later text can change it

The ids are those of the whole text, however it was cut: a piece may end inside a word, a run of spaces or an emoji.
"""

import codecs
import re
import time
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

from ..errors import RequestError
from .tokenizer import TextTokenizer

BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
SENTENCE_END = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])")
LONGEST, SLACK = 2000, 500  # characters: some two and a half minutes of speech, well below a request's limit
LONG_WORD = 256  # characters
EMPTY_TEXT = "the text is empty: give at least one word to say"


def decode_pieces(pieces: Iterable[bytes]) -> Iterator[str]:
    """UTF-8 in pieces to strings; a character may be cut in the middle. Raises RequestError for other bytes."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    for piece, final in chain(((piece, False) for piece in pieces), [(b"", True)]):
        try:
            text = decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode("utf-8")  # what is good is still spoken
            raise RequestError("the text is not UTF-8 from here on; convert it first") from None
        yield text


class paragraphs:
    """Cut a text in pieces at its blank lines.

    Yields an iterator of strings for each paragraph, without blank lines and line ends around it. A paragraph longer
    than LONGEST characters is cut after a sentence, or a word, into several. What is left of one when the next is asked
    for is skipped.
    """

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._buffer = ""
        self._ended = False

    def _fill(self) -> bool:
        """Read one more piece; false at the end of the text."""
        piece = next(self._pieces, None)
        if piece is None:
            self._ended = True
        else:
            self._buffer += piece.replace("\r\n", "\n")
        return not self._ended

    def __iter__(self) -> Iterator[Iterator[str]]:
        while True:
            self._buffer = self._buffer.lstrip("\n \t\r")
            if self._buffer:
                paragraph = self._paragraph()
                yield paragraph
                for _ in paragraph:
                    pass
            elif not self._fill():
                return

    def _paragraph(self) -> Iterator[str]:
        given, before = 0, ""
        while True:
            end, last = _cut(self._buffer, before, LONGEST - given)
            text, self._buffer = self._buffer[:end], self._buffer[end:]
            given, before = given + len(text), (before + text)[-1:]
            if text:
                yield text
            if last or not self._fill():
                return


def _cut(text: str, before: str, room: int) -> tuple[int, bool]:
    """How much of `text` can be given out, and whether the paragraph ends there.

    before: the character before it, if any. room: how many more it may have before it is cut after the next sentence.
    """
    blank = BLANK_LINE.search(text)
    sentence = SENTENCE_END.search(before + text, len(before) + max(0, room))
    ends = [blank.start()] if blank else []
    ends += [sentence.start() - len(before)] if sentence else []
    if not ends and len(text) > room + SLACK:  # no sentence ends for long: after a word, or anywhere
        space = text.find(" ", max(0, room))
        ends = [space if 0 <= space <= room + SLACK else max(0, room) + SLACK]
    if ends:
        return len(text[: min(ends)].rstrip()), True
    # White space at the end is kept back: what follows may make it the blank line, or the end of the text.
    return len(text.rstrip("\n \t\r")), False


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


def check_text(name: str, text: str) -> None:
    """Refuse a string that is not Unicode text: Python marks bytes it could not decode as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} is not valid Unicode at character {error.start}: write it as UTF-8") from None


def check_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Pass strings on. Raises RequestError for a piece that is none, and at the end of a text that says nothing."""
    blank = True
    for piece in pieces:
        if not isinstance(piece, str):
            raise RequestError(f"the text iterator gave {piece!r} of type {type(piece).__name__}; it must give strings")
        check_text("the text", piece)
        blank = blank and not piece.strip()
        yield piece
    if blank:
        raise RequestError(EMPTY_TEXT)


def kept(pieces: Iterable[str], copy: list[str]) -> Iterator[str]:
    """Pass `pieces` on, and put them into `copy` as well."""
    for piece in pieces:
        copy.append(piece)
        yield piece


class TextIds:
    """The ids of a text as they become known, then `end` once, then `pad` for ever.

    Asking for one that is not known yet waits for the text's source, on the caller's thread.
    """

    def __init__(self, batches: Iterable[list[int]], end: int, pad: int) -> None:
        self._batches, self._end, self._pad = iter(batches), end, pad
        self._ids: deque[int] = deque()
        self.waited = 0.0  # seconds spent waiting for the source
        self.ended = False  # the end is among the known ids, or was taken
        self.length = 0  # ids of the text that the source has given, the end aside
        self._taken = 0  # ids, pads included
        self._over: int | None = None  # how many were taken when the end was
        self._before_speech = 0  # how many were taken by the prompt

    @property
    def known(self) -> int:
        """How many ids are there to be taken without waiting, pads aside."""
        return len(self._ids)

    @property
    def ready(self) -> bool:
        """Whether the next id can be had without waiting."""
        return self.ended or bool(self._ids)

    @property
    def exhausted(self) -> bool:
        """Whether all of the text and its end were taken."""
        return self.ended and not self._ids

    def begin_speech(self) -> None:
        """The prompt has what it needs: from now on each frame takes one id."""
        self._before_speech = self._taken

    def over_before(self, frame: int) -> bool:
        """Whether the text and its end were given before `frame` was made, which was: the same however it came."""
        return self._over is not None and self._over <= self._before_speech + frame

    def put_back(self, ids: list[int]) -> None:
        """Put `ids`, which are not counted in `length`, before the next one."""
        self._ids.extendleft(reversed(ids))

    def _wait(self) -> None:
        """Ask the source for more."""
        began = time.perf_counter()
        try:
            batch = next(self._batches, None)
        finally:
            self.waited += time.perf_counter() - began
        if batch is None:
            self._ids.append(self._end)
            self.ended = True
        else:
            self._ids.extend(batch)
            self.length += len(batch)

    def take(self, count: int) -> list[int]:
        """The next `count` ids."""
        while len(self._ids) < count and not self.ended:
            self._wait()
        ids = [self._ids.popleft() if self._ids else self._pad for _ in range(count)]
        self._taken += count
        if self.exhausted and self._over is None:
            self._over = self._taken
        return ids

    def rest(self) -> list[int]:
        """All ids that are left, up to the end."""
        while not self.ended:
            self._wait()
        return self.take(len(self._ids))
