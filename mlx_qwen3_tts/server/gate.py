"""Who may be spoken now: a number of places, and a bounded queue, first come first served.

enter ─┬─ a place is free ─────────────► spoken ─ leave ─► the place goes to the first in the queue
       ├─ waits in the queue ──────────►
       └─ the queue is full: QueueFull
"""

import asyncio
from collections import deque


class QueueFull(Exception):
    """No place is free, and the queue is full."""


class Gate:
    """Counts the requests that are spoken. To be used on one event loop."""

    def __init__(self, places: int, queue_size: int) -> None:
        self.places = places
        self.queue_size = queue_size
        self.inside = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._queue)

    def check_room(self) -> None:
        """Raise QueueFull if a request that came now would be refused."""
        if self.inside >= self.places and self.waiting >= self.queue_size:
            raise QueueFull

    async def enter(self, patient: bool = False, first: bool = False) -> None:
        """Wait for a place. patient: wait even if the queue is full. first: go to the head of the queue.

        Raises QueueFull. If the wait is cancelled, the place goes to the next.
        """
        if self.inside < self.places and not self._queue:
            self.inside += 1
            return
        if not patient:
            self.check_room()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._queue.appendleft(turn)
        else:
            self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            elif turn in self._queue:
                self._queue.remove(turn)
            raise

    def reenter(self) -> None:
        """Take a place although none may be free, for speech whose text has come: its row goes on by itself."""
        self.inside += 1

    def leave(self) -> None:
        """Give up a place."""
        self.inside -= 1
        while self._queue and self.inside < self.places:
            turn = self._queue.popleft()
            if not turn.done():
                self.inside += 1
                turn.set_result(None)
