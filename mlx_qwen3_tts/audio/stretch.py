"""Speed without a change of pitch, for audio that is still being generated.

chunks ─ Stretch: FFmpeg's atempo, once or twice ─ chunks

atempo moves windows of 43 ms to where they overlap best (WSOLA), so that a sound is up to 35 ms of the input from its
place. It needs about 100 ms ahead. Both double beyond half and double speed, where atempo is applied twice: one pass
above 2 would skip samples instead of blending them.
"""

import numpy as np

from ..errors import RequestError
from .pyav import FilterChain, frame_audio, load_pyav

MIN_SPEED = 0.25
MAX_SPEED = 4.0
_PASS_LIMITS = (0.5, 2.0)  # the slowest and the fastest speed of one pass
_BLOCK_SECONDS = 0.02  # atempo's output depends on how its input is cut, so it is cut in one way


class Stretch:
    """Changes the speed of audio and keeps its pitch. Needs PyAV unless the speed is 1.

    The output depends on the samples alone, not on how they are cut into chunks.
    """

    def __init__(self, sample_rate: int, speed: float) -> None:
        """speed: 2 is twice as fast; 1 returns the samples as they are.

        Raises RequestError for a speed that is out of range, AudioError if PyAV is missing.
        """
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise RequestError(f"speed must be between {MIN_SPEED:g} and {MAX_SPEED:g}, not {speed!r}", "speed")
        self._speed = speed
        self._num_read = 0
        self._num_written = 0
        self._block = round(_BLOCK_SECONDS * sample_rate)
        self._rest = np.zeros(0, np.float32)  # less than a block
        self._chain: FilterChain | None = None
        if speed != 1:
            av = load_pyav("a speed other than 1")
            self._chain = FilterChain(
                av, [("atempo", {"tempo": repr(factor)}) for factor in _passes(speed)], sample_rate
            )

    def write(self, audio: np.ndarray) -> np.ndarray:
        """Take float audio [samples] in -1 .. 1, and return the stretched samples that are ready. Raises AudioError."""
        self._num_read += len(audio)
        if self._chain is None:
            return audio
        return self._filter(self._chain, audio)

    def close(self) -> np.ndarray:
        """Return the last samples: the total is round(samples / speed). Raises AudioError."""
        if self._chain is None:
            return np.zeros(0, np.float32)
        chain = self._chain
        self._chain = None
        missing = round(self._num_read / self._speed) - self._num_written
        parts = [np.zeros(0, np.float32)]
        silence = np.zeros(self._block, np.float32)  # pushes the last samples out
        while sum(map(len, parts)) < missing:
            parts.append(self._filter(chain, silence))
        return np.concatenate(parts)[:missing]

    def _filter(self, chain: FilterChain, audio: np.ndarray) -> np.ndarray:
        audio = np.concatenate([self._rest, audio])
        whole = len(audio) - len(audio) % self._block
        self._rest = audio[whole:]
        blocks = audio[:whole].reshape(-1, self._block)
        frames = [frame_audio(frame) for block in blocks for frame in chain.push(block)]
        result = np.concatenate([np.zeros(0, np.float32), *frames])
        self._num_written += len(result)
        return result


def _passes(speed: float) -> list[float]:
    """Return the speeds of atempo's passes, whose product is `speed`."""
    slowest, fastest = _PASS_LIMITS
    if slowest <= speed <= fastest:
        return [speed]
    return [speed**0.5, speed**0.5]
