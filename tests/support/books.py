"""Books of the demo's words (times and numbers), and a model that says what a test wants."""

from collections.abc import Callable, Sequence

import numpy as np

from mlx_qwen3_tts import AudioChunk, Qwen3TTS, Request, SynthesisTiming
from mlx_qwen3_tts.longform.document import Block, Chapter, Document
from mlx_qwen3_tts.longform.lengths import expected_seconds
from mlx_qwen3_tts.longform.plan import Plan, Segment
from mlx_qwen3_tts.result import FinishReason

CHAPTERS = (
    ("It is one o'clock.", "It is twenty past seven.", "One two three."),
    ("Four five six seven.", "It is eleven twenty-six."),
    ("It is half past nine.", "Eight nine."),
)


def document_of(chapters: Sequence[Sequence[str]] = CHAPTERS, **facts) -> Document:
    """Return a document whose chapters have these paragraphs."""
    made = [
        Chapter(f"Part {number}", tuple(Block("paragraph", text) for text in texts))
        for number, texts in enumerate(chapters, start=1)
    ]
    known = {"title": "Times", "author": "A. Clock", "language": "en", "cover": None} | facts
    return Document(**known, chapters=tuple(made), dropped=())


def plan_of(chapters: Sequence[Sequence[str]] = CHAPTERS, voice: str | None = None, seed: int = 1) -> Plan:
    """Return a plan with a segment for each text. Its seeds follow from the texts alone."""
    segments = [
        Segment(
            chapter=chapter,
            number=number,
            text=text,
            shown=text,
            sentences=(text,),
            voice=voice,
            pause_before=1.0 if chapter > 1 and number == 1 else 0.0,
            pause_after=0.25,
            seed=sum(text.encode()) + seed,
            kind="paragraph",
            seconds=expected_seconds(text),
        )
        for chapter, texts in enumerate(chapters, start=1)
        for number, text in enumerate(texts, start=1)
    ]
    return Plan(document_of(chapters), tuple(segments), tuple(range(1, len(chapters) + 1)), ())


class Puppet:
    """A model whose speech is a given function of the request; all else is a real model's."""

    def __init__(self, tts: Qwen3TTS, speak: Callable[[Request], np.ndarray | FinishReason | Exception]) -> None:
        """speak: returns the audio of a request, a reason for its end (with plausible audio), or an error."""
        self._tts = tts
        self.speak = speak  # a test may replace it
        self.requests: list[Request] = []  # in the order in which they began
        self.most = 0  # under way at a time

    def __getattr__(self, name: str) -> object:
        return getattr(self._tts, name)

    def stream_batch(self, requests, batch_size=8, on_error=None):
        """Yield two chunks of each request; `batch_size` of them are under way."""
        source = enumerate(requests)
        under_way: list[tuple[int, Request, int]] = []
        while True:
            while len(under_way) < batch_size and (entry := next(source, None)) is not None:
                self.requests.append(entry[1])
                under_way.append((*entry, 0))
            self.most = max(self.most, len(under_way))
            if not under_way:
                return
            index, request, half = under_way.pop(0)
            found = self.speak(request)
            if isinstance(found, Exception):
                on_error(index, found)
                continue
            reason = "stop"
            if isinstance(found, str):
                reason, found = found, tone(expected_seconds(request.text), self.sample_rate)
            frame = self.codec.samples_per_frame
            found = np.pad(found, (0, -len(found) % (2 * frame)))
            audio = found[half * len(found) // 2 : (half + 1) * len(found) // 2]
            codes = np.zeros((len(audio) // frame, 16), np.int32)
            timing = SynthesisTiming(0, 0, 0, 0, 0, len(codes), len(audio) / self.sample_rate, 0)
            yield (
                index,
                AudioChunk(audio, codes, self.sample_rate, request.seed, timing, bool(half), reason if half else None),
            )
            if not half:
                under_way.append((index, request, 1))


def tone(seconds: float, rate: int = 24000, level: float = 0.2, frequency: float = 220.0) -> np.ndarray:
    """Return a tone, with some overtones so that it has a loudness like a voice's."""
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * frequency * k * time) / k for k in (1, 2, 3, 5))
    return (level * wave / 1.6).astype(np.float32)
