"""Text to be spoken, cut into paragraphs."""

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from ..errors import RequestError

BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
SENTENCE_END = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])")
LONGEST, SLACK = 2000, 500  # characters: some two and a half minutes of speech, well below a request's limit


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
