"""Home Assistant's protocol, Wyoming: events over TCP, each a line of JSON, with the audio behind it.

    client                           server
    describe                         info: voices and their languages
    synthesize {text, voice}         audio-start, audio-chunk, ..., audio-stop
    synthesize-start {voice}         the text goes to the model as it comes:
    synthesize-chunk {text}, ...     audio-start, audio-chunk, ..., audio-stop
    synthesize-stop                  synthesize-stopped
    ping                             pong

Events are read and written by the package `wyoming`. Its server is not used: it opens its port itself and takes over
SIGTERM. Other events have no effect. After an error the connection ends, as a client that still waits for audio-stop
would not notice it. The protocol has no key (see cli/serve.py).
"""

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, async_write_event
from wyoming.info import Describe
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped

from .live import IDLE_SECONDS, MAX_SESSIONS, MAX_UTTERANCES
from .problem import Problem
from .protocol import SpeechCall, check_length, parse_call
from .reply import Cut, Patience, SpeechEncoder
from .service import Service
from .speech import SpeechStream
from .utterance import LiveText
from .wyoming_info import LANGUAGES, describe

NAME = "wyoming"  # in the log and the counters
FORMAT = {"width": 2, "channels": 1}  # the format of the samples
LINE_LIMIT = 2**16  # bytes of an event without its data
CLOSING_SECONDS = 1.0  # time that sessions have when the server ends


class WyomingServer:
    """Serves a bound socket inside an `async with`."""

    def __init__(self, service: Service, bound: socket.socket) -> None:
        self._service = service
        self._bound = bound
        self._sessions: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "WyomingServer":
        """Begin to listen."""
        self._server = await asyncio.start_server(self._serve, sock=self._bound, limit=LINE_LIMIT)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Listen no longer, and end the sessions; speech under way is ended by the service."""
        self._server.close()
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=CLOSING_SECONDS)
        for task in self._sessions:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        session = Session(self._service, reader, writer)
        try:
            if len(self._sessions) >= MAX_SESSIONS:
                await session.fail(Problem(429, "there are too many sessions: try again later"))
                return
            self._sessions.add(task)
            await session.run()
        except OSError:
            pass  # the client has left
        finally:
            self._sessions.discard(task)
            writer.close()


@dataclass(eq=False)
class Utterance:
    """What is to be spoken. text: one that is still written, or None if the call has it."""

    call: SpeechCall
    text: LiveText | None = None
    is_waiting: bool = False  # it has begun, and waits to be spoken


class Session:
    """One connection."""

    def __init__(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._reader = BoundedReader(reader, service.settings.max_body)
        self._writer = writer
        self._sending = asyncio.Lock()  # the info may come between two pieces of audio
        self._written: Utterance | None = None  # the utterance whose text is being written
        self._waiting: asyncio.Queue[Utterance] = asyncio.Queue()

    async def run(self) -> None:
        """Heed events and speak, until the client leaves, an error occurs, or the server ends."""
        reading = asyncio.ensure_future(self._read())
        speaking = asyncio.ensure_future(self._speak_all())
        ending = asyncio.ensure_future(self._service.ending.wait())
        tasks = (reading, speaking, ending)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            if self._written is not None and self._written.text is not None:
                self._written.text.close()  # its thread waits
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, OSError | Cut):
                await self.fail(self._service.problem(result, NAME))
                return

    async def fail(self, problem: Problem) -> None:
        """Tell the client of an error."""
        code = problem.code or str(problem.status)
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._send(Error(problem.message, code)), CLOSING_SECONDS)

    async def _send(self, event: Eventable) -> None:
        async with self._sending:
            await async_write_event(event.event(), self._writer)

    # Events

    async def _read(self) -> None:
        while (event := await self._next_event()) is not None:
            await self._heed(event)

    async def _next_event(self) -> Event | None:
        """Return the next event, or None if there is none any more. Raises Problem for what is none."""
        try:
            event = await asyncio.wait_for(async_read_event(self._reader), IDLE_SECONDS)  # type: ignore[arg-type]
        except (asyncio.TimeoutError, EOFError, OSError):
            return None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise _invalid_event() from None
        if event is None:
            return None
        data = event.data or {}  # older versions of the package say None
        if not (isinstance(event.type, str) and isinstance(data, dict)):
            raise _invalid_event()
        return Event(event.type, data)

    async def _heed(self, event: Event) -> None:
        kind, data = event.type, event.data
        if Describe.is_type(kind):
            await self._send(await describe(self._service))
        elif Ping.is_type(kind):
            await self._send(Pong(data.get("text")))
        elif Synthesize.is_type(kind):
            if self._written is None:  # or else it repeats the text, for servers that do not take it as it comes
                self._add(Utterance(self._call(data, data.get("text"))))
        elif SynthesizeStart.is_type(kind):
            self._complete()
            self._written = Utterance(self._call(data), LiveText())
        elif SynthesizeChunk.is_type(kind):
            self._add_text(data.get("text"))
        elif SynthesizeStop.is_type(kind):
            self._complete()

    def _call(self, data: Mapping[str, Any], text: Any = "") -> SpeechCall:
        """Return what an event asks for. Raises Problem."""
        voice = data.get("voice") or {}
        if not isinstance(voice, dict):
            raise Problem(422, "voice must be an object", "voice")
        language = voice.get("language")
        if isinstance(language, str):
            language = LANGUAGES.get(language.replace("_", "-").split("-")[0].lower(), language)
        fields = {"input": text, "voice": voice.get("name"), "language": language, "response_format": "pcm"}
        return parse_call(fields, self._service.settings)

    def _add(self, utterance: Utterance) -> None:
        if self._service.stopping:
            raise Problem(503, "the server is shutting down", code="shutting_down")
        if self._waiting.qsize() >= MAX_UTTERANCES:
            raise Problem(429, f"{MAX_UTTERANCES} texts wait already: send more later", code="queue_full")
        utterance.is_waiting = True
        self._waiting.put_nowait(utterance)

    def _add_text(self, piece: Any) -> None:
        piece = self._call({}, piece).text  # checked
        if self._written is None or self._written.text is None:
            return
        text = self._written.text
        check_length(len(text.text) + len(piece), self._service.settings)
        text.add(piece)
        if text.text.strip() and not self._written.is_waiting:
            self._add(self._written)

    def _complete(self) -> None:
        utterance = self._written
        self._written = None
        if utterance is not None and utterance.text is not None:
            utterance.text.close()
            if not utterance.is_waiting:
                self._add(utterance)  # an empty one: its end is reported in its turn

    # Speech

    async def _speak_all(self) -> None:
        """Speak one text after another. Raises Problem for one that cannot be spoken."""
        service = self._service
        while True:
            utterance = await self._waiting.get()
            service.active += 1
            patience = Patience(None, service.settings.time_limit, service.ending)
            status, details = 499, "the client has left"
            try:
                details = await patience.during(self._speak(utterance))
                status = 200
            except (OSError, Cut):
                raise
            except Exception as error:  # noqa: BLE001  (the client is told, whatever it is)
                problem = service.problem(error, NAME)
                status, details = problem.status, problem.code or problem.param or "failed"
                raise problem from None
            finally:
                patience.close()
                service.active -= 1
                if status == 499 and service.ending.is_set():
                    details = "cut"
                service.metrics.count(NAME, status)
                service.log(f"{NAME} {status}: {details}")

    async def _speak(self, utterance: Utterance) -> str:
        """Speak a text; return what is logged of it."""
        service, call, began = self._service, utterance.call, time.perf_counter()
        if utterance.text is not None and not utterance.text.text.strip():
            await self._send(SynthesizeStopped())
            return "no text"
        served, name = service.voices.choose(call)
        async with service.models.use(served) as tts:
            voice = await service.voices.find(call, served, tts, name)
            request = call.request(voice, utterance.text)
            async with SpeechStream(tts, request, service.gate, began=began) as stream:
                await self._send_audio(stream, SpeechEncoder(call, tts.sample_rate, service.workers), tts.sample_rate)
        if utterance.text is not None:
            await self._send(SynthesizeStopped())
        text = call.text if utterance.text is None else utterance.text.text
        return service.count_speech(text, stream, time.perf_counter() - began)

    async def _send_audio(self, stream: SpeechStream, encoder: SpeechEncoder, rate: int) -> None:
        has_begun = False
        async for chunk in stream:
            data = await encoder.write(chunk)
            if not has_begun:
                has_begun = True
                await self._send(AudioStart(rate=rate, **FORMAT))
            if data:
                await self._send(AudioChunk(rate=rate, audio=data, **FORMAT))
        await self._send(AudioStop())


class BoundedReader:
    """Reads events from a stream. Raises ValueError for one that has more data than an event may have."""

    def __init__(self, reader: asyncio.StreamReader, limit: int) -> None:
        self._reader = reader
        self._limit = limit

    async def readline(self) -> bytes:
        """Return a line; empty at the end."""
        return await self._reader.readline()

    async def readexactly(self, count: int) -> bytes:
        """Return some bytes."""
        if not isinstance(count, int) or count > self._limit:
            raise ValueError(count)
        return await self._reader.readexactly(count)


def _invalid_event() -> Problem:
    return Problem(400, "not an event of the Wyoming protocol", code="invalid_event")
