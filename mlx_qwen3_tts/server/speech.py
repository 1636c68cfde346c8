"""One request on the event loop: its place, its chunks, and the bound on what nobody has read yet.

    Gate ─ PushedSpeech ─ chunks (at most AHEAD that the client has not taken) ─ Stretch ─ StreamEncoder ─► bytes

If the client reads slowly, AHEAD chunks are made and the row pauses: its slot in the batch and its place go to others,
and it comes back once half of the chunks were taken. The same happens while a text is not known yet.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

from ..generation.push import PushedSpeech
from ..generation.speech import RUN_AHEAD
from ..generation.stream import second_attempt
from ..request import Request
from ..result import AudioChunk
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt
from .gate import Gate

AHEAD = 16  # chunks: some 9 s of speech

Message = AudioChunk | Exception


class SpeechStream:
    """The chunks of a request, as an asynchronous iterator. Use it in an `async with`, which ends the work.

    The iterator raises what generation raises.
    """

    def __init__(
        self, tts: Qwen3TTS, request: Request, gate: Gate, patient: bool = False, began: float | None = None
    ) -> None:
        """patient: wait for a place even if the queue is full. began: perf_counter's time when the request has come.

        Raises RequestError for a request that the model cannot serve.
        """
        self.began = time.perf_counter() if began is None else began
        self.first_audio = 0.0  # seconds from the request to its first samples
        self.frames = 0
        self.audio_seconds = 0.0
        self._request = request
        self._gate = gate
        self._patient = patient
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._speech = PushedSpeech(tts.scheduler, request, self._deliver, self._text_waits)
        self._asked = 0  # chunks
        self._made = 0  # chunks
        self._taken = 0  # chunks
        self._is_inside = False  # has a place
        self._is_dry = False  # waits for its text
        self._ended = False  # nothing more will be made
        self._returning: asyncio.Task[None] | None = None

    @property
    def seed(self) -> int:
        """The seed in use."""
        return self._speech.seed

    @property
    def usage(self) -> dict[str, object]:
        """The tokens so far, as vLLM-Omni counts them: text, frames of a reference clip, generated frames."""
        voice = self._request.voice
        clip = 0
        if isinstance(voice, VoiceClonePrompt) and voice.ref_codes is not None:
            clip = len(voice.ref_codes)
        text = self._speech.text_tokens
        return {
            "input_tokens": text + clip,
            "output_tokens": self.frames,
            "total_tokens": text + clip + self.frames,
            "input_token_details": {"text_tokens": text, "audio_tokens": clip},
        }

    async def __aenter__(self) -> "SpeechStream":
        """Wait for a place, and begin. Raises QueueFull."""
        await self._gate.enter(self._patient)
        self._is_inside = True
        self._ask(AHEAD)
        self._speech.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the work, whether it is done or not."""
        self._end()
        if self._returning is not None:
            self._returning.cancel()
        self._speech.cancel()

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        """Yield the chunks."""
        while True:
            message = await self._messages.get()
            if isinstance(message, Exception):
                try:
                    raise message
                finally:
                    del message  # no cycle through its traceback
            self._taken += 1
            self._go_on()
            self.frames += len(message.codes)
            self.audio_seconds += len(message.audio) / message.sample_rate
            self.first_audio = self.first_audio or time.perf_counter() - self.began
            yield message
            if message.is_final:
                return

    def _deliver(self, message: Message) -> None:
        """Take a message on the MLX thread."""
        self._on_loop(self._arrive, message)

    def _text_waits(self, waits: bool) -> None:
        """Heed, on the text's thread, that it waits for the text, or no longer."""
        self._on_loop(self._text_changes, waits)

    def _on_loop(self, function: Callable[[Any], None], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, value)
        except RuntimeError:  # the loop is closed: the server has ended
            self._speech.cancel()

    def _text_changes(self, waits: bool) -> None:
        self._is_dry = waits
        if waits:
            self._leave()
        elif not self._ended and not self._is_inside and self._returning is None and self._made <= self._asked:
            self._is_inside = True
            self._gate.reenter()

    def _arrive(self, message: Message) -> None:
        self._messages.put_nowait(message)
        self._made += 1
        if isinstance(message, Exception) or message.is_final:
            self._end()
        elif self._made >= self._asked + RUN_AHEAD:
            self._leave()

    def _ask(self, count: int) -> None:
        self._asked += count
        self._speech.ask(count)

    def _go_on(self) -> None:
        """Ask for more after a chunk was taken; come back if the speech has paused."""
        if self._ended:
            return
        if self._is_inside or self._is_dry:
            self._ask(self._taken + AHEAD - self._asked)
        elif self._returning is None and self._made - self._taken <= AHEAD // 2:
            self._returning = asyncio.ensure_future(self._come_back())

    async def _come_back(self) -> None:
        await self._gate.enter(patient=True, first=True)
        self._returning = None
        if self._ended:
            self._gate.leave()
            return
        self._is_inside = True
        self._ask(self._taken + AHEAD - self._asked)

    def _leave(self) -> None:
        if self._is_inside:
            self._is_inside = False
            self._gate.leave()

    def _end(self) -> None:
        self._ended = True
        self._leave()


async def whole_speech(
    tts: Qwen3TTS, request: Request, gate: Gate, patient: bool = False
) -> tuple[list[AudioChunk], SpeechStream]:
    """Speak a request and return all of its chunks; a runaway without a seed is generated once more.

    Raises QueueFull, and what generation raises.
    """
    async with SpeechStream(tts, request, gate, patient) as stream:
        chunks = [chunk async for chunk in stream]
    again = second_attempt(request, chunks[-1], request.text)
    if again is None:
        return chunks, stream
    async with SpeechStream(tts, again, gate, patient=True) as stream:
        return [chunk async for chunk in stream], stream
