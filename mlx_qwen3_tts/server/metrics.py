"""What a server counts, in the format of Prometheus. Needs prometheus-client."""

from collections.abc import Callable

import mlx.core as mx
from prometheus_client import (
    CONTENT_TYPE_LATEST as MEDIA_TYPE,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from .gate import Gate

PREFIX = "mlx_qwen3_tts_"
SECONDS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60)
FACTORS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 4.0)

__all__ = ["MEDIA_TYPE", "Metrics"]


class Metrics:
    """The counters of one server."""

    def __init__(self, gate: Gate) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            f"{PREFIX}requests", "Requests by endpoint and status", ["endpoint", "status"], registry=registry
        )
        self._first_audio = Histogram(
            f"{PREFIX}first_audio_seconds", "From a request to its first audio", buckets=SECONDS, registry=registry
        )
        self._factor = Histogram(
            f"{PREFIX}real_time_factor", "Seconds for one second of audio", buckets=FACTORS, registry=registry
        )
        self._audio = Counter(f"{PREFIX}audio_seconds", "Seconds of audio", registry=registry)
        self._characters = Counter(f"{PREFIX}characters", "Characters of text", registry=registry)
        self._gauge("queue", "Requests that wait for a place", lambda: gate.waiting)
        self._gauge("batch", "Requests that are spoken side by side", lambda: gate.inside)
        self._gauge("memory_bytes", "Memory that MLX holds in arrays", mx.get_active_memory)
        self._gauge("cache_bytes", "Memory that MLX keeps for later", mx.get_cache_memory)

    def _gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        Gauge(PREFIX + name, description, registry=self._registry).set_function(value)

    def count(self, endpoint: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(endpoint, str(status)).inc()

    def count_speech(self, characters: int, audio_seconds: float, seconds: float, first_audio: float) -> None:
        """Count speech that was made: its text, its length, and the seconds that it took."""
        self._characters.inc(characters)
        self._audio.inc(audio_seconds)
        self._first_audio.observe(first_audio)
        if audio_seconds:
            self._factor.observe(seconds / audio_seconds)

    def text(self) -> bytes:
        """Return all of it, as Prometheus reads it."""
        return generate_latest(self._registry)
