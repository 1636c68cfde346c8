"""The arrays of a batch between two frames: a slot of each for every row.

place ─► slot of a row that joins        select ─► fewer or more slots        reserve ─► room for more positions
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import mlx.core as mx

from ..models.cache import capacity_for, with_capacity


@dataclass
class DecodeState:
    """The state of generation between two frames, with a row for each slot."""

    hidden: mx.array  # [rows, hidden], the talker's normalized output before the next frame
    logits: mx.array  # [rows, vocab], of the next frame's codebook 0
    embedding: mx.array  # [rows, hidden], of the last frame, for the talker's next step
    seen: mx.array  # bool [rows, vocab], true for every id of codebook 0 so far
    keys: mx.array  # uint32 [rows, 2], of the next draws
    buffers: list[mx.array]  # one for each layer, [2, rows, kv_heads, capacity, head_dim]; see models/cache.py

    @property
    def capacity(self) -> int:
        """Positions that a row may have."""
        return self.buffers[0].shape[3]

    @property
    def size(self) -> int:
        """Number of slots."""
        return len(self.keys)

    def reserve(self, positions: int) -> None:
        """Make room for that many positions in each row."""
        if positions <= self.capacity:
            return
        capacity = capacity_for(positions)
        for i, old in enumerate(self.buffers):
            self.buffers[i] = with_capacity(old, capacity)
            del old
            settle(self.buffers[i])  # one layer after the other: no more than one old buffer is left beside the new

    def place(self, slot: int, row: "DecodeState") -> None:
        """Overwrite a slot with the state of one row, which has no more capacity than this one."""
        for name in ROW_ARRAYS:
            array = getattr(self, name)
            array[slot : slot + 1] = getattr(row, name)
            mx.eval(array)
        for i, new in enumerate(row.buffers):
            # All of the slot: an attention weight of 0 times a NaN that another row left would be NaN.
            self.buffers[i][:, slot : slot + 1] = with_capacity(new, self.capacity)
            settle(self.buffers[i])

    def row(self, slot: int) -> "DecodeState":
        """Return a copy of the state of one slot."""
        arrays = {name: mx.contiguous(getattr(self, name)[slot : slot + 1]) for name in ROW_ARRAYS}
        buffers = [mx.contiguous(buffer[:, slot : slot + 1]) for buffer in self.buffers]
        mx.eval(arrays, buffers)
        return DecodeState(**arrays, buffers=buffers)

    def select(self, slots: Sequence[int], capacity: int) -> None:
        """Keep these slots, in this order, and that many positions of each; a slot may be named more than once."""
        index = mx.array(list(slots))
        for name in ROW_ARRAYS:
            setattr(self, name, mx.contiguous(getattr(self, name)[index]))
        mx.eval([getattr(self, name) for name in ROW_ARRAYS])
        for i, old in enumerate(self.buffers):
            self.buffers[i] = with_capacity(mx.take(old, index, axis=1), capacity)
            del old
            settle(self.buffers[i])


ROW_ARRAYS = [field.name for field in fields(DecodeState) if field.name != "buffers"]


def settle(buffer: mx.array) -> None:
    """Compute a new buffer and free what it was made from: MLX's allocator would keep it for a request of its size."""
    mx.eval(buffer)
    mx.clear_cache()
