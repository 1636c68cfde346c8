"""Several processes that share the work of one book, over mx.distributed (its ring, between Macs or on one machine).

    each:    which takes do I have? ─ gather ─ what is missing ─ own share: every n-th group ─ make ─ gather
    rank 0:  ◄─ the files that it lacks, one after the other ─ from whoever has them

If all see the same folder, nothing is lacking after the work and nothing is sent. Without a launcher the team has one
member, and MLX is not asked.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import mlx.core as mx
import numpy as np

from ..errors import BookError
from ..mlx_thread import Worker
from .takes import TakeStore

CHECK_BYTES = 4

T = TypeVar("T")


class Team:
    """The processes of a launch, of which this is one. Every member makes the same calls in the same order.

    All methods raise BookError if another member has ended.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._group: mx.distributed.Group = worker.run(mx.distributed.init)
        self.rank: int = self._group.rank()
        self.size: int = self._group.size()

    @property
    def is_main(self) -> bool:
        """True for the member that writes the book."""
        return self.rank == 0

    def share(self, groups: Sequence[T]) -> list[T]:
        """Return every n-th group, from one's own rank on."""
        return list(groups[self.rank :: self.size])

    def gather(self, row: np.ndarray) -> np.ndarray:
        """Return everybody's row of bytes, uint8 [members, n]. row: uint8 [n], the same n for all."""
        if self.size == 1:
            return row[None]
        own = _signed(row)[None]
        rows = self._call(lambda: mx.distributed.all_gather(mx.array(own), group=self._group))
        return np.stack([_checked(one) for one in rows])

    def send(self, data: bytes | None, sender: int) -> bytes:
        """Return the sender's data. data: of the sender; the others' is not used."""
        if self.size == 1:
            assert data is not None
            return data
        own = data if self.rank == sender and data is not None else b""
        length = self.gather(np.frombuffer(len(own).to_bytes(8, "little"), np.uint8))[sender]
        row = np.zeros(int.from_bytes(length.tobytes(), "little") + CHECK_BYTES, np.uint8)
        if self.rank == sender:
            row = _signed(np.frombuffer(own, np.uint8))
        # The sum of everybody's bytes, of which the sender's alone are not zero.
        return _checked(self._call(lambda: mx.distributed.all_sum(mx.array(row), group=self._group))).tobytes()

    def check_same(self, digest: bytes) -> None:
        """Raise BookError unless all members have the same digest of what they are to do."""
        rows = self.gather(np.frombuffer(digest, np.uint8))
        if (rows != rows[0]).any():
            raise BookError(
                "the processes differ in book, options, model or version of this package: start all with the same"
            )

    def _call(self, function: Callable[[], mx.array]) -> np.ndarray:
        try:
            return self._worker.run(lambda: np.array(function()))
        except RuntimeError as error:  # MLX's own
            raise _broken(" ".join(str(error).split())) from None


def _signed(row: np.ndarray) -> np.ndarray:
    """Return bytes with their checksum behind them: a broken ring may also give what nobody has sent."""
    check = zlib.crc32(row.tobytes()).to_bytes(CHECK_BYTES, "little")
    return np.concatenate([row, np.frombuffer(check, np.uint8)])


def _checked(row: np.ndarray) -> np.ndarray:
    """Return bytes without their checksum. Raises BookError if it is wrong."""
    data = row[:-CHECK_BYTES]
    if zlib.crc32(data.tobytes()).to_bytes(CHECK_BYTES, "little") != row[-CHECK_BYTES:].tobytes():
        raise _broken("its message is damaged")
    return data


def _broken(reason: str) -> BookError:
    return BookError(
        f"another process of this launch has ended ({reason}); what was made is kept: run the same again, and it makes "
        "up for it"
    )


def collect(team: Team, store: TakeStore, keys: Sequence[str], states: np.ndarray) -> int:
    """Give the first member the files of takes that others have; return how many were sent.

    states: uint8 [members, takes], above 0 if a member has the file; the highest one is sent. Raises BookError.
    """
    count = 0
    for i, key in enumerate(keys):
        owner = int(states[:, i].argmax())
        if states[owner, i] == states[0, i]:
            continue
        own = None
        if team.rank == owner:
            own = store.get(key)
        data = team.send(own, owner)
        if team.is_main:
            store.put(key, data)
        count += 1
    return count
