"""Keys and values of the positions that a transformer has seen.

    KVCache: one layer's keys and values [batch, kv_heads, capacity, head_dim], of which `offset` positions are filled

The buffers grow in steps and are written in place, so that a frame costs the same however long the speech is.
"""

import mlx.core as mx

STEP = 256  # positions added when a buffer is full


class KVCache:
    """One attention layer's past. It belongs to one request: two requests use two sets of caches."""

    def __init__(self, step: int = STEP) -> None:
        """step: positions added when the buffers are full."""
        self.offset = 0
        self._step = step
        self._keys: mx.array | None = None
        self._values: mx.array | None = None

    def _reserve(self, keys: mx.array, values: mx.array) -> None:
        """Make room for keys [batch, kv_heads, time, head_dim] and values of the same shape."""
        time = keys.shape[2]
        capacity = 0 if self._keys is None else self._keys.shape[2]
        if self.offset + time <= capacity:
            return
        extra = -(-(self.offset + time - capacity) // self._step) * self._step
        grown = []
        for buffer, new in ((self._keys, keys), (self._values, values)):
            room = mx.zeros((*new.shape[:2], extra, new.shape[3]), new.dtype)
            grown.append(room if buffer is None else mx.concatenate([buffer, room], axis=2))
        self._keys, self._values = grown

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append keys and values [batch, kv_heads, time, head_dim]; return all of them so far."""
        self._reserve(keys, values)
        end = self.offset + keys.shape[2]
        self._keys[:, :, self.offset : end] = keys
        self._values[:, :, self.offset : end] = values
        self.offset = end
        return self._keys[:, :, :end], self._values[:, :, :end]
