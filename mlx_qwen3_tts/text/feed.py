"""Text ids in the order in which frames consume them, while the text may still be growing.

    source ─ check_pieces ─ encode_live ─ TextFeed.pull ─┬─ known ids ─ take ─► prompt, then one id a frame
        (the caller's thread)                            └─ the end once, then padding

The caller's thread pulls, which may wait for the source of the text. The MLX thread takes only known ids, and never
waits.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator

from ..errors import RequestError
from .unicode import check_text

EMPTY_TEXT = "the text is empty: give at least one word to say"


def check_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the pieces unchanged.

    Raises RequestError for a piece that is not a string of Unicode text, and at the end of a blank text.
    """
    blank = True
    for piece in pieces:
        if not isinstance(piece, str):
            raise RequestError(
                f"the text iterator yielded {piece!r} of type {type(piece).__name__}; it must yield strings"
            )
        check_text("the text", piece, about="text")
        blank = blank and not piece.strip()
        yield piece
    if blank:
        raise RequestError(EMPTY_TEXT, about="text")


def tee(pieces: Iterable[str], copy: list[str]) -> Iterator[str]:
    """Yield the pieces unchanged, and append each one to `copy`."""
    for piece in pieces:
        copy.append(piece)
        yield piece


class TextFeed:
    """The ids of a text as they become known, then `end` once, then `pad` forever."""

    def __init__(self, batches: Iterable[list[int]], end: int, pad: int) -> None:
        """batches: the ids of the text, in pieces; its `next` may block and raise. end, pad: ids."""
        self._batches = iter(batches)
        self._end = end
        self._pad = pad
        self._ids: deque[int] = deque()
        self.waited = 0.0  # seconds spent waiting for the source
        self.ended = False  # the end is known, or was taken
        self.length = 0  # number of ids from the source, without the end
        self._num_taken = 0  # ids, with padding
        self._consumed_at: int | None = None  # number of ids taken up to the end
        self._before_speech = 0  # number of ids taken by the prompt

    @property
    def known(self) -> int:
        """Number of ids that can be taken now, without padding."""
        return len(self._ids)

    @property
    def ready(self) -> bool:
        """True if the next id is known."""
        return self.ended or bool(self._ids)

    @property
    def exhausted(self) -> bool:
        """True if the text and its end were taken: every further id is padding."""
        return self.ended and not self._ids

    def pull(self) -> None:
        """Wait for the source's next batch. Raises what the source raises."""
        start = time.perf_counter()
        try:
            batch = next(self._batches, None)
        finally:
            self.waited += time.perf_counter() - start
        if batch is None:
            self._ids.append(self._end)
            self.ended = True
        else:
            self.length += len(batch)
            self._ids.extend(batch)

    def require(self, count: int) -> None:
        """Pull until `count` ids are known or the text has ended."""
        while len(self._ids) < count and not self.ended:
            self.pull()

    def require_all(self) -> None:
        """Pull until the text has ended."""
        while not self.ended:
            self.pull()

    def prepend(self, ids: list[int]) -> None:
        """Put ids before the known ones; they do not count towards `length`."""
        self._ids.extendleft(reversed(ids))

    def take(self, count: int = 1) -> list[int]:
        """Take the next ids. Raises LookupError if they are not known and the text has not ended."""
        if len(self._ids) < count and not self.ended:
            raise LookupError(f"only {len(self._ids)} of {count} ids are known: call require first")
        ids = [self._ids.popleft() if self._ids else self._pad for _ in range(count)]
        self._num_taken += count
        if self.exhausted and self._consumed_at is None:
            self._consumed_at = self._num_taken
        return ids

    def take_rest(self) -> list[int]:
        """Pull until the text has ended and take all remaining ids, with the end."""
        self.require_all()
        return self.take(len(self._ids))

    def begin_speech(self) -> None:
        """Mark the end of the prompt: from now on each frame takes one id."""
        self._before_speech = self._num_taken

    def consumed_before(self, frame: int) -> bool:
        """Return whether the text and its end had been taken before `frame`.

        Once that frame is generated, the answer does not depend on how the text was cut into pieces.
        """
        return self._consumed_at is not None and self._consumed_at <= self._before_speech + frame
