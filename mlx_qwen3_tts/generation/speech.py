"""One request on its way to audio: frames are collected, decoded, and emitted as chunks.

frames of its row ─ push ─ a chunk of codes ─ codec, with the state of this speech ─ runaway detector ─ outbox
"""

import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from ..capabilities import check_request
from ..codec.codec import Codec
from ..codec.layers import State
from ..config.model import GenerationConfig
from ..request import Request
from ..result import AudioChunk, FinishReason
from ..voice import VoiceClonePrompt
from .batch import Outcome, Row
from .engine import Engine
from .prompt import Prompt
from .runaway import detector_for, frame_budget, frames_in_budget
from .state import DecodeState
from .timer import Clock

RUN_AHEAD = 1  # chunks that are made before the listener asks for them
PRIME_FRAMES = 64  # frames of a reference clip that are decoded at a time


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


class NeedsText:
    """In the outbox: the speech goes on once its feed was pulled and the speech was resumed."""


Message = AudioChunk | Exception | NeedsText


class Outbox(Protocol):
    """Takes the messages of speeches, on the MLX thread: a queue, or what passes them on."""

    def put(self, item: tuple["Speech", Message]) -> None:
        """Take a message, at once."""


Inbox = SimpleQueue[tuple["Speech", Message]]  # the outbox of a listener that waits for it


class Speech:
    """One request's speech. All but `ask`, `resume` and `cancel` is called on the MLX thread."""

    def __init__(
        self, engine: Engine, resolved: ResolvedRequest, prompt: Prompt, sizes: Sequence[int], outbox: Outbox,
        clock: Clock,
    ) -> None:  # fmt: skip
        """sizes: frames in the first chunks, the last number for all further ones. outbox: takes what is made."""
        request = resolved.request
        self.prompt = prompt
        self.clock = clock
        self.limit = frame_limit(engine, request, prompt)
        self.row: Row | None = None  # if the speech is generated at present
        self.parked: DecodeState | None = None  # the row's state, while another row has its slot
        self.ended = False  # nothing more goes into the outbox
        self.cancelled = False  # nobody waits for more
        self._engine = engine
        self._codec: Codec = engine.codec
        self._codec_state: State = None
        self._request = request
        self._resolved = resolved
        self._outbox = outbox
        self._asked = 0  # chunks
        self._delivered = 0  # chunks
        self._sizes = chain(sizes, repeat(sizes[-1]))
        self._size = next(self._sizes)  # the size of the chunk that is being collected
        self._codes: list[np.ndarray] = []  # the codes of that chunk
        self._reason: FinishReason | None = None
        self._error: Exception | None = None  # to be raised after the audio before it
        self._waits_for_text = False  # the listener was told
        self.has_pending = False  # a chunk is being decoded
        self._detector = detector_for(request)
        self.frames = 0  # generated, of the chunks so far
        self._emitted = 0  # frames

    # Any thread.

    def ask(self) -> None:
        """Ask for one more chunk."""
        self._asked += 1

    def resume(self) -> None:
        """Go on after the feed was pulled."""
        self._waits_for_text = False

    def cancel(self) -> None:
        """Ask for no more: the row is free at the next frame."""
        self.cancelled = True

    # The MLX thread.

    def prepare(self) -> Generator[None, None, DecodeState]:
        """Run the prompt and, for in-context cloning, the reference's codes: the speech continues their audio.

        Yields after each piece of the work; returns the state of the row.
        """
        state = yield from self._engine.prefill(self.prompt, self._resolved.seed)
        voice = self._request.voice
        if isinstance(voice, VoiceClonePrompt) and voice.ref_codes is not None:
            for start in range(0, len(voice.ref_codes), PRIME_FRAMES):
                yield
                part = voice.ref_codes[start : start + PRIME_FRAMES]
                self._codec_state = self._codec.prime(part, self._codec_state)
        return state

    def new_row(self) -> Row:
        """Return the row for the batch."""
        self.row = Row(self.prompt.feed, self._resolved.sampling, self.limit, len(self.prompt))
        return self.row

    @property
    def most_frames(self) -> int:
        """The most frames that the speech may take: its limit, or the frame budget of its text, if that is known."""
        request = self._request
        feed = self.prompt.feed
        if request.max_frames is not None or not request.stop_runaway or not feed.ended:
            return self.limit
        return min(self.limit, frame_budget(feed.length, request.frames_per_token))

    @property
    def is_wanted(self) -> bool:
        """True if the listener has asked for more than it got, or nearly so."""
        return not self.cancelled and self._delivered < self._asked + RUN_AHEAD

    @property
    def is_busy(self) -> bool:
        """True if a frame is wanted and can be made."""
        row = self.row
        return row is not None and self.is_wanted and not self._waits_for_text and not row.needs_text

    def push(self, outcome: Outcome | Exception) -> bool:
        """Take what became of a frame of the row; return whether a chunk is complete."""
        assert self.row is not None
        if isinstance(outcome, Exception):
            self._error = outcome
        elif outcome is None:
            self._reason = "stop"
        else:
            self._codes.append(outcome)
        return (
            len(self._codes) == self._size or self._error is not None or self._reason is not None
            or self.row.finished or self.row.needs_text
        )  # fmt: skip

    def begin_chunk(self) -> "PendingChunk":
        """Begin to decode the frames that were collected."""
        row = self.row
        assert row is not None
        codes = np.array(self._codes, np.int32).reshape(-1, self._codec.num_quantizers)
        self._codes = []
        self._size = next(self._sizes)
        feed = self.prompt.feed
        consumed = [feed.consumed_before(self.frames + i) for i in range(len(codes))]
        room = frames_in_budget(self._request, feed.length, self.frames, consumed)
        if room < len(codes):
            codes = codes[:room]
            consumed = consumed[:room]
            self._reason = "length"
        self.frames += len(codes)
        if self.frames == self.limit:
            self._reason = "length"
        wait, self._codec_state = self._codec.decode_async(codes, self._codec_state)
        is_last = self._reason is not None or self._error is not None
        dry = not is_last and row.needs_text
        self.clock.book("decode")
        self.has_pending = True
        return PendingChunk(self, codes, consumed, wait, is_last, dry)

    @property
    def is_complete(self) -> bool:
        """True if no further frame is needed."""
        return self._reason is not None or self._error is not None

    def finish_chunk(self, pending: "PendingChunk") -> None:
        """Wait for the samples of a chunk and put what can be emitted into the outbox."""
        self.has_pending = False
        self.clock.book("generation")  # the next frame's work, and other speeches', until now
        audio = pending.wait()
        self.clock.book("decode")
        codes = pending.codes
        reason = self._reason if pending.is_last else None
        if self._detector is not None:
            codes, audio, ran_away = self._detector.push(codes, audio, pending.consumed, pending.is_last)
            if ran_away:
                reason = self._reason = "runaway"
        self._emitted += len(codes)
        if len(codes) or reason:
            self._delivered += 1
            self._put(self._chunk(codes, audio, reason, pending.ran_dry))
        if reason is not None:
            self.ended = True
        elif pending.is_last and self._error is not None:
            self.fail(self._error)

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.ended = True
        self._error = None  # no cycle through its traceback
        self._put(error)

    def free(self) -> None:
        """Free the codec's state."""
        self.ended = True
        self.parked = None
        self._codec_state = None

    def tell_needs_text(self) -> None:
        """Tell the listener, once, that the text of the next frame is needed."""
        if not self._waits_for_text:
            self._waits_for_text = True
            self._put(NeedsText())

    def _put(self, message: Message) -> None:
        self._outbox.put((self, message))

    def _chunk(self, codes: np.ndarray, audio: np.ndarray, reason: FinishReason | None, ran_dry: bool) -> AudioChunk:
        self.clock.note_audio()
        seconds = self._emitted * self._codec.samples_per_frame / self._codec.sample_rate
        return AudioChunk(
            audio=audio,
            codes=codes,
            sample_rate=self._codec.sample_rate,
            seed=self._resolved.seed,
            is_final=reason is not None,
            finish_reason=reason,
            text_ran_dry=ran_dry and reason is None,
            timing=self.clock.timing(self._emitted, seconds),
        )


@dataclass(frozen=True, eq=False)
class PendingChunk:
    """Frames whose samples are being computed."""

    speech: Speech
    codes: np.ndarray  # [frames, 16]
    consumed: list[bool]  # for each frame, whether all of the text had been taken before it
    wait: Callable[[], np.ndarray]  # returns the samples
    is_last: bool  # no frames follow
    ran_dry: bool  # the text of the next frame is not known yet

    @property
    def is_first(self) -> bool:
        """True if these are the first frames of the speech, for which a listener waits."""
        return self.speech.frames == len(self.codes)


def frame_limit(engine: Engine, request: Request, prompt: Prompt) -> int:
    """Return the most frames that a request may take, whatever its text."""
    # The official max_new_tokens counts one more: its last code is never completed to a frame.
    limit = int(request.max_frames or engine.generation_config.max_new_tokens - 1)
    return min(limit, engine.config.talker_config.max_position_embeddings - len(prompt))
