"""Keys and values of the positions that a transformer has seen: one object for each attention layer.

    [2, rows, kv_heads, capacity, head_dim]: keys, then values

Keys and values share a buffer, so that a position is one write, and lie one behind the other, so that attention reads
both without a copy, however many rows there are. `KVCache` grows and takes a prompt. `StepCache` takes one position
more for each row of a batch, in a compiled function: its shapes never change.
"""

import mlx.core as mx

MIN_CAPACITY = 128  # positions

Past = tuple[mx.array, mx.array, mx.array | str | None]  # keys, values, mask for scaled_dot_product_attention


def capacity_for(positions: int) -> int:
    """Return the capacity of a buffer for that many positions: a power of two.

    Doubling keeps the retraces of a compiled step few. Whoever lets a buffer grow calls `mx.clear_cache` afterwards:
    MLX's allocator hands a freed buffer only to a request of nearly its size, so that the old buffers of a growing
    cache would pile up.
    """
    capacity = MIN_CAPACITY
    while capacity < positions:
        capacity *= 2
    return capacity


def with_capacity(buffer: mx.array, capacity: int) -> mx.array:
    """Return keys and values [2, rows, kv_heads, capacity, head_dim] with another capacity; new places are zeros."""
    spare = capacity - buffer.shape[3]
    if spare <= 0:
        return mx.contiguous(buffer[:, :, :, :capacity])
    return mx.pad(buffer, [(0, 0), (0, 0), (0, 0), (0, spare), (0, 0)])


class KVCache:
    """One attention layer's past, `offset` positions long."""

    buffer: mx.array  # [2, rows, kv_heads, capacity, head_dim]; there is none before the first update

    def __init__(self, capacity: int | None = None) -> None:
        """capacity: of the buffer, if it is known and never exceeded; None starts small and grows."""
        self.offset = 0
        self._fixed = capacity

    def restore(self, past: mx.array) -> None:
        """Begin an empty cache with a copy of the keys and values [2, rows, kv_heads, time, head_dim]."""
        self._write(past)

    def reserve(self, time: int) -> None:
        """Make room for `time` more positions in an existing buffer."""
        needed = self.offset + time
        if needed > self.buffer.shape[3]:
            self.buffer = with_capacity(self.buffer, capacity_for(needed))

    def _write(self, new: mx.array) -> None:
        time = new.shape[3]
        if self.offset == 0:
            capacity = self._fixed or capacity_for(time)
            self.buffer = mx.zeros((*new.shape[:3], capacity, new.shape[4]), new.dtype)
        self.reserve(time)
        self.buffer[:, :, :, self.offset : self.offset + time] = new
        self.offset += time

    def update_and_fetch(self, new: mx.array) -> Past:
        """Append keys and values [rows, 2 * kv_heads, time, head_dim]; return all of them so far."""
        new = split_heads(new)
        self._write(new)
        keys, values = split_kinds(self.buffer[:, :, :, : self.offset])
        return keys, values, "causal" if new.shape[3] > 1 else None


class StepCache:
    """A cache that takes one position more, in a compiled function, which is given the rotation of that position."""

    def __init__(self, buffer: mx.array, positions: mx.array, mask: mx.array) -> None:
        """positions: to write, one in each row, int32 [rows]. mask: bool, broadcast to [rows, heads, 1, capacity]."""
        self.buffer = buffer
        self._positions = positions
        self._mask = mask

    def update_and_fetch(self, new: mx.array) -> Past:
        """Append keys and values [rows, 2 * kv_heads, 1, head_dim]; return the whole buffer and its mask."""
        # In place, as one kernel for all rows; a slice update would be two on Metal, and takes one position only.
        positions = self._positions[None, :, None, None, None]
        self.buffer = mx.put_along_axis(self.buffer, positions, split_heads(new), axis=3)
        keys, values = split_kinds(self.buffer)
        return keys, values, self._mask


class NoCache:
    """No past, and nothing is kept: a layer sees whole sequences, as in training."""

    offset = 0

    def update_and_fetch(self, new: mx.array) -> Past:
        """Return the keys and values [rows, kv_heads, time, head_dim] of a sequence."""
        keys, values = mx.split(new, 2, axis=1)
        return keys, values, "causal"


Cache = KVCache | StepCache | NoCache


def split_heads(new: mx.array) -> mx.array:
    """[rows, 2 * kv_heads, time, head_dim], the key heads first -> [2, rows, kv_heads, time, head_dim]."""
    rows, heads, time, dim = new.shape
    return new.reshape(rows, 2, heads // 2, time, dim).swapaxes(0, 1)


def split_kinds(buffer: mx.array) -> tuple[mx.array, mx.array]:
    """Keys and values [rows, kv_heads, time, head_dim] of a buffer, as views."""
    keys, values = mx.split(buffer, 2, axis=0)
    return keys.squeeze(0), values.squeeze(0)  # not buffer[0], which is a gather
