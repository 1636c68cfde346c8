"""Random batches, driven frame by frame: which rows join, advance, wait, fail and leave is drawn from a seed."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import GenerationError, Qwen3TTS, Request, Sampling
from mlx_qwen3_tts.generation.batch import MAX_ROWS, Batch, Row
from mlx_qwen3_tts.generation.engine import Engine, finish
from mlx_qwen3_tts.generation.frames import FrameFunctions
from mlx_qwen3_tts.generation.state import DecodeState
from tests.support import sounds
from tests.support.engine import on_mlx_thread

TEXTS = ("Hello world", "this is a voice of the world", "Hello", "speech that is in the world, and a voice")
SAMPLINGS = (
    Sampling(), Sampling(do_sample=False, subtalker_dosample=False), Sampling(top_p=0.7, subtalker_temperature=0.5),
    Sampling(top_k=5, repetition_penalty=0.3), Sampling(subtalker_top_p=0.6, temperature=1.7), Sampling(top_k=0),
)  # fmt: skip


def requests_of(tts: Qwen3TTS, count: int) -> list[Request]:
    """Return requests of all modes of a model, with different texts, voices, languages, layouts, options and limits."""
    rng = random.Random(count)
    voices = list(tts.speakers) if tts.model_type == "custom_voice" else [None]
    if tts.model_type == "base":
        clip = sounds.SOUNDS["speech"]
        voices = [tts.clone_voice(clip), tts.clone_voice(clip, "hello this voice")]
    instructs = {"voice_design": ["A calm voice.", "Loud.", ""], "custom_voice": [None, "Slowly."]}
    may_instruct = tts.model_type == "voice_design" or tts.config.tts_model_size != "0b6"
    return [
        Request(
            TEXTS[i % len(TEXTS)],
            seed=i,
            voice=voices[i % len(voices)],
            language=rng.choice(tts.languages),
            instruct=rng.choice(instructs.get(tts.model_type, [None])) if may_instruct else None,
            sampling=SAMPLINGS[i % len(SAMPLINGS)],
            non_streaming_mode=rng.choice([True, False]),
            max_frames=rng.randint(2, 9),
            stop_runaway=False,
        )
        for i in range(count)
    ]


@dataclass
class Member:
    """A request in a random batch."""

    number: int
    row: Row
    pieces: list[str]  # of a live text that is still to come
    cancelled_at: int | None  # the number of frames after which it leaves
    fails_at: int | None  # the number of frames after which its numbers are not finite
    parked: DecodeState | None = None  # out of the batch for a while
    codes: list[np.ndarray] = field(default_factory=list)
    outcome: object = ""  # what ended it


class RandomBatch:
    """Runs requests through one batch, on the MLX thread, and keeps the codes of each."""

    def __init__(self, engine: Engine, requests: Sequence[Request], seed: int, failures: bool = True) -> None:
        self._engine = engine
        self._rng = random.Random(seed)
        self._failures = failures
        self._batch = Batch(engine.functions, engine.config)
        size = self._rng.choice([1, 2, 3, 5, 8, 11, MAX_ROWS])
        self._to_come = [(i, requests[i]) for i in self._rng.sample(range(len(requests)), min(size, len(requests)))]
        self._members: list[Member] = []
        self.largest = 0

    def run(self) -> list[Member]:
        """Return the members after the last has left."""
        rng = self._rng
        while self._to_come or self._batch.rows or any(member.parked for member in self._members):
            while self._to_come and (not self._batch.rows or rng.random() < 0.6):
                self._join(*self._to_come.pop())
            self._park()
            self.largest = max(self.largest, len(self._batch.rows))
            self._advance()
        return self._members

    def _join(self, number: int, request: Request) -> None:
        rng = self._rng
        engine = self._engine
        pieces: list[str] = []
        if not request.non_streaming_mode and rng.random() < 0.5:
            cut = rng.randint(1, len(request.text) - 1)
            pieces = [request.text[:cut], request.text[cut:]]
            request = replace(request, text=iter(pieces))
        prompt = engine.prompts.build(request)
        sampling = request.sampling.resolve(engine.generation_config)
        row = Row(prompt.feed, sampling, request.max_frames, len(prompt))
        leaves = rng.randint(1, request.max_frames) if rng.random() < 0.2 else None
        fails = rng.randint(1, request.max_frames) if self._failures and rng.random() < 0.1 else None
        self._members.append(Member(number, row, pieces, leaves, fails))
        self._batch.join(row, finish(engine.prefill(prompt, request.seed)))

    def _park(self) -> None:
        """Take some rows out of the batch, and let some come back."""
        rng = self._rng
        for member in self._members:
            if member.parked is not None and rng.random() < 0.5:
                self._batch.join(member.row, member.parked)
                member.parked = None
            elif member.row in self._batch.rows and rng.random() < 0.05:
                member.parked = self._batch.take(member.row)

    def _advance(self) -> None:
        rng = self._rng
        present = [member for member in self._members if member.row in self._batch.rows]
        for member in present:
            if member.row.needs_text and rng.random() < 0.5:
                member.row.feed.pull()
            if member.fails_at is not None and member.row.frames >= member.fails_at:
                self._poison(member)
        able = [member for member in present if not member.row.needs_text and rng.random() < 0.8]
        if not able:
            return
        outcomes = self._batch.finish(self._batch.begin([member.row for member in able]))
        for member, outcome in zip(able, outcomes, strict=True):
            if isinstance(outcome, np.ndarray):
                member.codes.append(outcome)
            else:
                member.outcome = outcome
            if member.row.finished or len(member.codes) == member.cancelled_at:
                self._batch.leave(member.row)

    def _poison(self, member: Member) -> None:
        """Make what a row has seen, and with it its next logits, not finite."""
        slot = self._batch.slot_of(member.row)
        state = self._batch.state
        for i, buffer in enumerate(state.buffers):
            buffer[:, slot] = mx.nan
            state.buffers[i] = buffer
        state.hidden[slot] = mx.nan
        state.logits[slot] = mx.nan


def solo_codes(tts: Qwen3TTS, requests: Sequence[Request]) -> list[np.ndarray]:
    """Return the codes that each request has alone."""
    return [tts.run(request).codes for request in requests]


def first_difference(tts: Qwen3TTS, requests: Sequence[Request], alone: list[np.ndarray], seed: int) -> str:
    """Run a random batch; say which member differs from its request alone, or return an empty string."""
    batch = RandomBatch(tts.engine, requests, seed)
    for member in on_mlx_thread(tts, batch.run):
        expected = alone[member.number]
        where = f"batch {seed}, request {member.number}"
        failed = isinstance(member.outcome, GenerationError)
        if failed and (member.fails_at is None or len(member.codes) < member.fails_at):
            return f"{where} failed"
        if member.fails_at is not None and not failed and len(member.codes) > member.fails_at:
            return f"{where} did not fail"
        complete = not failed and member.cancelled_at is None
        if complete and len(member.codes) != len(expected):
            return f"{where} has {len(member.codes)} frames, not {len(expected)}"
        codes = np.array(member.codes, np.int32).reshape(-1, expected.shape[1])
        if not np.array_equal(codes, expected[: len(codes)]):
            return f"{where} differs"
    return ""


def positions_of_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: all rows are at the position of the first one."""
    step = FrameFunctions.step
    monkeypatch.setattr(
        FrameFunctions, "step",
        lambda self, embedding, text, buffers, positions: step(
            self, embedding, text, buffers, np.full_like(positions, positions[0])
        ),
    )  # fmt: skip


def text_of_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: all rows are fed the text of the first one."""
    embed_text = FrameFunctions.embed_text
    monkeypatch.setattr(
        FrameFunctions, "embed_text", lambda self, ids, pad: embed_text(self, [ids[0]] * len(ids), pad)
    )  # fmt: skip


def frame_arguments(monkeypatch: pytest.MonkeyPatch, change: Callable[[list], list]) -> None:
    """Change the arguments of `FrameFunctions.frame`: hidden, logits, seen, keys, may_end, options."""
    frame = FrameFunctions.frame
    monkeypatch.setattr(FrameFunctions, "frame", lambda self, *args: frame(self, *change(list(args))))


def seen_by_any_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: what any row has seen counts for all of them."""

    def change(args):
        args[2] = mx.broadcast_to(mx.any(args[2], axis=0, keepdims=True), args[2].shape)
        return args

    frame_arguments(monkeypatch, change)
