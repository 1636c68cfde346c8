"""Makes the takes of a book that are missing: in batches, with other seeds for those that failed.

parts ─ windows, sorted by length ─ Qwen3TTS.stream_batch ─ result ─ judge, Recognizer ─┬─ TakeStore
                    ▲                                                                   │
                    └──────── next round, with another seed: what has a problem ────────┘

A take goes to the disk as soon as it is made, also one with a problem, so that nothing that was made is lost. What is
kept depends on the part alone: the first attempt without a problem, or the least wrong of all.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np

from ..audio.loudness import integrated_loudness
from ..errors import BookError, GenerationError
from ..request import Request
from ..result import AudioChunk, SynthesisResult
from ..tts import Qwen3TTS
from .check import Recognizer, find_problem
from .parts import Part
from .sound import speech_bounds
from .takes import DamagedTake, Take, TakeStore, rounded

WINDOW = 8  # batches whose parts are sorted together: near lengths, and chapters are made nearly in order
QUEUE = 2  # batches of takes that wait to be heard and written at most

Job = Callable[[], "Part"]


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    stage: "speak" or "write". done, total: segments. audio_seconds: made so far. seconds_left: None if it is not known.
    """

    stage: str
    done: int
    total: int
    audio_seconds: float
    seconds: float
    seconds_left: float | None


def in_windows(parts: Sequence[Part], batch_size: int) -> list[Part]:
    """Return the parts sorted by length, longest first, within each window."""
    size = WINDOW * batch_size
    ordered: list[Part] = []
    for start in range(0, len(parts), size):
        ordered += sorted(parts[start : start + size], key=_length, reverse=True)
    return ordered


def _length(part: Part) -> float:
    return part.segment.seconds


class TakeMaker:
    """Makes takes and keeps them in a store."""

    def __init__(
        self, tts: Qwen3TTS, store: TakeStore, attempts: int, batch_size: int, recognizer: Recognizer | None = None
    ) -> None:
        """attempts: how often a part is made. recognizer: hears each take; None does not check what is said."""
        self.takes: dict[str, Take] = {}  # by key: what is in the store
        self._tts = tts
        self._store = store
        self._attempts = attempts
        self._batch_size = batch_size
        self._recognizer = recognizer
        self._failures: dict[str, int] = defaultdict(int)  # attempts of a part up to one that ended with an error
        self._errors: dict[str, Exception] = {}
        self._frames = 0

    def is_done(self, part: Part) -> bool:
        """Return whether a part needs no more work: its take is fine, or there is no attempt left."""
        if part.key not in self.takes:
            return self._has_failed(part)
        return not self.takes[part.key].needs_more(self._limit(part)) and not self._is_unheard(part)

    def _limit(self, part: Part) -> int:
        if part.is_chosen:
            return 1
        return self._attempts

    def _has_failed(self, part: Part) -> bool:
        return part.key not in self.takes and self._failures[part.key] >= self._limit(part)

    def _is_unheard(self, part: Part) -> bool:
        """Return whether the part has a take that the recognizer is to hear."""
        take = self.takes.get(part.key)
        if take is None or self._recognizer is None:
            return False
        if take.heard is None:
            return not take.problem
        return not self._recognizer.has_heard(take.heard)

    def run(self, parts: Sequence[Part]) -> Iterator[Progress]:
        """Make what is missing of the parts. Closing the iterator ends the work, and what was made is kept.

        Raises BookError if a take cannot be written, or if a part cannot be made at all (after the others).
        """
        began = time.perf_counter()
        todo = {part.key: part for part in parts if not self.is_done(part)}
        total = len(todo)
        expected = sum(map(_length, todo.values()))
        left = expected
        self._frames = 0
        while todo:
            for part in self._round(list(todo.values())):
                if part is not None and self.is_done(part):
                    left -= _length(todo.pop(part.key))
                seconds = time.perf_counter() - began
                ahead = seconds * left / (expected - left) if left < expected else None
                yield Progress("speak", total - len(todo), total, self._audio_seconds, seconds, ahead)
        self._check_failures(parts)

    @property
    def _audio_seconds(self) -> float:
        return self._frames * self._tts.codec.samples_per_frame / self._tts.sample_rate

    def _check_failures(self, parts: Sequence[Part]) -> None:
        failed = [part for part in parts if self._has_failed(part)]
        if failed:
            first = failed[0]
            others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise BookError(
                f"segment {first.segment.place}{others} cannot be made: {self._errors[first.key]}; the others are kept"
            )

    # One round: an attempt of each part, or the hearing of a take that is there.

    def _round(self, parts: Sequence[Part]) -> Iterator[Part | None]:
        """Yield each part that was worked on, and None after a piece of the work."""
        unheard = [part for part in parts if self._is_unheard(part)]
        to_speak = [part for part in parts if not self._is_unheard(part)]
        hearings = (partial(self._hear_stored, part) for part in unheard)
        pool = ThreadPoolExecutor(1, "takes")  # judges and writes while the next ones are spoken
        pending: deque[Future[Part]] = deque()
        try:
            for job in chain(hearings, self._speak(to_speak)):
                if job is None:
                    yield None
                    continue
                pending.append(pool.submit(job))
                while pending and (pending[0].done() or len(pending) > QUEUE * self._batch_size):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _speak(self, parts: Sequence[Part]) -> Iterator[Job | None]:
        """Yield what is to be done with each part's speech, and None after a piece of it."""
        ordered = in_windows(parts, self._batch_size)
        chunks: dict[int, list[AudioChunk]] = defaultdict(list)
        failed: deque[int] = deque()

        def requests() -> Iterator[Request]:
            for part in ordered:
                yield part.attempt(self._next_attempt(part))

        def fail(index: int, error: Exception) -> None:
            if not isinstance(error, GenerationError):
                raise error
            part = ordered[index]
            self._failures[part.key] = self._next_attempt(part) + 1
            self._errors[part.key] = error
            failed.append(index)

        with closing(self._tts.stream_batch(requests(), self._batch_size, on_error=fail)) as stream:
            for index, chunk in stream:
                chunks[index].append(chunk)
                self._frames += len(chunk.codes)
                yield None
                if chunk.is_final:
                    result = SynthesisResult.from_chunks(chunks.pop(index))
                    yield partial(self._keep, ordered[index], result)
        for index in failed:
            yield partial(_same, ordered[index])

    def _next_attempt(self, part: Part) -> int:
        """Return the number of the next attempt, from 0."""
        failures = self._failures[part.key]
        take = self.takes.get(part.key)
        if take is None:
            return failures
        return max(failures, take.attempts)

    # One take, on the thread of the pool

    def _keep(self, part: Part, result: SynthesisResult) -> Part:
        """Judge and write what was made of a part."""
        audio = rounded(result.audio)
        take = self._judge(part, result, audio)
        if self._recognizer is not None and not take.problem:
            if part.key not in self.takes:
                self._write(take, audio)  # now: hearing takes long
            take = self._hear(self._recognizer, part, take, audio)
        old = self.takes.get(part.key)
        if old is not None and old.attempts < take.attempts and old.score <= take.score:
            with suppress(DamagedTake):
                audio = self._store.audio(old)
                take = replace(old, attempts=take.attempts)
        self._write(take, audio)
        return part

    def _judge(self, part: Part, result: SynthesisResult, audio: np.ndarray) -> Take:
        """Return the record of what was made. audio: as it will be read back."""
        rate = result.sample_rate
        start, end = speech_bounds(audio, rate)
        problem, score = find_problem(part.segment, audio, (end - start) / rate, result.finish_reason)
        return Take(
            key=part.key,
            text=part.segment.text,
            seed=result.seed,
            attempts=self._next_attempt(part) + 1,
            frames=len(result.codes),
            samples=len(audio),
            start=start,
            end=end,
            loudness=integrated_loudness(audio[start:end], rate),
            problem=problem,
            score=score,
        )

    def _hear_stored(self, part: Part) -> Part:
        """Hear a take that is in the store."""
        assert self._recognizer is not None
        take = self.takes[part.key]
        try:
            audio = self._store.audio(take)
        except DamagedTake:
            del self.takes[part.key]  # the next round makes it
            return part
        self._write(self._hear(self._recognizer, part, take, audio), audio)
        return part

    def _hear(self, recognizer: Recognizer, part: Part, take: Take, audio: np.ndarray) -> Take:
        heard = recognizer.hear(audio[take.start : take.end], self._store.sample_rate, part.segment)
        problem, score = recognizer.judge(heard)
        return replace(take, heard=heard, problem=problem, score=score)

    def _write(self, take: Take, audio: np.ndarray) -> None:
        self._store.write(take, audio)
        self.takes[take.key] = take


def _same(part: Part) -> Part:
    return part
