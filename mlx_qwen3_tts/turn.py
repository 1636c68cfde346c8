"""One thread computes at a time, on one stream that all threads share.

    with TURN:              wait for one's turn, in the order of asking; MLX computes on the shared stream
        with TURN.paused(): give it up meanwhile, for code that is not ours

MLX's own streams belong to the thread that made them: an array that one thread leaves unevaluated, and a compiled
function that it was the first to call, fail in every other ("There is no Stream(...) in current thread"). A stream that
is made thread-unsafe has no such owner, and asks in return that one thread uses it at a time. A turn lasts for one
step, a chunk of a stream at most, so that requests of several threads advance side by side.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import mlx.core as mx

Item = TypeVar("Item")


class Turn:
    """A fair lock that its holder may take again, and the stream to compute on while it is held."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._owner: int | None = None
        self._depth = 0
        self._streams: dict[mx.DeviceType, mx.Stream] = {}
        self._context: mx.StreamContext | None = None

    def __enter__(self) -> None:
        if self._owner != threading.get_ident():
            self._take()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        if self._owner != threading.get_ident():
            return  # Ctrl-C ended the wait for a turn that `paused` had given away: it is not ours to give
        self._depth -= 1
        if not self._depth:
            self._give()

    def _take(self) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._owner is None and self._waiting[0] is ticket)
                self._owner = threading.get_ident()
            finally:  # also where Ctrl-C ends the wait: the next in line must not wait for us
                self._waiting.remove(ticket)
                self._changed.notify_all()
        device = mx.default_device().type
        if device not in self._streams:
            self._streams[device] = mx.new_thread_unsafe_stream(device)
        self._context = mx.stream(self._streams[device])
        self._context.__enter__()

    def _give(self) -> None:
        self._context.__exit__(None, None, None)
        with self._changed:
            self._owner = None
            self._changed.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let others have the turn meanwhile. The caller holds it."""
        depth, self._depth = self._depth, 0
        self._give()
        try:
            yield
        finally:
            self._take()
            self._depth = depth

    def outside(self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass `items` on; whoever makes them does so outside of the turn, in which they are asked for."""
        items = iter(items)
        while True:
            with self.paused():
                item = next(items, self)
            if item is self:
                return
            yield item


TURN = Turn()
