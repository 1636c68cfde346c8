"""The target of the command line's speech: a file, a pipe, the loudspeaker, or two of them at once.

chunks of one text after the other ─ SpeechOutput ─┬─ AudioWriter
                                                   ├─ Player
                                                   └─ a progress line, and the figures at the end
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from ..audio.player import Player
from ..audio.write import AudioWriter
from ..errors import PlaybackError, Qwen3TTSError
from ..result import AudioChunk, FinishReason
from .console import note

BYTES_PER_SECOND = 14  # UTF-8 bytes in a second of speech: some 14 Latin letters, or 4.7 Chinese characters of 3 bytes
MIN_REMAINING = 1.0  # seconds of speech that are still planned for once the estimate is used up
MIN_WAIT = 0.3  # seconds; shorter prebuffering is not reported
ENDINGS = {
    "length": " (cut off at the frame limit)",
    "runaway": " (it ran on after its text, which was cut: another --seed may do better)",
}


@dataclass
class Progress:
    """What was generated, summed over all texts."""

    frames: int = 0
    audio_seconds: float = 0.0
    work_seconds: float = 0.0
    first_audio: float = 0.0  # seconds from the first request to its first samples
    peak_memory: int = 0  # bytes
    seed: int | None = None  # the seed of the first text
    finish_reason: FinishReason = "stop"  # the last one that is not "stop"

    def add(self, chunk: AudioChunk, work: float) -> None:
        """Count a chunk that took `work` seconds."""
        self.frames += len(chunk.codes)
        self.audio_seconds += len(chunk.audio) / chunk.sample_rate
        self.work_seconds += work
        self.first_audio = self.first_audio or chunk.timing.first_audio
        self.peak_memory = max(self.peak_memory, chunk.timing.peak_memory)
        if self.seed is None:
            self.seed = chunk.seed
        if chunk.finish_reason in ENDINGS:
            self.finish_reason = chunk.finish_reason

    def __str__(self) -> str:
        speed = self.audio_seconds / max(self.work_seconds, 1e-6)
        return f"{self.frames} frames, {self.audio_seconds:.1f} s of audio, {speed:.2f}x real time"


@dataclass
class TextEstimate:
    """How much of the present text's speech is still to come."""

    expected_seconds: float | None  # None if the text is not known yet
    max_frames: int | None
    spoken_seconds: float = 0.0
    work_seconds: float = 0.0

    def add(self, chunk: AudioChunk) -> float:
        """Count a chunk and return the seconds that it took."""
        work = chunk.timing.total - self.work_seconds
        self.work_seconds = chunk.timing.total
        self.spoken_seconds = chunk.timing.audio_seconds
        return work

    def remaining(self, chunk: AudioChunk) -> float | None:
        """Return the seconds to come after a chunk, or None if they are unknown."""
        bounds = []
        if self.expected_seconds is not None:
            bounds.append(max(self.expected_seconds - self.spoken_seconds, MIN_REMAINING))
        if self.max_frames is not None:
            frame_seconds = chunk.timing.audio_seconds / max(1, chunk.timing.frames)
            bounds.append(self.max_frames * frame_seconds - self.spoken_seconds)
        return min(bounds, default=None)


class SpeechOutput:
    """Takes the chunks of one or more texts and writes and plays them."""

    def __init__(self, name: str, writer: AudioWriter | None, player: Player | None) -> None:
        """name: shown for the target in the report."""
        self.name = name
        self.writer = writer
        self.player = player
        self.progress = Progress()
        self.has_output = False  # something was kept that is worth a report
        self._text = TextEstimate(None, None)
        self._told_of_waiting = False
        self._told_of_file = False

    @property
    def can_restart(self) -> bool:
        """True if nobody has heard anything: all of it goes to a file."""
        return self.player is None and self.writer is not None and self.writer.can_restart

    def restart(self) -> None:
        """Drop everything that was written. Raises AudioError."""
        if self.writer is not None:
            self.writer.restart()
        self.progress = Progress()

    def begin_text(self, text: str | None, max_frames: int | None) -> None:
        """Prepare for the chunks of a text.

        text: None if it is not known yet. max_frames: the most frames that it may take.
        """
        self._text = TextEstimate(None, max_frames)
        if text is not None:
            self._text.expected_seconds = len(text.encode()) / BYTES_PER_SECOND

    def write(self, chunk: AudioChunk, seconds: float | None = None) -> None:
        """Write and play the next chunk. Raises AudioError and PlaybackError.

        seconds: that the chunk took, if other texts were generated meanwhile; None takes the chunk's own timing.
        """
        work = self._text.add(chunk)
        if seconds is not None:
            work = seconds
        self.progress.add(chunk, work)
        if self.writer is not None:
            self.writer.write(chunk.audio)
            self._tell(self.writer.notice)
        if self.player is not None:
            # The time to the first audio includes the prompt's, which no later chunk takes.
            is_first = work == chunk.timing.total
            pace = chunk.timing.generation + chunk.timing.decode if is_first else work
            self._play(self.player, chunk, pace)

    def _tell(self, notice: str | None) -> None:
        """Print a notice of the writer once."""
        if notice is not None and not self._told_of_file:
            self._told_of_file = True
            note(notice)

    def _play(self, player: Player, chunk: AudioChunk, work: float) -> None:
        pause = chunk.is_final or chunk.text_ran_dry
        player.write(chunk.audio, work, self._text.remaining(chunk), pause=pause)
        is_waiting = not player.playing and player.speed and player.speed < 1 and player.buffered > MIN_WAIT
        if is_waiting and not self._told_of_waiting:
            self._told_of_waiting = True
            note(f"speech is generated at {player.speed:.2f}x real time here: playback waits so as not to run dry")

    def finish(self) -> None:
        """Finalize the file and drain the player."""
        if self.writer is not None:
            self.writer.close()
        self.has_output = self.progress.audio_seconds > 0
        if self.player is not None:
            self.player.drain()

    def abort(self, keep_partial: bool) -> None:
        """End after an error: keep the audio so far, or leave nothing behind and be silent now."""
        if self.writer is not None:
            if keep_partial and self.writer.seconds:
                self.writer.close()
                self.has_output = self.writer.is_kept
            else:
                self.writer.abort()
        if self.player is not None:
            if keep_partial:
                self.player.drain()
            else:
                self.player.abort()

    def report(self, show_stats: bool) -> None:
        """Print what was generated, if anything was kept."""
        if not self.has_output:
            return
        progress = self.progress
        ending = ENDINGS.get(progress.finish_reason, "")
        factor = progress.work_seconds / progress.audio_seconds
        note(
            f"{self.name}: {progress.frames} frames, {progress.audio_seconds:.2f} s of audio{ending} in "
            f"{progress.work_seconds:.2f} s, real-time factor {factor:.2f}, seed {progress.seed}"
        )
        if show_stats:
            self._report_stats()

    def _report_stats(self) -> None:
        first_audio = self.progress.first_audio
        peak = self.progress.peak_memory / 2**20
        note(f"time to first audio {1000 * first_audio:.0f} ms, peak memory {peak:.0f} MB")
        if self.player is not None and self.player.waited is not None:
            first_sound = first_audio + self.player.waited
            note(f"time to first sound {1000 * first_sound:.0f} ms, underruns {self.player.underruns}")


@contextmanager
def open_output(output: SpeechOutput) -> Iterator[tqdm]:
    """Show a progress line on a terminal; finalize the output on success, keep or discard it on an error."""
    try:
        # None: tqdm looks whether it writes to a terminal.
        is_disabled = None if sys.stderr else True
        with tqdm(bar_format="{desc}", disable=is_disabled, file=sys.stderr, leave=False) as bar:
            try:
                yield bar
                output.finish()
            except (BrokenPipeError, PlaybackError):
                raise
            except (Qwen3TTSError, OSError, RuntimeError, MemoryError):  # the last two are MLX's
                output.abort(keep_partial=True)
                raise
    except BaseException:  # Ctrl-C may come at any point of the above
        output.abort(keep_partial=False)
        raise
