"""The ids of a text in the order in which frames take them."""

import time
from collections import deque
from collections.abc import Iterable, Iterator

from ..errors import RequestError
from .unicode import check_text

EMPTY_TEXT = "the text is empty: give at least one word to say"


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
