"""The time that a request spends in each stage."""

import time

import mlx.core as mx

from ..result import SynthesisTiming


class Clock:
    """Sums up the time of each stage, without the time that a stream's consumer takes between chunks."""

    def __init__(self) -> None:
        mx.reset_peak_memory()
        self.seconds = {"prefill": 0.0, "generation": 0.0, "decode": 0.0}
        self.first_audio = 0.0
        self.resume()

    def resume(self) -> None:
        """Begin to count again, from now."""
        self._last = time.perf_counter()

    def skip(self, seconds: float) -> None:
        """Leave out time that was spent waiting for the text's source."""
        self._last += seconds

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on `stage`."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now
        if stage == "decode" and not self.first_audio:
            self.first_audio = sum(self.seconds.values())

    def timing(self, frames: int, audio_seconds: float) -> SynthesisTiming:
        """The sums so far."""
        total = sum(self.seconds.values())
        return SynthesisTiming(
            **self.seconds,
            first_audio=self.first_audio,
            total=total,
            frames=frames,
            audio_seconds=audio_seconds,
            peak_memory=mx.get_peak_memory(),
        )
