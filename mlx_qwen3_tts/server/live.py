"""Speech over a WebSocket, while its text is written. The messages are vLLM-Omni's.

    client                      server
    session.config {...}                       voice, format, ...: as the fields of /v1/audio/speech
    input.text {text}  ...      audio.start    the first text starts an utterance
                                binary frames  audio
    input.done                  audio.done     the end of the utterance's text
                                session.done
    session.close               (closes, after what was written is spoken)

Text goes to the model as it comes. A reader and a speaker share a session: the next utterance may be written while the
last one is still spoken.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..result import AudioChunk
from .problem import Problem, fault
from .protocol import check_length, parse_call, read_json
from .reply import Cut, Patience, SpeechEncoder, whole_file
from .security import deny
from .service import Service
from .speech import SpeechStream
from .utterance import Utterance

NAME = "/v1/audio/speech/stream"
MAX_SESSIONS = 32
MAX_UTTERANCES = 8  # utterances of a session that may wait
IDLE_SECONDS = 300.0  # a session without a message for this long is closed
NORMAL, GOING_AWAY = 1000, 1001


class LiveEndpoint:
    """An ASGI application for WebSockets."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sessions = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a session."""
        socket = WebSocket(scope, receive, send)
        problem = None
        if self._service.stopping:
            problem = Problem(503, "the server is shutting down", code="shutting_down")
        elif self._sessions >= MAX_SESSIONS:
            problem = Problem(429, "there are too many sessions: try again later", code="too_many_sessions")
        if problem is not None:
            await deny(socket, problem)
            return
        self._sessions += 1
        try:
            await socket.accept()
            await Session(self._service, socket).run()
        finally:
            self._sessions -= 1


class Session:
    """One connection."""

    def __init__(self, service: Service, socket: WebSocket) -> None:
        self._service = service
        self._socket = socket
        self._call = parse_call({}, service.settings, "wav", needs_text=False)
        self._streams_audio = False
        self._count = 0
        self._written: Utterance | None = None  # the utterance whose text is being written
        self._waiting: asyncio.Queue[Utterance | None] = asyncio.Queue()  # None: no more

    async def run(self) -> None:
        """Read messages and speak, until one of both ends or the server does."""
        reader = asyncio.ensure_future(self._read())
        speaker = asyncio.ensure_future(self._speak_all())
        ending = asyncio.ensure_future(self._service.ending.wait())
        try:
            await asyncio.wait([reader, speaker, ending], return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and reader.exception() is None and reader.result():
                await asyncio.wait([speaker, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, speaker, ending):
                task.cancel()
            self._release()
            results = await asyncio.gather(reader, speaker, return_exceptions=True)
            code = NORMAL
            if self._service.ending.is_set():
                code = GOING_AWAY
            await self._close(code)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | RuntimeError):
                self._service.log(f"WS {NAME}: {fault(result, self._service.settings.log_text)}")

    def _release(self) -> None:
        """Let the threads that wait for text end."""
        if self._written is not None:
            self._written.text.close()

    async def _close(self, code: int) -> None:
        if self._socket.application_state != WebSocketState.DISCONNECTED:
            with suppress(RuntimeError, WebSocketDisconnect):  # the client has left
                await self._socket.close(code)

    # Messages

    async def _read(self) -> bool:
        """Heed the messages until session.close; return whether what was asked for is still to be spoken."""
        while True:
            try:
                message = await asyncio.wait_for(self._socket.receive(), IDLE_SECONDS)
            except asyncio.TimeoutError:
                return False
            if message["type"] == "websocket.disconnect":
                return False
            try:
                fields = await self._fields(message)
                if fields["type"] == "session.close":
                    if self._written is not None:
                        await self._complete()
                    await self._waiting.put(None)
                    return True
                await self._heed(fields)
            except Problem as problem:
                await self._error(problem)

    async def _fields(self, message: Any) -> dict[str, Any]:
        text = message.get("text")
        if text is None:
            raise Problem(400, "messages must be text frames with JSON", code="invalid_json")
        data = text.encode("utf-8", "surrogatepass")
        fields = await self._service.workers.parse(lambda: read_json(data), len(data))
        kinds = ("session.config", "input.text", "input.done", "session.close")
        if fields.get("type") not in kinds:
            raise Problem(422, f"type must be one of {', '.join(kinds)}", "type")
        return fields

    async def _heed(self, fields: dict[str, Any]) -> None:
        if fields["type"] == "session.config":
            await self._configure(fields)
        elif fields["type"] == "input.text":
            await self._add_text(fields)
        else:
            await self._complete()

    async def _configure(self, fields: dict[str, Any]) -> None:
        if self._written is not None:
            raise Problem(400, "a text is being written: send input.done before another session.config", "type")
        streams_audio = fields.get("stream_audio") or False
        if not isinstance(streams_audio, bool):
            raise Problem(422, "stream_audio must be true or false", "stream_audio")
        default_format = "pcm" if streams_audio else "wav"
        clip = fields.get("ref_audio")
        size = len(clip) if isinstance(clip, str) else 0
        self._call = await self._service.workers.parse(
            lambda: parse_call(fields, self._service.settings, default_format, needs_text=False), size
        )
        self._streams_audio = streams_audio

    async def _add_text(self, fields: dict[str, Any]) -> None:
        piece = fields.get("text")
        if not isinstance(piece, str):
            raise Problem(422, "text must be a string", "text")
        try:
            piece.encode()
        except UnicodeEncodeError:
            raise Problem(400, "text must be valid Unicode: it has half of a surrogate pair", "text") from None
        if not piece:
            return
        if self._written is None:
            self._begin()
        utterance = self._written
        assert utterance is not None
        if not utterance.has_ended:
            check_length(len(utterance.text.text) + len(piece), self._service.settings)
            utterance.text.add(piece)

    def _begin(self) -> None:
        if self._service.stopping:
            raise Problem(503, "the server is shutting down", code="shutting_down")
        if self._waiting.qsize() >= MAX_UTTERANCES:
            raise Problem(429, f"{MAX_UTTERANCES} utterances wait already: send text later", code="queue_full")
        self._written = Utterance(self._count, self._call, self._streams_audio)
        self._count += 1
        self._waiting.put_nowait(self._written)

    async def _complete(self) -> None:
        utterance = self._written
        self._written = None
        if utterance is None:
            await self._send("session.done", utterance_index=self._count, total_sentences=0)
            self._count += 1
            return
        utterance.text.close()
        utterance.is_complete.set()

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_json({"type": kind, **fields})

    async def _error(self, problem: Problem, **fields: Any) -> None:
        await self._send("error", message=problem.message, **problem.body, **fields)

    # Speech

    async def _speak_all(self) -> None:
        while (utterance := await self._waiting.get()) is not None:
            service = self._service
            service.active += 1
            patience = Patience(None, service.settings.time_limit, service.ending)
            status, details = 200, ""
            try:
                details = await patience.during(self._speak(utterance))
            except (Cut, WebSocketDisconnect):
                status, details = 499, "cut"
                raise
            except Exception as error:  # noqa: BLE001  (of this utterance: the session goes on)
                problem = service.problem(error, f"WS {NAME}")
                status, details = problem.status, problem.code or problem.param or "failed"
                await self._error(problem, utterance_index=utterance.index)
                await self._send_done(utterance, 0, error=True)
            finally:
                patience.close()
                utterance.has_ended = True
                service.active -= 1
                service.metrics.count(NAME, status)
                service.log(f"WS {NAME} {status}: {details}")
            await utterance.is_complete.wait()
            await self._send("session.done", utterance_index=utterance.index, total_sentences=1)

    async def _speak(self, utterance: Utterance) -> str:
        """Speak an utterance; return what is logged of it."""
        service, call, began = self._service, utterance.call, time.perf_counter()
        served, name = service.voices.choose(call)
        async with service.models.use(served) as tts:
            voice = await service.voices.find(call, served, tts, name)
            request = call.request(voice, utterance.text)
            async with SpeechStream(tts, request, service.gate, began=began) as stream:
                audio = self._audio(utterance, stream, tts.sample_rate)
                total = await self._send_audio(utterance, audio, tts.sample_rate)
        await self._send_done(utterance, total, error=False, usage=stream.usage, seed=stream.seed)
        return service.count_speech(utterance.text.text, stream, time.perf_counter() - began)

    async def _audio(self, utterance: Utterance, stream: SpeechStream, sample_rate: int) -> AsyncIterator[bytes]:
        """Yield the audio of an utterance as it is made, or all of it at the end."""
        workers = self._service.workers
        encoder = SpeechEncoder(utterance.call, sample_rate, workers)
        chunks: list[AudioChunk] = []
        async for chunk in stream:
            if utterance.streams_audio:
                yield await encoder.write(chunk)
            else:
                chunks.append(chunk)
        if chunks:
            yield await whole_file(utterance.call, chunks, workers)

    async def _send_audio(self, utterance: Utterance, audio: AsyncIterator[bytes], sample_rate: int) -> int:
        """Send the audio; return the number of bytes."""
        total = 0
        has_begun = False
        async for data in audio:
            if not has_begun:
                has_begun = True
                await self._send(
                    "audio.start",
                    utterance_index=utterance.index,
                    sentence_index=0,
                    sentence_text=utterance.text.text,
                    format=utterance.call.response_format,
                    sample_rate=sample_rate,
                )
            if data:
                await self._socket.send_bytes(data)
                total += len(data)
        return total

    async def _send_done(self, utterance: Utterance, total: int, error: bool, **fields: Any) -> None:
        await self._send(
            "audio.done",
            utterance_index=utterance.index,
            sentence_index=0,
            total_bytes=total,
            error=error,
            **fields,
        )
