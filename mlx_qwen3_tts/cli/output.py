"""Where the command line's speech goes: a file, a pipe, the loudspeaker, or two of them at once.

chunks of one text after the other ─ Outlet ─┬─ AudioWriter
                                             ├─ Player
                                             └─ a progress line, and the figures at the end
"""

import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from ..audio.player import Player
from ..audio.write import AudioWriter
from ..errors import PlaybackError, Qwen3TTSError
from ..result import AudioChunk
from .console import note

BYTES_A_SECOND = 14  # of UTF-8 text in speech: some 14 Latin letters, or 4.7 Chinese characters of 3 bytes
LEAST = 1.0  # seconds of speech to come that are planned for once the estimate is used up
ENDED = {
    "length": " (cut off at the frame limit)",
    "runaway": " (it ran on after its text, which was cut: another --seed may do better)",
}
SLOW = 0.3  # seconds of waiting before the sound that are worth a word


class Outlet:
    """Takes the chunks of one or more texts and puts them out."""

    def __init__(self, name: str, sample_rate: int, writer: AudioWriter | None, player: Player | None) -> None:
        self.name, self.sample_rate, self.writer, self.player = name, sample_rate, writer, player
        self.peak_memory = 0
        self._told = False
        self.kept = False  # there is something to report of
        self._begin()

    def _begin(self) -> None:
        self.frames = 0
        self.seconds = self.work = self.first_audio = 0.0
        self.finish_reason = "stop"
        self.seed: int | None = None  # of the first text

    @property
    def can_start_over(self) -> bool:
        """Nobody has heard anything: it all goes to a file."""
        return self.player is None and self.writer is not None and self.writer.can_start_over

    def start_over(self) -> None:
        """Take back what was put out. Raises AudioError."""
        self.writer.start_over()
        self._begin()

    def put(self, chunks: Iterable[AudioChunk], text: str | None, limit: int | None, bar: tqdm) -> None:
        """Put out all chunks of a text.

        text: where it is known, to tell how much there is to come; limit: frames that it may take at most.
        """
        expected = float("inf") if text is None else len(text.encode()) / BYTES_A_SECOND
        begun, work = self.seconds, 0.0
        for chunk in chunks:
            step, work = chunk.timing.total - work, chunk.timing.total
            self.frames += len(chunk.codes)
            self.seconds += len(chunk.audio) / self.sample_rate
            self.work += step
            self.first_audio = self.first_audio or chunk.timing.first_audio
            self.peak_memory = max(self.peak_memory, chunk.timing.peak_memory)
            if self.writer:
                self.writer.write(chunk.audio)
            if self.player:
                most = (
                    float("inf") if limit is None else limit * chunk.timing.audio_seconds / max(1, chunk.timing.frames)
                )
                left = min(max(expected - (self.seconds - begun), LEAST), most - (self.seconds - begun))
                self._play(chunk, step, None if left == float("inf") else left)
            self.seed = chunk.seed if self.seed is None else self.seed
            if chunk.finish_reason in ENDED:
                self.finish_reason = chunk.finish_reason
            speed = self.seconds / max(self.work, 1e-6)
            bar.set_description_str(f"{self.frames} frames, {self.seconds:.1f} s of audio, {speed:.2f}x real time")

    def _play(self, chunk: AudioChunk, work: float, remaining: float | None) -> None:
        player = self.player
        # The time to the first audio holds the prompt as well, which no later chunk has.
        work = chunk.timing.generation + chunk.timing.decode if work == chunk.timing.total else work
        player.write(chunk.audio, work, remaining, pause=chunk.is_final or chunk.text_ran_dry)
        if not (player.playing or self._told) and player.speed and player.speed < 1 and player.buffered > SLOW:
            self._told = True
            note(f"speech is made at {player.speed:.2f}x real time here: the sound waits so as not to run dry")

    def finish(self) -> None:
        """All is put: complete the file, play to the end."""
        if self.writer:
            self.writer.close()
        self.kept = self.seconds > 0
        if self.player:
            self.player.drain()

    def fail(self, keep: bool) -> None:
        """Something went wrong. keep: what was made so far is wanted; else leave nothing behind, and be silent now."""
        if self.writer and keep and self.writer.seconds:
            self.writer.close()
            self.kept = True
        elif self.writer:
            self.writer.abort()
        if self.player and keep:
            self.player.drain()
        elif self.player:
            self.player.abort()

    def report(self, seed: int, stats: bool) -> None:
        """Tell what was made, and with `stats` how."""
        if not self.kept:
            return
        ended = ENDED.get(self.finish_reason, "")
        factor = self.work / self.seconds
        note(
            f"{self.name}: {self.frames} frames, {self.seconds:.2f} s of audio{ended} in {self.work:.2f} s, "
            f"real-time factor {factor:.2f}, seed {seed}"
        )
        if stats:
            note(f"time to first audio {1000 * self.first_audio:.0f} ms, peak memory {self.peak_memory / 2**20:.0f} MB")
            if self.player and self.player.waited is not None:
                heard = 1000 * (self.first_audio + self.player.waited)
                note(f"time to first sound {heard:.0f} ms, underruns {self.player.underruns}")


@contextmanager
def putting(outlet: Outlet) -> Iterator[tqdm]:
    """A progress line (where standard error is a terminal), and the outlet completed, or left as the error asks."""
    try:
        with (
            tqdm(bar_format="{desc}", disable=None if sys.stderr else True, file=sys.stderr, leave=False) as bar,
            silenced_by_interrupt(outlet.player),
        ):
            try:
                yield bar
                outlet.finish()
            except (BrokenPipeError, PlaybackError):
                raise
            except (Qwen3TTSError, OSError, RuntimeError, MemoryError):  # the last two are MLX's
                outlet.fail(keep=True)
                raise
    except BaseException:  # Ctrl-C may come at any point of the above
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
