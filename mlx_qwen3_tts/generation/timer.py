"""The time that a request spends in each stage."""

import time

import mlx.core as mx

from ..result import SynthesisTiming


class Clock:
    """Adds up the time of each stage. While requests share a batch, the stages are the batch's."""

    def __init__(self) -> None:
        self.seconds = {"prefill": 0.0, "generation": 0.0, "decode": 0.0}
        self._began = time.perf_counter()
        self._first_audio = 0.0

    @property
    def total(self) -> float:
        """Seconds in all stages."""
        return sum(self.seconds.values())

    def resume(self) -> None:
        """Leave out the time that has passed without being booked: nobody had asked for audio yet."""
        self._began = time.perf_counter() - self.total

    def skip(self, seconds: float) -> None:
        """Leave out time that was spent waiting for the text's source."""
        self._began += seconds

    def book(self, stage: str, seconds: float) -> None:
        """Add time to a stage."""
        self.seconds[stage] += seconds

    def book_rest(self, stage: str) -> None:
        """Add the time that has passed without being booked to a stage."""
        self.seconds[stage] += time.perf_counter() - self._began - self.total

    def note_audio(self) -> None:
        """Note that there is audio now."""
        if not self._first_audio:
            self._first_audio = self.total

    def timing(self, frames: int, audio_seconds: float) -> SynthesisTiming:
        """The sums so far."""
        return SynthesisTiming(
            **self.seconds,
            first_audio=self._first_audio,
            total=self.total,
            frames=frames,
            audio_seconds=audio_seconds,
            peak_memory=mx.get_peak_memory(),
        )


class Lap:
    """The time since the last look at it."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds since the last call."""
        now = time.perf_counter()
        elapsed = now - self._last
        self._last = now
        return elapsed
