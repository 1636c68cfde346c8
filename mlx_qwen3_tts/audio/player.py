"""Plays audio while it is still being made.

    write(audio) ─ queue ─ callback of one output stream ─ loudspeaker

The caller's thread writes; the sound system's thread takes what it needs and sees nothing but numpy. The sound starts
as soon as it can be kept up: at once where speech is made faster than it is heard, else after as long a wait as the
measured speed asks for. Where it runs dry all the same, that is counted, and it waits again.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain, islice, repeat
from typing import Any, Protocol

import numpy as np

from ..errors import PlaybackError

RAMP_SECONDS = 0.005  # from silence to the first sample and back from the last: a jump would click
CAUTION = 0.9  # speech is taken to be made this much slower than was measured
HORIZON = 30.0  # seconds of speech to come that are planned for where nobody knows how much there will be
FULL = 60.0  # seconds of audio in the queue at which `write` waits
POLL = 0.02  # seconds between looks at the queue
PATIENCE = 3.0  # seconds without a sample taken after which a device is given up
LATENCY = 0.05  # seconds that the device may hold: so long it sounds on after Ctrl-C


class OutputStream(Protocol):
    """What sounddevice.OutputStream offers, and tests stand in for."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


Callback = Callable[[np.ndarray, int, Any, Any], None]
OpenStream = Callable[[int, Callback], OutputStream]


def wait_for(rate: float, chunks: Iterable[float], remaining: float) -> float:
    """Seconds of audio that must be in hand so that playing never catches up with making.

    rate: seconds of audio made in a second. chunks: lengths of the chunks to come. remaining: of all of them together.
    """
    made, needed = 0.0, 0.0
    for chunk in chunks:
        chunk = min(chunk, remaining - made)
        # Until this chunk is there, (made + chunk) / rate seconds pass, and what is in hand and was made are heard.
        needed = max(needed, (made + chunk) / rate - made)
        made += chunk
        if made >= remaining:
            break
    return needed


class Player:
    """One output stream and a queue before it."""

    def __init__(self, sample_rate: int, open_stream: OpenStream, chunk_seconds: Sequence[float]) -> None:
        """sample_rate: of the audio that is written. chunk_seconds: the lengths it comes in, the last for all further.

        open_stream: given the rate and the callback, an output stream; see `open_device`. Raises what it raises.
        """
        self.underruns = 0
        self.waited: float | None = None  # seconds from the first audio to the first sound
        self.playing = False
        self._chunk_seconds = list(chunk_seconds)
        self._chunks = 0  # of the present text
        self._queue: deque[tuple[np.ndarray, bool]] = deque()  # pieces, and whether they are audio or a ramp
        self._written = self._played = 0  # samples of audio
        self._first_written = 0.0  # when
        self._seconds = self._work = 0.0  # of audio, and what it took to make it
        self._pausing = True  # running dry is no fault now: a text has ended, or is still being written
        self._fresh = False  # the next sample comes after silence
        self._last = 0.0  # the sample that was heard last
        self._muted = False
        self._stream = open_stream(sample_rate, self._callback)
        self._rate = int(getattr(self._stream, "samplerate", sample_rate))  # of the device
        self._ramp = np.linspace(1, 0, max(2, int(RAMP_SECONDS * self._rate)), dtype=np.float32)[1:]
        self._resampler = None
        if self._rate != sample_rate:
            import soxr

            self._resampler = soxr.ResampleStream(sample_rate, self._rate, 1, dtype="float32")
        self._stream.start()

    # --- on the caller's thread ---

    @property
    def buffered(self) -> float:
        """Seconds of audio in hand."""
        return (self._written - self._played) / self._rate

    @property
    def speed(self) -> float | None:
        """Seconds of audio made in a second of work; None before there is any."""
        return self._seconds / max(self._work, 1e-6) if self._seconds else None

    def write(self, audio: np.ndarray, work: float, remaining: float | None = None, pause: bool = False) -> None:
        """Append float audio [samples]. Waits only where a minute of it is in hand.

        work: seconds that it took to make. remaining: seconds of audio still to come, as far as one can tell.
        pause: what comes next is not being made yet (the text has ended, or is waited for): begin with what there is.
        Raises PlaybackError where the device takes no more.
        """
        self._seconds += len(audio) / self._rate
        self._work += work
        self._chunks = 0 if pause else self._chunks + 1
        self._append(self._resampler.resample_chunk(audio) if self._resampler else audio)
        self._pausing = pause
        if self._written > self._played and not self.playing:
            self._start_if_safe(HORIZON if remaining is None else remaining)
        self._wait_while(lambda: self.playing and self.buffered > FULL)

    def _append(self, audio: np.ndarray) -> None:
        if len(audio):
            self._first_written = self._first_written or time.monotonic()
            self._queue.append((np.nan_to_num(np.array(audio, np.float32)), True))
            self._written += len(audio)

    def _start_if_safe(self, remaining: float) -> None:
        """Let the sound begin if what is in hand lasts."""
        schedule = chain(islice(self._chunk_seconds, self._chunks, None), repeat(self._chunk_seconds[-1]))
        if self._pausing or (self.speed and self.buffered >= wait_for(CAUTION * self.speed, schedule, remaining)):
            self._begin()

    def _begin(self) -> None:
        """The callback takes from the queue from now on."""
        if self._queue and not self.playing:
            if self.waited is None:
                self.waited = time.monotonic() - self._first_written
            self._fresh = True
            self.playing = True

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        """Sleep while `condition` holds; a device that takes nothing for long is given up."""
        played, since = self._played, time.monotonic()
        while condition() and not self._muted:
            time.sleep(POLL)
            if self._played != played:
                played, since = self._played, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise PlaybackError(f"the audio device took no sound for {PATIENCE:g} s: is it still there?")

    def drain(self) -> None:
        """All is written: play it to its end, then close the device. Raises PlaybackError where it takes no more."""
        if self._resampler:
            self._append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        self._pausing = True

        def unheard() -> bool:
            self._begin()  # again, should it have run dry just now
            return self._played < self._written or self._last != 0

        try:
            self._wait_while(unheard)
        except PlaybackError:
            self.abort()
            raise
        self._stream.stop()  # waits for what the device has taken
        self._stream.close()

    def mute(self) -> None:
        """Silence within a block of the device, from any thread."""
        self._muted = True

    def abort(self) -> None:
        """Silence now, and close the device."""
        self._muted = True
        self._stream.abort()
        self._stream.close()

    # --- on the sound system's thread ---

    def _callback(self, out: np.ndarray, frames: int, _time: object = None, status: object = None) -> None:
        """Fill `out` [frames, channels]."""
        filled = 0
        if self._muted:
            out[:] = 0
            return
        if getattr(status, "output_underflow", False):
            self.underruns += 1
        if self.playing and self._fresh and self._queue:
            self._fresh = False
            target = self._queue[0][0][0]
            self._queue.appendleft((target + (self._last - target) * self._ramp[:-1], False))
        while self.playing and filled < frames and self._queue:
            filled += self._take(out, filled, frames)
        if filled == frames:
            return
        if self.playing:  # dry: wait until it can be kept up again
            self.playing = False
            self.underruns += 0 if self._pausing else 1
        tail = self._last * self._ramp[: frames - filled]
        out[filled : filled + len(tail)] = tail[:, None]
        out[filled + len(tail) :] = 0
        self._last = float(tail[-1])

    def _take(self, out: np.ndarray, filled: int, frames: int) -> int:
        """Copy from the first piece of the queue; returns how many samples."""
        piece, is_audio = self._queue[0]
        count = min(frames - filled, len(piece))
        out[filled : filled + count] = piece[:count, None]
        if count == len(piece):
            self._queue.popleft()
        else:
            self._queue[0] = (piece[count:], is_audio)
        self._last = float(piece[count - 1])
        self._played += count if is_audio else 0
        return count


def open_device(device: str | None = None) -> OpenStream:
    """What opens an output device: one by its number or a part of its name, the system's own where it is None.

    The stream has the device's own rate where it refuses the one asked for, and two channels where it has no mono.
    Raises PlaybackError where there is no sound system, no device, or none of that name.
    """
    try:
        import sounddevice
    except OSError as error:
        raise PlaybackError(
            f"no sound system ({error}): install PortAudio (Debian: apt install libportaudio2), or write a file with -o"
        ) from None
    if device == "":
        raise PlaybackError("the device has no name; leave it out for the system's own")
    chosen = int(device) if device is not None and device.isdecimal() else device
    try:
        found = sounddevice.query_devices(chosen, "output")
    except (ValueError, sounddevice.PortAudioError):
        names = [f"{d['index']} {d['name']}" for d in sounddevice.query_devices() if d["max_output_channels"]]
        if not names:
            raise PlaybackError("there is no audio output device here: write a file with -o") from None
        raise PlaybackError(f"no output device {device!r}; there are: {', '.join(names)}") from None

    class Stream(sounddevice.OutputStream):
        """A stream that can be given up: a device that is gone has nothing left to stop."""

        def start(self) -> None:
            try:
                super().start()
            except sounddevice.PortAudioError as error:
                raise PlaybackError(f"the device {found['name']} does not start ({error}): choose another") from None

        def stop(self) -> None:
            with suppress(sounddevice.PortAudioError):
                super().stop()

        def abort(self) -> None:
            with suppress(sounddevice.PortAudioError):
                super().abort()

        def close(self) -> None:
            with suppress(sounddevice.PortAudioError):
                super().close()

    def open_stream(sample_rate: int, callback: Callback) -> OutputStream:
        reasons, options = [], {"device": chosen, "dtype": "float32", "callback": callback, "latency": LATENCY}
        for rate in dict.fromkeys((sample_rate, int(found["default_samplerate"]))):
            for channels in (1, 2):
                try:
                    return Stream(rate, channels=channels, **options)
                except sounddevice.PortAudioError as error:
                    reasons.append(str(error).split(" [")[0])
        raise PlaybackError(f"the device {found['name']} takes no audio ({reasons[0]}): choose another with --device")

    return open_stream
