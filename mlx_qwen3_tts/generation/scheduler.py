"""Which requests advance: they share one batch, join it between two frames and leave it when they end.

    add, wake (any thread) ─► arrived ─ waiting (for a row and memory) ─ preparing (its prompt) ─ in the batch ─► outbox
                                                  one frame of all rows a job on the MLX thread ─┘

A job on the MLX thread lasts for one frame of the batch and one piece of a prompt at most, so that other work (another
model, the encoding of a clip) comes between. A row takes part while its listener wants more and its text is known.
"""

import traceback
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from queue import Empty, SimpleQueue

import mlx.core as mx

from ..device import device_memory
from ..errors import GenerationError, RequestError
from ..models.cache import capacity_for
from .batch import MAX_ROWS, Batch, Row, bucket_for
from .engine import Engine
from .speech import Inbox, Message, PendingChunk, Speech
from .state import DecodeState

MEMORY_SHARE = 0.25  # share of the recommended memory, for the keys and values of a batch


class Scheduler:
    """Serves all requests of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.memory = int(MEMORY_SHARE * device_memory(engine.worker.device))  # bytes, for keys and values
        self._batch = Batch(engine.functions, engine.config)
        self._arrived: SimpleQueue[Speech] = SimpleQueue()
        self._waiting: deque[Speech] = deque()
        self._preparing: tuple[Speech, Generator[None, None, DecodeState]] | None = None
        self._speeches: list[Speech] = []  # with a row, or with a chunk to come
        self._pending: list[PendingChunk] = []
        self._ticking = False  # a job is queued

    # Any thread.

    def add(self, speech: Speech) -> None:
        """Serve a speech, in the order of the calls. Call `wake` next."""
        self._arrived.put(speech)

    def wake(self) -> None:
        """Go on after a listener asked for more, text has come, or a speech was cancelled.

        Raises GenerationError if no MLX work can be done any more; see MLXThread.run.
        """
        self.engine.worker.submit(self._start)

    def receive(self, outbox: Inbox) -> tuple[Speech, Message]:
        """Wait for the next message. On the MLX thread, the work is done here meanwhile."""
        if self.engine.worker.is_current:
            while outbox.empty():
                self._tick()
        return outbox.get()

    def rows_in_memory(self, positions: int) -> int:
        """Return how many rows of that many positions fit into the memory for keys and values; at least 1."""
        return max(1, min(MAX_ROWS, self.memory // self._row_bytes(positions)))

    def positions_of(self, speech: Speech) -> int:
        """Return the most positions that a speech may take."""
        return len(speech.prompt) + speech.most_frames

    # The MLX thread.

    @property
    def count(self) -> int:
        """Number of requests that have begun or wait, without those that were added a moment ago."""
        return len(self._waiting) + len(self._speeches) + (self._preparing is not None)

    def frames_of_rows(self) -> list[int]:
        """Return the number of frames of each row."""
        return [row.frames for row in self._batch.rows]

    def _start(self) -> None:
        self._attend()
        if not self._ticking:
            self._ticking = True
            self._run()

    def _run(self) -> None:
        """Do one frame's work, and queue the next."""
        while self._tick():
            if self.engine.worker.is_closed:  # at exit: the main thread waits for this job
                continue
            try:
                self.engine.worker.submit(self._run)
            except GenerationError as error:  # the interpreter is shutting down
                self._fail_all(error)
                break
            return
        self._ticking = False
        self._clear_if_idle()

    def _tick(self) -> bool:
        """Do one frame's work; return whether there is more to do."""
        self._attend()
        try:
            self._prepare_one()
            rows = self._advance()
        except Exception as error:  # noqa: BLE001  (of MLX, or a fault of ours: nobody may wait for ever)
            self._flush(error)
            return False
        return bool(rows or self._pending or self._preparing or self._can_admit())

    def _attend(self) -> None:
        """Take what was added, and drop what was cancelled, or everything if the model was unloaded."""
        with suppress(Empty):
            while True:
                self._waiting.append(self._arrived.get_nowait())
        try:
            self.engine.check_open()
        except RequestError as error:
            self._fail_all(error)
        self._waiting = deque(speech for speech in self._waiting if not speech.cancelled)
        if self._preparing is not None and self._preparing[0].cancelled:
            self._preparing[1].close()
            self._preparing = None
            mx.clear_cache()
        self._pending = [pending for pending in self._pending if not pending.speech.cancelled]
        for speech in [speech for speech in self._speeches if speech.cancelled]:
            self._forget(speech)

    def _release(self, speech: Speech) -> None:
        """Free the row of a speech."""
        if speech.row is not None:
            self._batch.leave(speech.row)
            speech.row = None

    # Joining

    def _can_admit(self) -> bool:
        """Return whether the first of those that wait may join, if need be in place of a row that is idle."""
        return bool(self._waiting) and (self._fits(self._waiting[0]) or self._idle_speech() is not None)

    def _fits(self, speech: Speech) -> bool:
        """Return whether there is a slot, and memory for its row."""
        count = len(self._batch.rows)
        if count == 0:
            return True
        present = [one for one in self._speeches if one.parked is None]
        longest = max(self._row_bytes(self.positions_of(one)) for one in [*present, speech])
        return count < MAX_ROWS and bucket_for(count + 1) * longest <= self.memory

    def _idle_speech(self) -> Speech | None:
        """Return a speech whose row waits for its listener or its text, and could be parked."""
        rows = (one for one in self._speeches if one.row is not None and one.parked is None)
        return next((one for one in rows if not one.is_busy), None)

    def _make_room(self, speech: Speech) -> bool:
        """Park idle rows until a speech fits; return whether it does."""
        while not self._fits(speech):
            idle = self._idle_speech()
            if idle is None or idle.row is None:
                return False
            idle.parked = self._batch.take(idle.row)
        return True

    def _unpark(self) -> None:
        """Let parked rows that are wanted again come back, if there is room."""
        for speech in self._speeches:
            if speech.parked is not None and speech.row is not None and speech.is_busy and self._make_room(speech):
                self._batch.join(speech.row, speech.parked)
                speech.parked = None

    def _row_bytes(self, positions: int) -> int:
        config = self.engine.config.talker_config
        width = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        return capacity_for(positions) * width * self.engine.talker.dtype.size

    def _prepare_one(self) -> None:
        """Do a piece of the work before a speech's first frame; let the speech join after the last piece."""
        if self._preparing is None:
            if not self._can_admit() or not self._make_room(self._waiting[0]):
                return
            speech = self._waiting.popleft()
            if not self._speeches:
                mx.reset_peak_memory()
            self._preparing = speech, speech.prepare()
        speech, steps = self._preparing
        try:
            next(steps)
        except StopIteration as end:
            self._preparing = None
            speech.new_row()
            speech.parked = end.value  # it joins as a parked row does
            speech.clock.book("prefill")
            self._speeches.append(speech)
        except Exception as error:  # noqa: BLE001
            self._preparing = None
            traceback.clear_frames(error.__traceback__)  # their variables would keep arrays alive
            speech.fail(error)

    # One frame

    def _advance(self) -> list[Row]:
        """Generate a frame of all rows that take part; return them."""
        speeches = self._participants()
        rows = [speech.row for speech in speeches if speech.row is not None]
        if not rows:
            self._finish_pending()
            return rows
        for speech in speeches:
            speech.clock.start()
        flight = self._batch.begin(rows)
        self._finish_pending()  # the codec's work was queued before this frame's
        outcomes = self._batch.finish(flight)
        for speech, outcome in zip(speeches, outcomes, strict=True):
            speech.clock.book("generation")
            if not speech.ended and speech.push(outcome):
                self._begin_chunk(speech)
        return rows

    def _participants(self) -> list[Speech]:
        """Return the speeches of which a frame is wanted and can be made; tell those that need text."""
        self._unpark()
        for speech in self._speeches:
            if speech.is_busy or speech.has_pending:
                continue
            speech.clock.stop()
            if speech.row is not None and speech.is_wanted and speech.row.needs_text:
                speech.tell_needs_text()
        return [speech for speech in self._speeches if speech.is_busy and speech.parked is None]

    def _begin_chunk(self, speech: Speech) -> None:
        try:
            pending = speech.begin_chunk()
        except Exception as error:  # noqa: BLE001
            self._fail(speech, error)
            return
        if speech.is_complete:
            self._release(speech)
        if pending.is_first:
            self._finish_chunk(pending)
        else:
            self._pending.append(pending)

    def _finish_pending(self) -> None:
        pending = self._pending
        self._pending = []
        for chunk in pending:
            self._finish_chunk(chunk)

    def _finish_chunk(self, pending: PendingChunk) -> None:
        speech = pending.speech
        try:
            speech.finish_chunk(pending)
        except Exception as error:  # noqa: BLE001
            self._fail(speech, error)
        if speech.ended:
            self._forget(speech)

    # Ending

    def _forget(self, speech: Speech) -> None:
        """Free what an ended speech holds."""
        speech.free()
        self._release(speech)
        if speech in self._speeches:
            self._speeches.remove(speech)
        self._clear_if_idle()

    def _clear_if_idle(self) -> None:
        """Return freed memory to the system if no request is left: the next one has buffers of other sizes."""
        if not self._speeches:
            mx.clear_cache()

    def _fail(self, speech: Speech, error: Exception) -> None:
        traceback.clear_frames(error.__traceback__)  # their variables would keep arrays alive
        speech.fail(error)
        self._forget(speech)

    def _flush(self, error: Exception) -> None:
        """End all rows with an error, after the audio so far."""
        traceback.clear_frames(error.__traceback__)
        self._finish_pending()
        for speech in [speech for speech in self._speeches if speech.row is not None]:
            speech.push(error)
            self._begin_chunk(speech)
        self._finish_pending()
        self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        """End all speeches with an error."""
        if self._preparing is not None:
            speech, steps = self._preparing
            self._preparing = None
            steps.close()
            speech.fail(error)
        for speech in self._waiting:
            speech.fail(error)
        self._waiting.clear()
        self._pending = []
        for speech in list(self._speeches):
            self._fail(speech, error)
