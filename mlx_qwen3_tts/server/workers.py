"""The threads of a server, whose number is bounded: one pool for short work, one for work that may wait for MLX."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")

FAST_THREADS = 4  # encoding, reading voices
SLOW_THREADS = 2  # loading models, cloning voices
SMALL = 2**18  # bytes that are parsed in less than a millisecond


class Workers:
    """Runs functions on threads of its own, for coroutines that wait for them."""

    def __init__(self) -> None:
        self._fast = ThreadPoolExecutor(FAST_THREADS, "server")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, "server-slow")

    async def fast(self, function: Callable[[], R]) -> R:
        """Run a function that takes some milliseconds; return what it returns, or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._fast, function)

    async def parse(self, function: Callable[[], R], size: int) -> R:
        """Run a function that reads `size` bytes: at once if they are few, or else as `fast`, so that others go on."""
        if size <= SMALL:
            return function()
        return await self.fast(function)

    async def slow(self, function: Callable[[], R]) -> R:
        """Run a function that may take seconds."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, function)

    def close(self) -> None:
        """End the threads, after the work under way."""
        self._fast.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
