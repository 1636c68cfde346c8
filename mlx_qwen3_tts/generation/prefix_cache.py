"""Cached keys and values of recent prompt prefixes (voice, language, instruction)."""

from collections import OrderedDict

import mlx.core as mx

from ..models.cache import KVCache

MIN_PREFIX = 32  # positions; on a GPU a short prompt takes as long as one read of the weights, and two parts take two
MAX_PREFIX = 512  # positions
MAX_PREFIXES = 4


class PrefixCache:
    """Keeps the prefixes that were used last.

    A prompt that is longer than its prefix is always run in two parts, so that reuse is bit-identical.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, list[mx.array]] = OrderedDict()  # each layer's buffer, without spare capacity

    def __len__(self) -> int:
        return len(self._kept)

    @staticmethod
    def is_worth_keeping(positions: int) -> bool:
        """Return whether prefixes of that length are kept."""
        return MIN_PREFIX <= positions <= MAX_PREFIX

    def restore(self, key: bytes, caches: list[KVCache]) -> bool:
        """Bring empty caches to the end of the prefix; return whether it is known."""
        if key not in self._kept:
            return False
        self._kept.move_to_end(key)
        for cache, buffer in zip(caches, self._kept[key], strict=True):
            cache.restore(buffer)
        return True

    def keep(self, key: bytes, caches: list[KVCache]) -> None:
        """Keep what the caches hold. Evict the least recently used prefix."""
        buffers = [mx.contiguous(cache.buffer[:, :, :, : cache.offset]) for cache in caches]
        mx.eval(buffers)
        self._kept[key] = buffers
        if len(self._kept) > MAX_PREFIXES:
            self._kept.popitem(last=False)
