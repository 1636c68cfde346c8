"""Plays audio while it is still being made.

    write(audio) ─ queue ─ callback of one output stream ─ loudspeaker

The caller's thread writes; the sound system's thread takes what it needs and sees nothing but numpy. The sound starts
as soon as it can be kept up: at once where speech is made faster than it is heard, else after as long a wait as the
measured speed asks for. Where it runs dry all the same, that is counted, and it waits again.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice, repeat
from typing import Any, Protocol

import numpy as np

from .errors import PlaybackError

RAMP_SECONDS = 0.005  # from silence to the first sample and back from the last: a jump would click
CAUTION = 0.9  # speech is taken to be made this much slower than was measured
HORIZON = 30.0  # seconds of speech to come that are planned for where nobody knows how much there will be
FULL = 60.0  # seconds of audio in the queue at which `write` waits
POLL = 0.02  # seconds between looks at the queue


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

        open_stream: given the rate and the callback, an output stream that has not begun; see `open_device`.
        """
        self.underruns = 0
        self.playing = False
        self._chunk_seconds = list(chunk_seconds)
        self._queue: deque[tuple[np.ndarray, bool]] = deque()  # pieces, and whether they are audio or a ramp
        self._written = self._played = 0  # samples of audio
        self._arrivals: list[tuple[float, int]] = []  # when, and how many samples had been written
        self._blocked = 0.0  # seconds that `write` waited: not the maker's fault
        self._ended = self._muted = False
        self._last = 0.0  # the sample that was heard last
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
        """Seconds of audio made in a second, since the first of it came; None before there are two pieces."""
        if len(self._arrivals) < 2:
            return None
        (began, first), (now, last) = self._arrivals[0], self._arrivals[-1]
        return (last - first) / self._rate / max(now - began, 1e-6)

    def write(self, audio: np.ndarray, remaining: float | None = None) -> None:
        """Append float audio [samples]. Waits only where a minute of it is in hand.

        remaining: seconds of audio still to come, as far as one can tell.
        """
        self._append(self._resampler.resample_chunk(audio) if self._resampler else audio)
        if self._written and not self.playing:
            self._start_if_safe(HORIZON if remaining is None else remaining)
        began = time.monotonic()
        while self.playing and self.buffered > FULL:
            time.sleep(POLL)
        self._blocked += time.monotonic() - began

    def _append(self, audio: np.ndarray) -> None:
        if len(audio):
            self._queue.append((np.array(audio, np.float32), True))
            self._written += len(audio)
            self._arrivals.append((time.monotonic() - self._blocked, self._written))

    def _start_if_safe(self, remaining: float) -> None:
        """Let the sound begin if what is in hand lasts."""
        if self.speed is None:
            return  # one piece tells nothing of the speed; the next is a frame away
        schedule = chain(islice(self._chunk_seconds, len(self._arrivals), None), repeat(self._chunk_seconds[-1]))
        if self.buffered >= wait_for(CAUTION * self.speed, schedule, remaining):
            self._begin()

    def _begin(self) -> None:
        """The callback takes from the queue from now on; first a ramp up to the first sample."""
        if self._queue and not self.playing:
            self._queue.appendleft((self._ramp[::-1] * self._queue[0][0][0], False))
            self.playing = True

    def drain(self) -> None:
        """All is written: play it to its end, then close the device."""
        if self._resampler:
            self._append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        self._ended = True
        self._begin()
        while (self._played < self._written or self._last) and not self._muted:
            time.sleep(POLL)
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

    def _callback(self, out: np.ndarray, frames: int, _time: object = None, _status: object = None) -> None:
        """Fill `out` [frames, channels]."""
        filled = 0
        if self._muted:
            out[:] = 0
            return
        while self.playing and filled < frames and self._queue:
            filled += self._take(out, filled, frames)
        if filled == frames:
            return
        if self.playing and not self._ended:  # dry: wait until it can be kept up again
            self.playing = False
            self.underruns += 1
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
    chosen = int(device) if device is not None and device.isdecimal() else device
    try:
        found = sounddevice.query_devices(chosen, "output")
    except (ValueError, sounddevice.PortAudioError):
        names = [f"{d['index']} {d['name']}" for d in sounddevice.query_devices() if d["max_output_channels"]]
        if not names:
            raise PlaybackError("there is no audio output device here: write a file with -o") from None
        raise PlaybackError(f"no output device {device!r}; there are: {', '.join(names)}") from None

    def open_stream(sample_rate: int, callback: Callback) -> OutputStream:
        reasons = []
        for rate in dict.fromkeys((sample_rate, int(found["default_samplerate"]))):
            for channels in (1, 2):
                try:
                    return sounddevice.OutputStream(
                        rate, device=chosen, channels=channels, dtype="float32", callback=callback
                    )
                except sounddevice.PortAudioError as error:
                    reasons.append(str(error).split(" [")[0])
        raise PlaybackError(f"the device {found['name']} takes no audio ({reasons[0]}): choose another with --device")

    return open_stream
