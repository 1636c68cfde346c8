"""The listener that does not wait: the chunks of a request are handed to a function, for use from an event loop.

    event loop:   ask, cancel ─► Scheduler ─ Speech ─┬─ deliver(chunk or error), on the MLX thread ─► event loop
                                                     └─ text is needed: a thread pulls it, which may wait

Any number of requests may be open without a thread for each.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from ..errors import GenerationError
from ..request import Request
from ..result import AudioChunk
from .prompt import Prompt
from .scheduler import Scheduler
from .speech import Message, NeedsText, Speech, resolve
from .stream import Sizes
from .timer import Clock

Deliver = Callable[[AudioChunk | Exception], None]
Waits = Callable[[bool], None]


class _Outbox:
    """Passes the messages of a speech on."""

    def __init__(self, take: Callable[[Message], None]) -> None:
        self._take = take

    def put(self, item: tuple[Speech, Message]) -> None:
        self._take(item[1])


class PushedSpeech:
    """A request under way. Its methods return at once and may be called from any thread.

    The text of a request may be an iterator, which is read on a thread of its own. `cancel` does not interrupt the
    iterator: whoever cancels lets it end.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        request: Request,
        deliver: Deliver,
        waits: Waits | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        """deliver: called on the MLX thread, or on the text's, with each chunk, or with the error that ends the
        speech. waits: called with True if the speech waits for its text, and with False once it goes on. Both must
        return at once. sizes: frames in each chunk, in place of the request's own.

        Raises RequestError for a request that the model cannot serve.
        """
        self._clock = Clock()
        self._resolved = resolve(scheduler.engine, request)
        self._clock.book("prefill")
        self._clock.stop()
        self._scheduler = scheduler
        self._sizes = sizes or request.chunk_sizes
        self._deliver = deliver
        self._waits = waits or (lambda _: None)
        self._lock = threading.Lock()
        self._speech: Speech | None = None  # None until the prompt is known
        self._asked = 0  # chunks, before the speech existed
        self._cancelled = False

    @property
    def seed(self) -> int:
        """The seed in use, given or drawn."""
        return self._resolved.seed

    @property
    def text_tokens(self) -> int:
        """Number of tokens of the text so far."""
        speech = self._speech
        return 0 if speech is None else speech.prompt.feed.length

    def start(self) -> None:
        """Wait for a place in the batch, after all requests that have started before."""
        self._clock.start()
        if self._resolved.prompt is None:
            self._in_thread(self._build)
        else:
            self._add(self._resolved.prompt)

    def ask(self, count: int = 1) -> None:
        """Ask for more chunks. One or two more than were asked for are delivered."""
        with self._lock:
            speech = self._speech
            if speech is None:
                self._asked += count
                return
            for _ in range(count):
                speech.ask()
        self._wake()

    def cancel(self) -> None:
        """End the speech: its row is free at the next frame. What is on its way may still be delivered."""
        with self._lock:
            self._cancelled = True
            if self._speech is not None:
                self._speech.cancel()
        self._wake()

    def _add(self, prompt: Prompt) -> None:
        outbox = _Outbox(self._take)
        speech = Speech(self._scheduler.engine, self._resolved, prompt, self._sizes, outbox, self._clock)
        with self._lock:
            self._speech = speech
            for _ in range(self._asked):
                speech.ask()
            if self._cancelled:
                return
        self._scheduler.add(speech)
        self._wake()

    def _build(self) -> None:
        """Wait for as much of a live text as the prompt holds."""
        self._waits(True)
        prompt = self._scheduler.engine.prompts.build(self._resolved.request)
        self._clock.skip(prompt.feed.waited)
        self._clock.book("prefill")
        self._resolved = replace(self._resolved, prompt=prompt)
        self._waits(False)
        self._add(prompt)

    def _pull(self) -> None:
        """Wait for the text of the next frame."""
        speech = self._speech
        assert speech is not None
        feed = speech.prompt.feed
        self._waits(True)
        while not feed.ready and not self._cancelled:
            feed.pull()
        self._waits(False)  # first: once it goes on, it may wait again
        speech.resume()
        self._wake()

    def _take(self, message: Message) -> None:
        if isinstance(message, NeedsText):
            self._in_thread(self._pull)
            return
        self._deliver(message)
        if isinstance(message, AudioChunk) and message.text_ran_dry:
            self._wake()  # the next frame says that text is needed, and nobody else may ask for that frame

    def _in_thread(self, function: Callable[[], None]) -> None:
        """Run a function that may wait for the source of the text."""

        def run() -> None:
            try:
                function()
            except Exception as error:  # noqa: BLE001  (of the source: the request fails alone)
                self.cancel()
                self._deliver(error)

        threading.Thread(target=run, name="text", daemon=True).start()

    def _wake(self) -> None:
        with suppress(GenerationError):  # the interpreter is shutting down
            self._scheduler.wake()
