"""A request becomes chunks of audio: frames are collected, decoded, and emitted one after the other.

    caller's thread:  build the prompt ─ pull text if it is needed ─┬─ AudioChunk ─► consumer
                                                  ▲                 │
    MLX thread:                                   └── Speech.advance: frames ─ codec ─ runaway detector

The only way to speech: a result that is not streamed is these chunks, concatenated.
"""

import secrets
import traceback
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat

import mlx.core as mx
import numpy as np

from ..capabilities import check_request
from ..codec.layers import State
from ..config.model import GenerationConfig
from ..errors import GenerationError
from ..request import Request
from ..result import AudioChunk, FinishReason
from ..text.feed import tee
from ..voice import VoiceClonePrompt
from .engine import Engine, Frames
from .prompt import Prompt
from .runaway import detector_for, frames_in_budget, retry_seed
from .timer import Clock


@dataclass(frozen=True)
class ResolvedRequest:
    """A request that the model can serve, with everything that it leaves open decided."""

    request: Request
    sampling: GenerationConfig
    seed: int
    prompt: Prompt | None  # None if the text is still being written


def resolve(engine: Engine, request: Request) -> ResolvedRequest:
    """Check a request against the model and decide what it leaves open. Raises RequestError."""
    check_request(request, engine.config)
    sampling = request.sampling.resolve(engine.generation_config)
    seed = secrets.randbits(32) if request.seed is None else int(request.seed)
    # A text that is still being written is waited for when the first chunk is asked for, not here.
    prompt = engine.prompts.build(request) if isinstance(request.text, str) else None
    return ResolvedRequest(request, sampling, seed, prompt)


def stream_chunks(engine: Engine, request: Request) -> Generator[AudioChunk, None, None]:
    """Return the chunks of a request as an iterator; closing it ends the work.

    Raises RequestError at once. The iterator raises GenerationError, RequestError if the model was unloaded, and what
    the source of the text raises, all after the audio so far.
    """
    clock = Clock()
    resolved = resolve(engine, request)
    clock.lap("prefill")
    return _chunks(engine, resolved, clock)


def stream_attempts(engine: Engine, request: Request) -> Iterator[tuple[int, AudioChunk]]:
    """Yield the number of the attempt, 0 or 1, and its next chunk.

    A runaway is generated once more, with a seed that follows from the first, if the request has no seed. The chunks of
    the first attempt are void then. Raises as `stream_chunks`.
    """
    text = request.text
    if isinstance(text, str):
        first = request
    else:
        pieces: list[str] = []  # the source gives its text only once
        first = replace(request, text=tee(text, pieces))
        text = pieces
    chunk = None
    for chunk in stream_chunks(engine, first):
        yield 0, chunk
    if chunk is not None and chunk.finish_reason == "runaway" and request.seed is None:
        for again in stream_chunks(engine, replace(request, text=text, seed=retry_seed(chunk.seed))):
            yield 1, again


def _chunks(engine: Engine, resolved: ResolvedRequest, clock: Clock) -> Generator[AudioChunk, None, None]:
    """Yield the chunks of a request. The clock has counted the construction of the prompt."""
    speech = None
    try:
        clock.resume()
        engine.check_open()
        prompt = resolved.prompt
        if prompt is None:
            prompt = engine.prompts.build(resolved.request)
            clock.skip(prompt.feed.waited)
        speech = engine.worker.run(Speech, engine, resolved, prompt, clock)
        while True:
            waited = prompt.feed.waited
            while speech.needs_text:
                prompt.feed.pull()
            clock.skip(prompt.feed.waited - waited)
            chunk = engine.worker.run(speech.advance)
            if speech.ended:
                break
            if chunk is not None:
                yield chunk
            clock.resume()
    finally:
        if speech is not None:
            speech.cancelled = True
            with suppress(GenerationError):  # the interpreter is shutting down
                engine.worker.submit(speech.release)
    if chunk is not None:
        yield chunk


class Speech:
    """One request on its way to audio. Everything here runs on the MLX thread, the construction too."""

    def __init__(self, engine: Engine, resolved: ResolvedRequest, prompt: Prompt, clock: Clock) -> None:
        """Run the prompt and, for in-context cloning, the reference's codes: the speech continues their audio."""
        engine.check_open()
        request = resolved.request
        sizes = request.chunk_sizes
        self.ended = False  # the last chunk was made
        self.cancelled = False  # set by any thread: nobody waits for more
        self._engine = engine
        self._request = request
        self._prompt = prompt
        self._clock = clock
        self._seed = resolved.seed
        self._sizes = chain(sizes, repeat(sizes[-1]))
        self._detector = detector_for(request)
        self._limit = frame_limit(engine, request, prompt)
        self._generated = 0  # frames
        self._emitted = 0  # frames
        self._error: Exception | None = None  # to be raised after the audio before it
        state = engine.prefill(prompt, resolved.seed)
        self._frames = Frames(engine, prompt, state, resolved.sampling, self._limit)
        self._codec_state: State = None
        if isinstance(request.voice, VoiceClonePrompt) and request.voice.ref_codes is not None:
            self._codec_state = engine.codec.prime(request.voice.ref_codes)
        clock.lap("prefill")

    @property
    def needs_text(self) -> bool:
        """True if there is nothing to do before more of the text is known."""
        return not self.ended and self._error is None and self._frames.needs_text

    def advance(self) -> AudioChunk | None:
        """Generate and decode the next chunk; None if all of its frames are held back (see runaway.py).

        Raises what went wrong, once the audio before it was returned.
        """
        self._engine.check_open()
        if self._error is not None:
            error = self._error
            self._error = None  # no cycle through its traceback
            traceback.clear_frames(error.__traceback__)  # their variables would keep arrays alive
            raise error
        codes, reason = self._collect(next(self._sizes))
        consumed = [self._prompt.feed.consumed_before(self._generated + i) for i in range(len(codes))]
        room = frames_in_budget(self._request, self._prompt.feed.length, self._generated, consumed)
        if room < len(codes):
            codes = codes[:room]
            reason = "length"
        wait_for_audio, self._codec_state = self._engine.codec.decode_async(codes, self._codec_state)
        if self._generated and reason is None and self._error is None and not self._frames.needs_text:
            self._frames.prefetch()  # decode while the next frame is generated; but the first chunk must be out at once
        self._clock.lap("generation")
        audio = wait_for_audio()
        self._clock.lap("decode")
        self._generated += len(codes)
        if self._generated == self._limit:
            reason = "length"
        if self._detector is not None:
            last = reason is not None or self._error is not None
            codes, audio, ran_away = self._detector.push(codes, audio, consumed, last)
            reason = "runaway" if ran_away else reason
        self._emitted += len(codes)
        self.ended = reason is not None
        return self._chunk(codes, audio, reason) if len(codes) or reason else None

    def _collect(self, size: int) -> tuple[np.ndarray, FinishReason | None]:
        """The next frames, [frames, 16]; fewer than `size` if text is needed first, or if the speech ends."""
        codes: list[np.ndarray] = []
        reason: FinishReason | None = None
        while len(codes) < size and reason is None and not self._frames.needs_text and not self.cancelled:
            try:
                row = self._frames.next()
            except Exception as error:  # noqa: BLE001  (raised once the audio before it was returned)
                self._error = error
                break
            if row is None:
                reason = "stop"
            else:
                codes.append(row)
        return np.array(codes, np.int32).reshape(-1, self._engine.codec.num_quantizers), reason

    def _chunk(self, codes: np.ndarray, audio: np.ndarray, reason: FinishReason | None) -> AudioChunk:
        codec = self._engine.codec
        seconds = self._emitted * codec.samples_per_frame / codec.sample_rate
        return AudioChunk(
            audio=audio,
            codes=codes,
            sample_rate=codec.sample_rate,
            seed=self._seed,
            is_final=reason is not None,
            finish_reason=reason,
            text_ran_dry=reason is None and self.needs_text,
            timing=self._clock.timing(self._emitted, seconds),
        )

    def release(self) -> None:
        """End the request and free its memory.

        MLX's allocator would keep the buffers: no other request has their sizes.
        """
        self.ended = True
        del self._frames, self._codec_state
        mx.synchronize()  # a step that is under way still uses the buffers
        mx.clear_cache()


def frame_limit(engine: Engine, request: Request, prompt: Prompt) -> int:
    """Return the most frames that a request may take, whatever its text."""
    # The official max_new_tokens counts one more: its last code is never completed to a frame.
    limit = int(request.max_frames or engine.generation_config.max_new_tokens - 1)
    return min(limit, engine.config.talker_config.max_position_embeddings - len(prompt))
