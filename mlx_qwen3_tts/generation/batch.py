"""Rows of requests that advance together, each exactly as if it were alone.

    slots   0: row ─┐                                           ┌─ codes of each row
            1: row ─┼─ step: the talker ─ frame: the predictor ─┤
            2:  -   │                                           └─ next embedding of each row
            3: row ─┘

A row joins with the state that its prompt left, keeps its slot of all arrays, and leaves when it ends. Nothing is
merged or taken apart from frame to frame: arrays have a row for each slot, and positions, masks, options, random keys
and texts belong to the row. The number of slots is one of BUCKETS, for each of which the functions are compiled once.
A row that waits (for its text, or for its listener) keeps its state while the others advance.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..config.model import GenerationConfig, ModelConfig
from ..errors import GenerationError
from ..models.cache import capacity_for
from ..models.talker import NO_CODE
from ..text.feed import TextFeed
from .frames import MIN_FRAMES, FrameFunctions
from .sampling import FrameOptions
from .state import DecodeState

BUCKETS = (1, 2, 4, 8, 16)  # numbers of slots
MAX_ROWS = BUCKETS[-1]
SHRINK_AFTER = 25  # frames for which fewer slots would have been enough


def bucket_for(rows: int) -> int:
    """Return the number of slots for that many rows."""
    return next(size for size in BUCKETS if size >= rows)


class Row:
    """What the host knows of one request in a batch."""

    def __init__(self, feed: TextFeed, sampling: GenerationConfig, limit: int, position: int) -> None:
        """feed: gives the text of each frame. sampling: the result of `Sampling.resolve`. limit: the most frames.

        position: number of positions that the talker has seen, the prompt's.
        """
        self.feed = feed
        self.sampling = sampling
        self.limit = limit
        self.position = position
        self.frames = 0  # number generated
        self.stepped = True  # the talker has seen the last frame: hidden and logits are those of the next one
        self.ended = False  # the model ended the speech, or a frame failed

    @property
    def needs_text(self) -> bool:
        """True if the next frame cannot be made before more of the text is known."""
        return not self.stepped and not self.finished and not self.feed.ready

    @property
    def finished(self) -> bool:
        """True if no frame is left to make."""
        return self.ended or self.frames == self.limit


# The frame, int32 [16]; what failed; or None if the model ended the speech.
Outcome = np.ndarray | GenerationError | None


class Flight(NamedTuple):
    """A frame that was queued."""

    rows: Sequence[Row]
    slots: Sequence[int]  # the slots of the rows
    codes: mx.array  # the codes of all slots, [slots, 16]


class Batch:
    """The rows of one model, and the one loop in which speech is generated. Everything runs on the MLX thread.

    The talker's next step is queued before the codes of a frame are read, in a submission of its own: what reads the
    codes then waits for them alone, and the device has work meanwhile. Only a row's first frame, and frames whose next
    text is still being written, are read before.
    """

    def __init__(self, functions: FrameFunctions, config: ModelConfig) -> None:
        self._functions = functions
        self._config = config
        self._slots: list[Row | None] = []
        self._state: DecodeState | None = None
        self._options: FrameOptions | None = None  # the options of the rows in their slots
        self._spare_frames = 0  # frames for which a smaller bucket would have been enough

    @property
    def rows(self) -> list[Row]:
        """The rows, in the order of their slots."""
        return [row for row in self._slots if row is not None]

    @property
    def size(self) -> int:
        """Number of slots."""
        return len(self._slots)

    @property
    def state(self) -> DecodeState:
        """The arrays of all rows. Raises LookupError if there are none."""
        if self._state is None:
            raise LookupError("the batch has no rows")
        return self._state

    def slot_of(self, row: Row) -> int:
        """Return the slot of a row. Raises ValueError if it is not in the batch."""
        return self._slots.index(row)

    def join(self, row: Row, state: DecodeState) -> None:
        """Add a row with the state that its prompt left. Raises ValueError if there are MAX_ROWS already."""
        count = len(self.rows)
        if count == MAX_ROWS:
            raise ValueError(f"a batch has at most {MAX_ROWS} rows")
        self._options = None
        if count == 0:
            self._state = state
            self._slots = [row]
            return
        if count == self.size:
            self._resize(bucket_for(count + 1))
        self.state.reserve(state.capacity)
        slot = self._slots.index(None)
        self.state.place(slot, state)
        self._slots[slot] = row

    def take(self, row: Row) -> DecodeState:
        """Remove a row and return its state, with which it may join again."""
        state = self.state.row(self.slot_of(row))
        self.leave(row)
        return state

    def leave(self, row: Row) -> None:
        """Remove a row; its slot is free for another. Rows that are not there are ignored."""
        if row not in self._slots:
            return
        self._options = None
        self._slots[self.slot_of(row)] = None
        if not self.rows:
            self._slots = []
            self._state = None
            mx.synchronize()  # a step that is under way still uses the buffers
            mx.clear_cache()  # no later request has buffers of their sizes

    def _resize(self, size: int) -> None:
        """Take that many slots, the first ones for the rows."""
        rows = self.rows
        slots = [slot for slot, row in enumerate(self._slots) if row is not None]
        spare = size - len(slots)
        needed = max(row.position for row in rows) + 1
        self.state.select(slots + slots[:1] * spare, capacity_for(needed))
        self._slots = [*rows, *[None] * spare]
        self._options = None

    def _shrink(self) -> None:
        """Take fewer slots if they would have been enough for a while."""
        smaller = bucket_for(len(self.rows))
        self._spare_frames += 1
        if smaller == self.size:
            self._spare_frames = 0
        elif self._spare_frames >= SHRINK_AFTER:
            self._spare_frames = 0
            self._resize(smaller)

    def begin(self, rows: Sequence[Row]) -> Flight:
        """Queue the next frame of some rows, and the talker's step after it.

        None of the rows may be finished or need text.
        """
        self._shrink()
        behind = [row for row in rows if not row.stepped]
        if behind:
            self._step(behind)
        codes = self._frame(rows)
        # The codec's work on a first frame, which a listener waits for, must not stand behind the talker's step.
        if all(row.frames > 1 for row in rows):
            ahead = [row for row in rows if not row.finished and row.feed.ready]
            if ahead:
                self._step(ahead)
        return Flight(rows, [self.slot_of(row) for row in rows], codes)

    def finish(self, flight: Flight) -> list[Outcome]:
        """Wait for the codes of a frame; return what became of each row."""
        # Convert the whole array: indexing it first would queue a computation behind everything that is queued already.
        frames = np.array(flight.codes)
        return [self._outcome(row, frames[slot]) for row, slot in zip(flight.rows, flight.slots, strict=True)]

    def _outcome(self, row: Row, frame: np.ndarray) -> Outcome:
        if frame[0] == self._config.talker_config.codec_eos_token_id:
            row.ended = True
            return None
        if frame[0] == NO_CODE:
            row.ended = True
            return GenerationError(
                "the logits of a frame are not finite: the checkpoint is damaged, or its numbers are too large for "
                "float16 (choose dtype 'bfloat16')"
            )
        return frame

    def _step(self, rows: Collection[Row]) -> None:
        """Queue the talker's step over the last frame of some rows and the text that it is fed."""
        state = self.state
        pad = self._config.tts_pad_token_id
        positions = np.zeros(self.size, np.int64)
        ids = [pad] * self.size
        kept = np.zeros(self.size, bool)  # rows that have stepped already; all others have no outputs to lose
        for slot, row in enumerate(self._slots):
            if row is None:
                continue
            # A row that does not step writes to a position that its own step overwrites before anything reads it.
            positions[slot] = row.position
            kept[slot] = row.stepped
            if row in rows:
                ids[slot] = row.feed.take()[0]
                row.position += 1
                row.stepped = True
        state.reserve(int(positions.max()) + 1)
        text = self._functions.embed_text(ids, pad)
        hidden, logits, state.buffers = self._functions.step(state.embedding, text, state.buffers, positions)
        state.hidden = merge(kept, state.hidden, hidden)
        state.logits = merge(kept, state.logits, logits)
        mx.async_eval(state.hidden, state.logits)

    def _frame(self, rows: Collection[Row]) -> mx.array:
        """Queue the sampling of some rows' next frame; return the codes of all slots, [slots, 16]."""
        state = self.state
        may_end = [[row is not None and row.frames >= MIN_FRAMES] for row in self._slots]
        codes, embedding, seen, keys = self._functions.frame(
            state.hidden, state.logits, state.seen, state.keys, mx.array(may_end), self._sampling_options()
        )
        waiting = np.array([row is not None and row not in rows for row in self._slots])
        state.embedding = merge(waiting, state.embedding, embedding)
        state.seen = merge(waiting, state.seen, seen)
        state.keys = merge(waiting, state.keys, keys)
        mx.async_eval(codes, state.embedding, state.seen, state.keys)
        for row in rows:
            row.frames += 1
            row.stepped = False
        return codes

    def _sampling_options(self) -> FrameOptions:
        if self._options is None:
            some = self.rows[0].sampling
            options = [some if row is None else row.sampling for row in self._slots]
            self._options = FrameOptions.of(options, self._config.talker_config)
        return self._options


def merge(kept: np.ndarray, old: mx.array, new: mx.array) -> mx.array:
    """Return the rows of `old` that are kept, and those of `new`; kept: bool [rows]."""
    return mx.where(mx.array(kept)[:, None], old, new) if kept.any() else new
