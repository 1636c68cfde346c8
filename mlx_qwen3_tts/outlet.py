"""Where the command line's speech goes: a file, a pipe, the loudspeaker, or two of them at once.

chunks of one text after the other ─ Outlet ─┬─ AudioWriter
                                             ├─ Player
                                             └─ a progress line, and the figures at the end
"""

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from .audio import AudioWriter
from .errors import Qwen3TTSError
from .player import Player
from .result import AudioChunk

BYTES_A_SECOND = 14  # of UTF-8 text in speech: some 14 Latin letters, or 4.7 Chinese characters of 3 bytes
SLOW = 0.3  # seconds of waiting before the sound that are worth a word


def note(message: str) -> None:
    """Tell the user something, on standard error."""
    if sys.stderr:
        print(message, file=sys.stderr)  # noqa: T201


class Outlet:
    """Takes the chunks of one or more texts and puts them out."""

    def __init__(self, name: str, sample_rate: int, writer: AudioWriter | None, player: Player | None) -> None:
        self.name, self.sample_rate, self.writer, self.player = name, sample_rate, writer, player
        self.frames = 0
        self.seconds = self.work = self.first_audio = 0.0
        self.peak_memory = 0
        self.finish_reason = "stop"
        self._began, self._told = time.perf_counter(), False

    def put(self, chunks: Iterable[AudioChunk], text: str | None, bar: tqdm) -> None:
        """Put out all chunks of a text; `text` where it is known, to tell how much there is to come."""
        expected = None if text is None else len(text.encode()) / BYTES_A_SECOND
        before, work = self.seconds, self.work
        for chunk in chunks:
            self.frames += len(chunk.codes)
            self.seconds += len(chunk.audio) / self.sample_rate
            self.work = work + chunk.timing.total
            self.first_audio = self.first_audio or chunk.timing.first_audio
            self.peak_memory = max(self.peak_memory, chunk.timing.peak_memory)
            if self.writer:
                self.writer.write(chunk.audio)
            if self.player:
                self._play(chunk, None if expected is None else max(0.0, before + expected - self.seconds))
            if chunk.finish_reason == "length":
                self.finish_reason = "length"
            speed = self.seconds / max(time.perf_counter() - self._began, 1e-6)
            bar.set_description_str(f"{self.frames} frames, {self.seconds:.1f} s of audio, {speed:.2f}x real time")

    def _play(self, chunk: AudioChunk, remaining: float | None) -> None:
        player = self.player
        player.write(chunk.audio, remaining)
        if not (player.playing or self._told) and player.speed and player.speed < 1 and player.buffered > SLOW:
            self._told = True
            note(f"speech is made at {player.speed:.2f}x real time here: the sound waits so as not to run dry")

    def finish(self) -> None:
        """All is put: complete the file, play to the end."""
        if self.writer:
            self.writer.close()
        if self.player:
            self.player.drain()

    def fail(self, keep: bool) -> None:
        """Something went wrong. keep: what was made so far is wanted; else leave nothing behind, and be silent now."""
        if self.writer and (not keep or not self.writer.seconds):
            self.writer.abort()
        elif self.writer:
            self.writer.close()
        if self.player and keep:
            self.player.drain()
        elif self.player:
            self.player.abort()

    def report(self, seed: int, stats: bool) -> None:
        """Tell what was made, and with `stats` how."""
        if not self.seconds:
            return
        ended = "" if self.finish_reason == "stop" else " (cut off at the frame limit)"
        factor = self.work / self.seconds
        note(
            f"{self.name}: {self.frames} frames, {self.seconds:.2f} s of audio{ended} in {self.work:.2f} s, "
            f"real-time factor {factor:.2f}, seed {seed}"
        )
        if stats:
            note(f"time to first audio {1000 * self.first_audio:.0f} ms, peak memory {self.peak_memory / 2**20:.0f} MB")
            if self.player:
                note(f"underruns {self.player.underruns}")


@contextmanager
def putting(outlet: Outlet) -> Iterator[tqdm]:
    """A progress line (where standard error is a terminal), and the outlet completed, or left as the error asks."""
    with (
        tqdm(bar_format="{desc}", disable=None if sys.stderr else True, file=sys.stderr, leave=False) as bar,
        silenced_by_interrupt(outlet.player),
    ):
        try:
            yield bar
            outlet.finish()
        except (Qwen3TTSError, OSError) as error:
            outlet.fail(keep=not isinstance(error, BrokenPipeError))
            raise
        except BaseException:
            outlet.fail(keep=False)
            raise


@contextmanager
def silenced_by_interrupt(player: Player | None) -> Iterator[None]:
    """Ctrl-C mutes the sound at once, also while the main thread is inside a long computation."""
    if player is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)  # written to as the signal arrives

    def watch() -> None:
        while number := ours.recv(1):
            if number[0] == signal.SIGINT:
                player.mute()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()
        watcher.join()
        ours.close()
