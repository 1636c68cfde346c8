"""Chunks of audio to the bytes of a response, sent while they are made.

SpeechStream ─ [Stretch] ─ StreamEncoder ─┬─ audio: the bytes of one file
                                          └─ sse: speech.audio.delta, ..., speech.audio.done
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from starlette.types import Receive, Send

from ..audio.encode import StreamEncoder
from ..audio.formats import WAV_HEADER_SIZE, wav_header
from ..audio.stretch import Stretch
from ..result import AudioChunk
from .problem import Problem
from .protocol import SpeechCall
from .speech import SpeechStream
from .workers import Workers

R = TypeVar("R")

RAW_FORMATS = ("wav", "pcm")  # encoded at once, without a thread


class Hangup(Exception):
    """The client has left."""


class Cut(Exception):
    """The server ends."""


class SpeechEncoder:
    """Turns the audio of one request into the bytes of its format."""

    def __init__(self, call: SpeechCall, sample_rate: int, workers: Workers) -> None:
        """Raises AudioError if what the format needs is not installed."""
        # If the client leaves, the encoder is dropped, not closed: a thread may still be at work with it.
        self._encoder = StreamEncoder(call.response_format, sample_rate)
        self._stretch = Stretch(sample_rate, call.speed)
        self._in_thread = call.response_format not in RAW_FORMATS or call.speed != 1
        self._workers = workers

    async def write(self, chunk: AudioChunk) -> bytes:
        """Take a chunk; return the bytes that are ready, and with the last chunk all that are left."""
        encode = partial(self._encode, chunk.audio, chunk.is_final)
        if self._in_thread:
            return await self._workers.fast(encode)
        return encode()

    def _encode(self, audio: np.ndarray, is_final: bool) -> bytes:
        data = self._encoder.write(self._stretch.write(audio))
        if is_final:
            data += self._encoder.write(self._stretch.close()) + self._encoder.close()
        return data


async def audio_bytes(stream: SpeechStream, encoder: SpeechEncoder) -> AsyncIterator[bytes]:
    """Yield the bytes of a response."""
    async for chunk in stream:
        data = await encoder.write(chunk)
        if data:
            yield data


async def whole_file(call: SpeechCall, chunks: list[AudioChunk], workers: Workers) -> bytes:
    """Return the audio of all chunks as a file, whose header states its length if the format's does."""
    audio = np.concatenate([chunk.audio for chunk in chunks])
    last = replace(chunks[-1], audio=audio)
    data = await SpeechEncoder(call, last.sample_rate, workers).write(last)
    if call.response_format != "wav":
        return data
    samples = data[WAV_HEADER_SIZE:]
    return wav_header(last.sample_rate, len(samples) // 2) + samples


async def events(
    data: AsyncIterator[bytes],
    stream: SpeechStream,
    response_format: str,
    problem_of: Callable[[Exception], Problem],
) -> AsyncIterator[bytes]:
    """Yield the same as server-sent events. problem_of: what an error means to the client."""
    try:
        async for part in data:
            audio = base64.b64encode(part).decode()
            yield event("speech.audio.delta", audio=audio, response_format=response_format)
    except Exception as error:  # noqa: BLE001  (the client is told, whatever it is)
        yield event("speech.audio.error", **problem_of(error).body)
        return
    yield event("speech.audio.done", usage=stream.usage)


def event(kind: str, **fields: Any) -> bytes:
    """Return a server-sent event."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


class Patience:
    """How long work for a client goes on: while it listens, and until its time or the server ends."""

    def __init__(self, receive: Receive | None, seconds: float, ending: asyncio.Event) -> None:
        """receive: ASGI's, after the body was read; None: do not look whether the client has left."""
        self._gone = None if receive is None else asyncio.ensure_future(_disconnect(receive))
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._ending = asyncio.ensure_future(ending.wait())

    async def during(self, work: Awaitable[R]) -> R:
        """Wait for work and return its result, or end it.

        Raises Hangup, Cut, Problem if the time is over, and what the work raises.
        """
        task = asyncio.ensure_future(work)
        others = [self._ending] if self._gone is None else [self._ending, self._gone]
        seconds = self._deadline - asyncio.get_running_loop().time()
        try:
            await asyncio.wait([task, *others], timeout=max(0, seconds), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return await task
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
        if self._gone is not None and self._gone.done():
            raise Hangup
        if self._ending.done():
            raise Cut
        raise Problem(503, "the time limit of a request is over: send a shorter text", code="time_limit")

    def close(self) -> None:
        """Look no longer."""
        for task in (self._gone, self._ending):
            if task is not None:
                task.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield bytes that were waited for, then the others."""
    yield first
    async for part in rest:
        yield part


async def send_all(send: Send, start: dict[str, Any], body: AsyncIterator[bytes]) -> None:
    """Send a response whose body is made meanwhile."""
    await send(start)
    async for part in body:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
