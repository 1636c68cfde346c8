"""Playback of audio while it is being generated.

    write(audio) ─ queue ─ callback of one output stream ─ loudspeaker

The caller's thread writes; the sound system's thread takes from the queue and touches nothing but numpy. Playback
starts as soon as it will not underrun: at once if generation is faster than real time, otherwise after a delay that
depends on the measured speed. An underrun all the same is counted, and playback prebuffers again.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain, islice, product, repeat
from typing import Any, Protocol

import numpy as np
import soxr

from ..errors import PlaybackError

RAMP_SECONDS = 0.005  # from silence to the first sample and back from the last, because a jump would click
SPEED_MARGIN = 0.9  # the share of the measured speed that prebuffering relies on
DEFAULT_REMAINING = 30.0  # seconds of speech to come that are planned for if their number is unknown
MAX_QUEUE_SECONDS = 60.0  # seconds of audio in the queue at which `write` waits
POLL_SECONDS = 0.02  # between looks at the queue
MAX_STALL_SECONDS = 3.0  # a device that takes no sample for this long is given up
LATENCY_SECONDS = 0.05  # seconds of audio that the device may hold: it sounds for so long after Ctrl-C


class OutputStream(Protocol):
    """The part of sounddevice.OutputStream that Player uses."""

    @property
    def samplerate(self) -> float: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


Callback = Callable[[np.ndarray, int, object, object], None]  # output [frames, channels], frames, time, status
OpenStream = Callable[[int, Callback], OutputStream]  # sample rate, callback


def prebuffer_seconds(speed: float, chunks: Iterable[float], remaining: float) -> float:
    """Return the seconds of audio to prebuffer so that playback does not underrun.

    speed: seconds of audio generated per second. chunks: seconds of each chunk to come. remaining: seconds of all of
    them together.
    """
    generated = 0.0
    needed = 0.0
    for chunk in chunks:
        chunk = min(chunk, remaining - generated)
        # This chunk arrives after (generated + chunk) / speed seconds, which the audio before it must last.
        needed = max(needed, (generated + chunk) / speed - generated)
        generated += chunk
        if generated >= remaining:
            break
    return needed


class Player:
    """An output stream and the queue that feeds it."""

    def __init__(self, sample_rate: int, open_stream: OpenStream, chunk_seconds: Sequence[float]) -> None:
        """Open the output stream.

        sample_rate: of the audio. open_stream: from `open_device`; its errors are raised here. chunk_seconds: the
        lengths of a text's first chunks, the last one of all further chunks.
        """
        self.underruns = 0
        self.waited: float | None = None  # seconds from the first audio to the first sound
        self.playing = False
        self._chunk_seconds = list(chunk_seconds)
        self._num_chunks = 0  # chunks of the current text
        self._queue: deque[tuple[np.ndarray, bool]] = deque()  # pieces, and whether they are audio or a ramp
        self._num_written = 0  # samples of audio
        self._num_played = 0
        self._first_write_time = 0.0
        self._audio_seconds = 0.0
        self._work_seconds = 0.0  # spent on generating it
        self._pausing = True  # an empty queue is not an underrun: a text has ended, or is still being written
        self._after_silence = False  # the next sample needs a ramp
        self._last_sample = 0.0  # the one heard last
        self._muted = False
        self._stream = open_stream(sample_rate, self._callback)
        self._rate = int(self._stream.samplerate)
        ramp_length = max(2, int(RAMP_SECONDS * self._rate))
        self._ramp = np.linspace(1, 0, ramp_length, dtype=np.float32)[1:]
        self._resampler = None
        if self._rate != sample_rate:
            self._resampler = soxr.ResampleStream(sample_rate, self._rate, 1, dtype="float32")
        self._stream.start()

    # --- on the caller's thread ---

    @property
    def buffered(self) -> float:
        """Seconds of audio in the queue."""
        return (self._num_written - self._num_played) / self._rate

    @property
    def played(self) -> float:
        """Seconds of audio that the device has taken."""
        return self._num_played / self._rate

    @property
    def speed(self) -> float | None:
        """Seconds of audio generated per second of work; None before the first."""
        if not self._audio_seconds:
            return None
        return self._audio_seconds / max(self._work_seconds, 1e-6)

    def write(self, audio: np.ndarray, work: float, remaining: float | None = None, pause: bool = False) -> None:
        """Append float audio [samples]. Blocks while the queue holds a minute of audio.

        work: seconds spent on generating it. remaining: an estimate of the seconds of audio still to come.
        pause: the next audio is not being generated yet (the text has ended, or is not written yet), so playback starts
        with what there is.
        Raises PlaybackError if the device takes no more audio.
        """
        self._audio_seconds += len(audio) / self._rate
        self._work_seconds += work
        self._num_chunks = 0 if pause else self._num_chunks + 1
        if self._resampler:
            audio = self._resampler.resample_chunk(audio)
        self._append(audio)
        self._pausing = pause
        if self._num_written > self._num_played and not self.playing:
            if remaining is None:
                remaining = DEFAULT_REMAINING
            self._start_if_safe(remaining)
        self._wait_while(lambda: self.playing and self.buffered > MAX_QUEUE_SECONDS)

    def _append(self, audio: np.ndarray) -> None:
        if len(audio):
            self._first_write_time = self._first_write_time or time.monotonic()
            self._queue.append((np.nan_to_num(np.array(audio, np.float32)), True))
            self._num_written += len(audio)

    def _start_if_safe(self, remaining: float) -> None:
        """Start playback if the queue lasts until the audio to come is there."""
        if self._pausing:
            self._start()
        elif self.speed is not None:
            chunks = chain(islice(self._chunk_seconds, self._num_chunks, None), repeat(self._chunk_seconds[-1]))
            if self.buffered >= prebuffer_seconds(SPEED_MARGIN * self.speed, chunks, remaining):
                self._start()

    def _start(self) -> None:
        """Let the callback take from the queue from now on."""
        if self._queue and not self.playing:
            if self.waited is None:
                self.waited = time.monotonic() - self._first_write_time
            self._after_silence = True
            self.playing = True

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        """Sleep while `condition` holds. Raises PlaybackError if the device takes nothing for too long."""
        num_played = self._num_played
        since = time.monotonic()
        while condition() and not self._muted:
            time.sleep(POLL_SECONDS)
            if self._num_played != num_played:
                num_played = self._num_played
                since = time.monotonic()
            elif time.monotonic() - since > MAX_STALL_SECONDS:
                raise PlaybackError(
                    f"the audio device has taken no sound for {MAX_STALL_SECONDS:g} s: is it still connected?"
                )

    def drain(self) -> None:
        """Play the queue to its end and close the device. Raises PlaybackError if the device takes no more audio."""
        if self._resampler:
            self._append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        self._pausing = True

        def is_playing() -> bool:
            self._start()  # again, if the queue has just run empty
            return self._num_played < self._num_written or self._last_sample != 0

        try:
            self._wait_while(is_playing)
        except PlaybackError:
            self.abort()
            raise
        self._stream.stop()  # waits for what the device has taken
        self._stream.close()

    def mute(self) -> None:
        """Be silent within one block of the device; may be called from any thread."""
        self._muted = True

    def abort(self) -> None:
        """Be silent now and close the device."""
        self._muted = True
        self._stream.abort()
        self._stream.close()

    # --- on the sound system's thread ---

    def _callback(self, out: np.ndarray, frames: int, _time: object = None, status: object = None) -> None:
        """Fill `out` [frames, channels]."""
        if self._muted:
            out[:] = 0
            return
        if getattr(status, "output_underflow", False):
            self.underruns += 1
        if self.playing and self._after_silence and self._queue:
            self._ramp_up()
        filled = 0
        while self.playing and filled < frames and self._queue:
            filled += self._take(out, filled, frames)
        if filled < frames:
            self._ramp_down(out, filled, frames)

    def _ramp_up(self) -> None:
        """Put a ramp from the last sample heard to the first one of the queue before it."""
        self._after_silence = False
        first = self._queue[0][0][0]
        self._queue.appendleft((first + (self._last_sample - first) * self._ramp[:-1], False))

    def _ramp_down(self, out: np.ndarray, filled: int, frames: int) -> None:
        """Fill the rest of `out` after the queue has run empty, and wait until playback is safe again."""
        if self.playing:
            self.playing = False
            if not self._pausing:
                self.underruns += 1
        tail = self._last_sample * self._ramp[: frames - filled]
        out[filled : filled + len(tail)] = tail[:, None]
        out[filled + len(tail) :] = 0
        self._last_sample = float(tail[-1])

    def _take(self, out: np.ndarray, filled: int, frames: int) -> int:
        """Copy from the first piece of the queue; return the number of samples."""
        piece, is_audio = self._queue[0]
        count = min(frames - filled, len(piece))
        out[filled : filled + count] = piece[:count, None]
        if count == len(piece):
            self._queue.popleft()
        else:
            self._queue[0] = (piece[count:], is_audio)
        self._last_sample = float(piece[count - 1])
        if is_audio:
            self._num_played += count
        return count


class DeviceStream:
    """A stream of sounddevice. If its device disappears, `stop`, `abort` and `close` have nothing left to do."""

    def __init__(self, stream: OutputStream, device_name: str, device_error: type[Exception]) -> None:
        """device_error: the exception that `stream` raises."""
        self._stream = stream
        self._device_name = device_name
        self._device_error = device_error

    @property
    def samplerate(self) -> float:
        """Samples per second."""
        return self._stream.samplerate

    def start(self) -> None:
        """Start playback. Raises PlaybackError."""
        try:
            self._stream.start()
        except self._device_error as error:
            raise PlaybackError(f"the device {self._device_name} does not start ({error}): choose another") from None

    def stop(self) -> None:
        """Play what the device has taken, and stop."""
        with suppress(self._device_error):
            self._stream.stop()

    def abort(self) -> None:
        """Stop at once."""
        with suppress(self._device_error):
            self._stream.abort()

    def close(self) -> None:
        """Release the device."""
        with suppress(self._device_error):
            self._stream.close()


def open_device(device: str | None = None) -> OpenStream:
    """Find an output device and return the function that opens a stream on it.

    device: its number or a part of its name; None takes the system's default.
    The stream has the device's own rate if it refuses the requested one, and two channels if it refuses mono.
    Raises PlaybackError if there is no sound system, no output device, or none of that name.
    """
    if device == "":
        raise PlaybackError("the name of the device is empty; leave it out for the default device")
    try:
        import sounddevice
    except OSError as error:
        raise PlaybackError(
            f"no sound system ({error}): install PortAudio (Debian: apt install libportaudio2)"
        ) from None
    chosen = int(device) if device is not None and device.isdecimal() else device
    try:
        found = sounddevice.query_devices(chosen, "output")
    except (ValueError, sounddevice.PortAudioError):
        raise _unknown_device(device, sounddevice.query_devices()) from None
    name = found["name"]
    device_rate = int(found["default_samplerate"])

    def open_stream(sample_rate: int, callback: Callback) -> OutputStream:
        reasons = []
        for rate, channels in product(dict.fromkeys((sample_rate, device_rate)), (1, 2)):
            try:
                stream = sounddevice.OutputStream(
                    rate, channels=channels, device=chosen, dtype="float32", callback=callback, latency=LATENCY_SECONDS
                )
            except sounddevice.PortAudioError as error:
                reasons.append(str(error).split(" [")[0])
            else:
                return DeviceStream(stream, name, sounddevice.PortAudioError)
        raise PlaybackError(f"the device {name} takes no audio ({reasons[0]}): choose another device")

    return open_stream


def _unknown_device(device: str | None, devices: Iterable[dict[str, Any]]) -> PlaybackError:
    """Return the error for a device that was not found among `devices`."""
    names = [f"{entry['index']} {entry['name']}" for entry in devices if entry["max_output_channels"]]
    if not names:
        return PlaybackError("there is no audio output device here: connect one")
    return PlaybackError(f"no output device {device!r}; choose from: {', '.join(names)}")
