"""The listener of many requests: their chunks as they are made, in one iterator.

requests ─ at most batch_size at a time ─ Scheduler ─┐
              (texts that are still written: a       ├─ one outbox ─ (index, attempt, chunk) ─► consumer
               thread of its own for each) ──────────┘
"""

import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral
from queue import SimpleQueue

from ..errors import BatchError, GenerationError, RequestError
from ..option import invalid, is_number
from ..request import Request
from ..result import AudioChunk, SynthesisResult
from .batch import MAX_ROWS
from .engine import Engine
from .scheduler import Scheduler
from .speech import NeedsText, ResolvedRequest, Speech, resolve
from .stream import Sizes, second_attempt, with_repeatable_text
from .timer import Clock

BATCH_SIZE = 8  # requests under way at a time, unless another number is asked for

Indexed = tuple[int, int, AudioChunk]
OnError = Callable[[int, Exception], None]


@dataclass
class _Item:
    """A request under way."""

    index: int
    resolved: ResolvedRequest
    text: str | list[str]  # of a second attempt
    clock: Clock
    attempt: int = 0
    speech: Speech | None = None  # None while the prompt waits for its text


class BatchListener:
    """Hands requests to the scheduler and yields their chunks."""

    def __init__(
        self, scheduler: Scheduler, requests: Iterable[Request], batch_size: int, sizes: Sizes | None = None,
        retries: bool = False, on_error: OnError | None = None, window: int | None = None,
    ) -> None:  # fmt: skip
        """sizes: frames in each chunk, in place of the requests' own. retries: generate a runaway once more.
        window: begin no request whose index is this much beyond the first one under way; None: no such limit.

        Raises RequestError for an invalid number, and for an invalid request if `requests` is a sequence.
        """
        check_batch_size(batch_size)
        self._scheduler = scheduler
        self._batch_size = batch_size
        self._sizes = sizes
        self._retries = retries
        self._on_error = on_error
        self._window = window
        self.frames = 0  # generated, of all requests
        self._outbox: SimpleQueue = SimpleQueue()
        self._items: set[int] = set()  # indices of the requests under way
        self._by_speech: dict[Speech, _Item] = {}
        self._errors: dict[int, Exception] = {}
        self._next_index = 0
        self._source_error: Exception | None = None
        self._closed = False
        self._warned = False
        engine = scheduler.engine
        if isinstance(requests, Sequence):
            self._source: Iterator[_Item] = iter([new_item(engine, i, request) for i, request in enumerate(requests)])
        else:
            self._source = (new_item(engine, i, request) for i, request in enumerate(requests))

    def chunks(self) -> Generator[Indexed, None, None]:
        """Yield the index of a request, the number of its attempt and its next chunk.

        Raises at the end, when all others have ended: what the iterator of the requests raised, RequestError for an
        invalid request that it gave, and BatchError if requests failed and there is no `on_error`.
        """
        try:
            while True:
                self._fill()
                if not self._items:
                    break
                owner, message = self._scheduler.receive(self._outbox)
                yield from self._handle(owner, message)
        finally:
            self._closed = True
            for speech in list(self._by_speech):
                speech.cancel()
            with suppress(GenerationError):  # the interpreter is shutting down
                self._scheduler.wake()
        if self._source_error is not None:
            raise self._source_error
        if self._errors:
            raise BatchError(self._errors)

    def chunks_in_order(self) -> Generator[Indexed, None, None]:
        """Yield the chunks of one request after the other; those of later ones are kept meanwhile.

        Raises the error of a request that failed, after its audio and all audio before it.
        """
        errors: dict[int, Exception] = {}
        kept: dict[int, list[Indexed]] = defaultdict(list)
        self._on_error = errors.__setitem__
        current = 0
        chunks = self.chunks()
        while True:
            indexed = next(chunks, None)
            if indexed is not None:
                kept[indexed[0]].append(indexed)
            has_ended = True
            while has_ended:
                ready = kept.pop(current, [])
                yield from ready
                if current in errors:
                    chunks.close()
                    raise errors[current]
                has_ended = bool(ready) and ready[-1][2].is_final
                current += has_ended
            if indexed is None:
                return

    def results(self, count: int) -> list[SynthesisResult]:
        """Return the results of `count` requests in order. Raises as `chunks`."""
        chunks: list[list[AudioChunk]] = [[] for _ in range(count)]
        attempts = [0] * count
        failed: BatchError | None = None
        try:
            for index, attempt, chunk in self.chunks():
                if attempts[index] != attempt:  # the chunks of a runaway are void
                    attempts[index] = attempt
                    chunks[index].clear()
                chunks[index].append(chunk)
        except BatchError as error:
            failed = error
        errors = {} if failed is None else failed.errors
        results = {i: SynthesisResult.from_chunks(chunks[i]) for i in range(count) if i not in errors}
        if failed is not None:
            raise BatchError(errors, [results.get(i) for i in range(count)])
        return list(results.values())

    def is_under_way(self, index: int) -> bool:
        """Return whether more chunks of a request follow, of a second attempt if the last one was final."""
        return index in self._items

    def _fill(self) -> None:
        """Begin requests until batch_size are under way."""
        while len(self._items) < self._batch_size and self._in_window:
            try:
                item = next(self._source, None)
            except Exception as error:  # noqa: BLE001  (raised when those under way have ended)
                self._source_error = error
                item = None
            if item is None:
                self._source = iter(())
                return
            self._items.add(item.index)
            self._next_index = item.index + 1
            self._begin(item)

    @property
    def _in_window(self) -> bool:
        return self._window is None or self._next_index < min(self._items, default=self._next_index) + self._window

    def _begin(self, item: _Item) -> None:
        item.clock.start()
        if item.resolved.prompt is None:
            self._in_thread(self._build_and_add, item)
        else:
            self._add(item)

    def _build_and_add(self, item: _Item) -> None:
        """Wait for as much of a live text as its prompt holds."""
        prompt = self._scheduler.engine.prompts.build(item.resolved.request)
        item.clock.skip(prompt.feed.waited)
        item.clock.book("prefill")
        item.resolved = replace(item.resolved, prompt=prompt)
        self._add(item)

    def _add(self, item: _Item) -> None:
        resolved = item.resolved
        assert resolved.prompt is not None
        sizes = self._sizes or resolved.request.chunk_sizes
        speech = Speech(self._scheduler.engine, resolved, resolved.prompt, sizes, self._outbox, item.clock)
        item.speech = speech
        self._by_speech[speech] = item
        if self._closed:
            speech.cancel()
        self._warn_of_memory(speech)
        speech.ask()
        self._scheduler.add(speech)
        self._scheduler.wake()

    def _warn_of_memory(self, speech: Speech) -> None:
        fitting = self._scheduler.rows_in_memory(self._scheduler.positions_of(speech))
        if fitting < self._batch_size and not self._warned:
            self._warned = True
            warnings.warn(
                f"batch_size {self._batch_size}: the {self._scheduler.memory / 1e9:.1f} GB for keys and values hold "
                f"{fitting} at a time of requests of up to {speech.most_frames} frames, and the others wait; "
                "with a lower max_frames or frames_per_token more would fit",
                RuntimeWarning,
                stacklevel=2,
            )

    def _in_thread(self, function: Callable[[_Item], None], item: _Item) -> None:
        """Run a function that may wait for the source of a text, so that nothing else waits."""

        def run() -> None:
            try:
                function(item)
            except Exception as error:  # noqa: BLE001  (of the source: the request fails alone)
                if item.speech is not None:
                    item.speech.cancel()
                self._outbox.put((item, error))

        threading.Thread(target=run, name="text", daemon=True).start()

    def _pull(self, item: _Item) -> None:
        speech = item.speech
        assert speech is not None
        feed = speech.prompt.feed
        while not feed.ready and not self._closed:
            feed.pull()
        speech.resume()
        self._scheduler.wake()

    def _handle(self, owner: Speech | _Item, message: object) -> Iterator[Indexed]:
        item = owner if isinstance(owner, _Item) else self._by_speech[owner]
        speech = item.speech
        if isinstance(message, NeedsText):
            self._in_thread(self._pull, item)
        elif isinstance(message, Exception):
            self._end(item)
            self._fail(item, message)
        elif isinstance(message, AudioChunk):
            self.frames += len(message.codes)
            if message.is_final:
                self._end(item)
                if self._retries and item.attempt == 0:
                    self._begin_again(item, message)
            yield item.index, item.attempt, message
            if not message.is_final:
                assert speech is not None
                speech.ask()
                self._scheduler.wake()

    def _begin_again(self, item: _Item, last: AudioChunk) -> None:
        """Begin the second attempt of a request, if its last chunk asks for one."""
        again = second_attempt(item.resolved.request, last, item.text)
        if again is None:
            return
        resolved = resolve(self._scheduler.engine, again)
        self._items.add(item.index)
        self._begin(_Item(item.index, resolved, item.text, Clock(), attempt=1))

    def _end(self, item: _Item) -> None:
        self._items.discard(item.index)
        if item.speech is not None:
            self._by_speech.pop(item.speech, None)

    def _fail(self, item: _Item, error: Exception) -> None:
        if self._on_error is not None:
            self._on_error(item.index, error)
        else:
            self._errors[item.index] = error


def check_batch_size(batch_size: int) -> None:
    """Raise RequestError unless that many requests may be under way at a time."""
    if not is_number(batch_size, Integral) or not 1 <= batch_size <= MAX_ROWS:
        raise invalid("batch_size", f"a whole number from 1 to {MAX_ROWS}", batch_size)


def new_item(engine: Engine, index: int, request: Request) -> _Item:
    """Check a request and build its prompt, if its text is known. Raises RequestError, which names the index."""
    if not isinstance(request, Request):
        raise RequestError(f"request {index} is not a Request but {type(request).__name__}")
    clock = Clock()
    first, text = with_repeatable_text(request)
    try:
        resolved = resolve(engine, first)
    except RequestError as error:
        raise RequestError(f"request {index}: {error}") from None
    clock.book("prefill")
    clock.stop()
    return _Item(index, resolved, text, clock)
