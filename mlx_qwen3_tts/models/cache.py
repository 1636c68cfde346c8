"""Keys and values of the positions that a transformer has seen, one object for each attention layer of a request.

    [batch, 2 * kv_heads, capacity, head_dim]: the key heads, then the value heads; `offset` positions are filled

Keys and values share a buffer, so that a position is one write. The buffers grow in steps and are written in place: a
frame costs the same however long the speech is. `StaticCache` is the same for a step of the talker that is compiled:
its shapes never change, and how much is filled is an array that a mask is made of.
"""

import mlx.core as mx

STEP = 256  # positions added when a buffer is full

Past = tuple[mx.array, mx.array, mx.array | str | None]  # keys, values, mask for scaled_dot_product_attention


class KVCache:
    """One attention layer's past. It belongs to one request: two requests use two sets of caches."""

    def __init__(self, step: int = STEP) -> None:
        """step: positions added when the buffer is full."""
        self.offset, self._step = 0, step
        self.buffer: mx.array | None = None

    def restore(self, past: mx.array) -> None:
        """Begin with keys and values [batch, 2 * kv_heads, time, head_dim], which are not written to."""
        self.buffer, self.offset = None, 0
        self.append(past)

    def reserve(self, time: int) -> None:
        """Make room for `time` more positions in a buffer that is there."""
        extra = -(-(self.offset + time - self.buffer.shape[2]) // self._step) * self._step
        if extra > 0:
            batch, heads, _, dim = self.buffer.shape
            room = mx.zeros((batch, heads, extra, dim), self.buffer.dtype)
            self.buffer = mx.concatenate([self.buffer, room], axis=2)

    def append(self, new: mx.array) -> Past:
        """Append keys and values [batch, 2 * kv_heads, time, head_dim]; return all of them so far."""
        time, end = new.shape[2], self.offset + new.shape[2]
        if self.buffer is None:
            capacity = -(-time // self._step) * self._step
            self.buffer = mx.zeros((*new.shape[:2], capacity, new.shape[3]), new.dtype)
        self.reserve(time)
        self.buffer[:, :, self.offset : end] = new
        self.offset = end
        keys, values = mx.split(self.buffer[:, :, :end], 2, axis=1)
        return keys, values, "causal" if time > 1 else None


class StaticCache:
    """A KVCache for one position more, in a compiled function."""

    def __init__(self, buffer: mx.array, offset: mx.array, mask: mx.array) -> None:
        """offset: positions filled, int32 [1]. mask: bool [capacity], true for those and the new one."""
        self.buffer, self.offset, self._mask = buffer, offset, mask

    def append(self, new: mx.array) -> Past:
        """Append keys and values [batch, 2 * kv_heads, 1, head_dim]; return the whole buffer and what to look at."""
        self.buffer = mx.slice_update(self.buffer, new, self.offset, axes=(2,))
        keys, values = mx.split(self.buffer, 2, axis=1)
        return keys, values, self._mask
