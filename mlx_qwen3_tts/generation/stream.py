"""The listeners: requests become chunks of audio, for one request or for many.

    listener's thread:  build the prompts ─ add ─┬─ wait for the outbox ─ chunk ─► consumer
                                         ▲       │        ▲
                         pull text if needed ────┘        │
    MLX thread:                     Scheduler: rows ─ Speech ─ codec

The only way to speech: a result that is not streamed is these chunks, concatenated.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue

from ..errors import GenerationError
from ..request import Request
from ..result import AudioChunk
from ..text.feed import tee
from .runaway import retry_seed
from .scheduler import Scheduler
from .speech import Inbox, NeedsText, Outbox, ResolvedRequest, Speech, resolve
from .timer import Clock

Sizes = Sequence[int]


def stream_chunks(
    scheduler: Scheduler, request: Request, sizes: Sizes | None = None
) -> Generator[AudioChunk, None, None]:
    """Return the chunks of a request as an iterator; closing it ends the work.

    sizes: frames in each chunk, in place of the request's own.
    Raises RequestError at once. The iterator raises GenerationError, RequestError if the model was unloaded, and what
    the source of the text raises, all after the audio so far.
    """
    clock = Clock()
    resolved = resolve(scheduler.engine, request)
    clock.book("prefill")
    clock.stop()
    return _chunks(scheduler, resolved, sizes or request.chunk_sizes, clock)


def stream_attempts(
    scheduler: Scheduler, request: Request, sizes: Sizes | None = None
) -> Iterator[tuple[int, AudioChunk]]:
    """Yield the number of the attempt, 0 or 1, and its next chunk.

    A runaway is generated once more, with a seed that follows from the first, if the request has no seed. The chunks of
    the first attempt are void then. Raises as `stream_chunks`.
    """
    first, text = with_repeatable_text(request)
    chunk = None
    for chunk in stream_chunks(scheduler, first, sizes):
        yield 0, chunk
    again = chunk and second_attempt(request, chunk, text)
    if again:
        for chunk in stream_chunks(scheduler, again, sizes):
            yield 1, chunk


def with_repeatable_text(request: Request) -> tuple[Request, str | list[str]]:
    """Return a request for the first attempt, and the text of the second, which is known after the first."""
    if isinstance(request.text, str):
        return request, request.text
    pieces: list[str] = []  # the source gives its text only once
    return replace(request, text=tee(request.text, pieces)), pieces


def second_attempt(request: Request, last: AudioChunk, text: str | Iterable[str]) -> Request | None:
    """Return what is generated after a last chunk: a runaway once more, with another seed, unless it was given one.

    text: that of the request, which is known now.
    """
    if last.finish_reason != "runaway" or request.seed is not None:
        return None
    return replace(request, text=text, seed=retry_seed(last.seed))


def _chunks(
    scheduler: Scheduler, resolved: ResolvedRequest, sizes: Sizes, clock: Clock
) -> Generator[AudioChunk, None, None]:
    """Yield the chunks of a request. The clock has counted the construction of the prompt."""
    engine = scheduler.engine
    outbox: Inbox = SimpleQueue()
    speech = None
    try:
        clock.start()
        engine.check_open()
        speech = begin_speech(scheduler, resolved, sizes, outbox, clock)
        feed = speech.prompt.feed
        while True:
            engine.check_open()
            speech.ask()
            scheduler.wake()
            _, message = scheduler.receive(outbox)
            while isinstance(message, NeedsText):
                while not feed.ready:
                    feed.pull()
                speech.resume()
                scheduler.wake()
                _, message = scheduler.receive(outbox)
            if isinstance(message, Exception):
                try:
                    raise message
                finally:
                    del message  # no cycle through its traceback, which would keep arrays alive
            if message.is_final:
                break
            yield message
    finally:
        if speech is not None:
            speech.cancel()
            with suppress(GenerationError):  # the interpreter is shutting down
                scheduler.wake()
    yield message


def begin_speech(scheduler: Scheduler, resolved: ResolvedRequest, sizes: Sizes, outbox: Outbox, clock: Clock) -> Speech:
    """Hand a request to the scheduler. Waits for as much of a live text as the prompt holds."""
    prompt = resolved.prompt
    if prompt is None:
        prompt = scheduler.engine.prompts.build(resolved.request)
        clock.skip(prompt.feed.waited)
        clock.book("prefill")
    speech = Speech(scheduler.engine, resolved, prompt, sizes, outbox, clock)
    scheduler.add(speech)
    return speech
