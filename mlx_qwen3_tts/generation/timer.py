"""The time that a request spends in each stage."""

import time

import mlx.core as mx

from ..result import SynthesisTiming


class Clock:
    """Adds up the time of each stage. While it runs, every moment counts for one of them.

    While requests share a batch, the work on the others counts as well: the sums are wall-clock time.
    """

    def __init__(self) -> None:
        self.seconds = {"prefill": 0.0, "generation": 0.0, "decode": 0.0}
        self._first_audio = 0.0
        self._booked: float | None = time.perf_counter()  # up to when all time is booked; None if the clock stands

    @property
    def total(self) -> float:
        """Seconds in all stages."""
        return sum(self.seconds.values())

    def start(self) -> None:
        """Count from now on, unless the clock runs."""
        if self._booked is None:
            self._booked = time.perf_counter()

    def stop(self) -> None:
        """Leave out what follows the last booking, until the clock is started: nobody asks for audio."""
        self._booked = None

    def skip(self, seconds: float) -> None:
        """Leave out time that was spent waiting for the text's source."""
        if self._booked is not None:
            self._booked += seconds

    def book(self, stage: str) -> None:
        """Count the time since the last booking, or since the start, for a stage."""
        if self._booked is not None:
            now = time.perf_counter()
            self.seconds[stage] += now - self._booked
            self._booked = now

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
