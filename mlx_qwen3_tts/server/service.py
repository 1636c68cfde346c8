"""What the routes of a server share, and what is logged and counted of each request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from .gate import Gate
from .metrics import Metrics
from .models import Models
from .problem import Problem, fault, problem_of
from .settings import Settings
from .speech import SpeechStream
from .voices import Voices
from .workers import Workers

Log = Callable[[str], None]


def silent(message: str) -> None:
    """Log nothing."""


@dataclass(eq=False)
class Service:
    """The parts of a running server."""

    settings: Settings
    models: Models
    workers: Workers = field(default_factory=Workers)
    log: Log = silent

    def __post_init__(self) -> None:
        self.gate = Gate(self.settings.batch_size, self.settings.queue_size)
        self.metrics = Metrics(self.gate)
        self.voices = Voices(self.models, self.settings, self.workers)
        self.stopping = False  # no new requests
        self.ending = asyncio.Event()  # requests under way are cut
        self.active = 0  # requests under way, and sessions

    def problem(self, error: Exception, name: str) -> Problem:
        """Return what an error means to a client; log it if it is a fault of ours. name: of the route."""
        problem = problem_of(error)
        if problem.status == 500 and not isinstance(error, Problem):
            self.log(f"{name}: {fault(error, self.settings.log_text)}")
        return problem

    def count_speech(self, text: str, stream: SpeechStream, seconds: float) -> str:
        """Count what was spoken; return what is logged of it: sizes and times, and the text only if that was asked for.

        seconds: from the request to its end.
        """
        self.metrics.count_speech(len(text), stream.audio_seconds, seconds, stream.first_audio)
        shown = f" {text!r}" if self.settings.log_text else ""
        return (
            f"{len(text)} characters{shown}, {stream.audio_seconds:.2f} s of audio in {seconds:.2f} s, first audio "
            f"{1000 * stream.first_audio:.0f} ms"
        )
