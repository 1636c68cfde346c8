"""Split text that comes in pieces: bytes to strings, and strings to paragraphs.

bytes ─ decode_pieces ─ strings ─ ParagraphSplitter ─ one iterator of strings per paragraph
"""

import codecs
import re
from collections.abc import Iterable, Iterator

from ..errors import RequestError

BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
SENTENCE_END = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])")
WHITE_SPACE = "\n \t\r"
MAX_PARAGRAPH = 2000  # characters: about two and a half minutes of speech, well below a request's limit
MAX_OVERRUN = 500  # characters after MAX_PARAGRAPH in which a sentence may still end


def decode_pieces(pieces: Iterable[bytes], source: str = "the text") -> Iterator[str]:
    """Decode UTF-8 that comes in pieces, which may end inside a character.

    Raises RequestError for other bytes, which names the source.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    for piece in pieces:
        yield from _decode(decoder, piece, source)
    yield from _decode(decoder, b"", source, final=True)


def _decode(decoder: codecs.IncrementalDecoder, piece: bytes, source: str, final: bool = False) -> Iterator[str]:
    try:
        text = decoder.decode(piece, final)
    except UnicodeDecodeError as error:
        yield error.object[: error.start].decode("utf-8")  # the valid part is still spoken
        raise RequestError(f"{source} is not UTF-8 from here on; convert it first") from None
    yield text


class ParagraphSplitter:
    """Splits a text that comes in pieces at its blank lines.

    Yields an iterator of strings for each paragraph, without the white space around it. A paragraph of more than
    MAX_PARAGRAPH characters is split after a sentence or a word. The rest of a paragraph is skipped when the next one
    is requested.
    """

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._buffer = ""

    def _fill(self) -> bool:
        """Read one more piece; return False at the end of the text."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._buffer += piece.replace("\r\n", "\n")
        return True

    def __iter__(self) -> Iterator[Iterator[str]]:
        while True:
            self._buffer = self._buffer.lstrip(WHITE_SPACE)
            if self._buffer:
                paragraph = self._paragraph()
                yield paragraph
                for _ in paragraph:
                    pass
            elif not self._fill():
                return

    def _paragraph(self) -> Iterator[str]:
        length = 0
        previous = ""
        while True:
            end, is_last = _find_end(self._buffer, previous, MAX_PARAGRAPH - length)
            text = self._buffer[:end]
            self._buffer = self._buffer[end:]
            if text:
                length += len(text)
                previous = text[-1]
                yield text
            if is_last or not self._fill():
                return


def _find_end(text: str, previous: str, room: int) -> tuple[int, bool]:
    """Return how many characters of `text` belong to the paragraph, and whether it ends there.

    previous: the character before the text, if any. room: characters to come before the paragraph must end with the
    next sentence; negative if it is longer already.
    """
    first_end = max(0, room)
    ends = []
    blank_line = BLANK_LINE.search(text)
    if blank_line:
        ends.append(blank_line.start())
    sentence = SENTENCE_END.search(previous + text, len(previous) + first_end)
    if sentence:
        ends.append(sentence.start() - len(previous))
    last_end = room + MAX_OVERRUN
    ends = [end for end in ends if end <= last_end]
    if not ends and len(text) > last_end:  # a very long sentence: end after a word, or anywhere
        end = text.find(" ", first_end, last_end)
        if end < 0:
            end = last_end
        ends.append(end)
    if ends:
        return len(text[: min(ends)].rstrip()), True
    # White space at the end is held back: it may become a blank line, or the end of the text.
    return len(text.rstrip(WHITE_SPACE)), False
