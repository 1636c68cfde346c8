"""What is spoken between two input.done of a session, and its text, which one thread writes and another reads."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue

from .protocol import SpeechCall


class LiveText:
    """A text that is written on the event loop and read on a thread."""

    def __init__(self) -> None:
        self.text = ""  # so far
        self._pieces: SimpleQueue[str | None] = SimpleQueue()

    def add(self, piece: str) -> None:
        """Append to the text."""
        self.text += piece
        self._pieces.put(piece)

    def close(self) -> None:
        """End the text. A reader that waits goes on."""
        self._pieces.put(None)

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces, waiting for each, until the text ends."""
        while (piece := self._pieces.get()) is not None:
            yield piece


@dataclass(eq=False)
class Utterance:
    """What is spoken between two input.done."""

    index: int
    call: SpeechCall
    streams_audio: bool
    text: LiveText = field(default_factory=LiveText)
    is_complete: asyncio.Event = field(default_factory=asyncio.Event)  # its text has ended
    has_ended: bool = False  # nothing more is spoken: text that comes is dropped
