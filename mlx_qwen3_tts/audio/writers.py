"""Audio files that grow while the audio is generated; `open_writer` in write.py chooses one.

chunks ─ AudioWriter ─┬─ WavFile       a WAV that grows; RF64 beyond 4 GB
                      ├─ WavPipe       a WAV of unknown length, for standard output or a pipe
                      ├─ EncodedFile   what libsndfile encodes: FLAC, OGG, Opus, MP3, AIFF, CAF
                      └─ M4aFile       AAC in MP4, which PyAV encodes

A file appears under its name only when it is complete.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import soundfile

from ..errors import AudioError
from .formats import FORMATS, MAX_WAV_SIZE, RF64_HEADER_SIZE, WAV_HEADER_SIZE, pcm16, rf64_header, wav_header
from .pyav import audio_frame, error_text, load_pyav
from .sinks import FileSink, Sink

MAX_AIFF_SAMPLES = (MAX_WAV_SIZE - 4096) // 2  # its sizes have 32 bits; the headers take less than 4096 bytes
SHIFT_BLOCK = 2**24  # bytes
M4A_BIT_RATE = 64_000


def write_error(name: str | os.PathLike, error: Exception) -> AudioError:
    """Return the error for a target that cannot be written."""
    return AudioError(f"cannot write {name}: {getattr(error, 'strerror', None) or error}")


class AudioWriter(ABC):
    """Writes audio while it is generated. `open_writer` makes one.

    If the disk fails, what was written keeps its place if it can be read, as a WAV always can. After `close` or `abort`
    both do nothing.
    """

    def __init__(self, name: str, sink: Sink, sample_rate: int) -> None:
        """name: of the target, for error messages. Raises AudioError."""
        self.name = name
        self._sink = sink
        self._sample_rate = sample_rate
        self.is_kept = False  # the target is complete
        self._num_samples = 0
        self._is_open = True
        try:
            self._begin()
        except BrokenPipeError:
            raise
        except (OSError, soundfile.SoundFileError) as error:
            self.abort()
            raise write_error(name, error) from None

    @property
    def seconds(self) -> float:
        """Seconds of audio written."""
        return self._num_samples / self._sample_rate

    @property
    def notice(self) -> str | None:
        """What the user should know of the file by now."""
        return None

    @property
    def can_restart(self) -> bool:
        """True if `restart` is possible: not for a pipe."""
        return isinstance(self._sink, FileSink)

    def restart(self) -> None:
        """Drop everything that was written. Raises AudioError."""
        assert isinstance(self._sink, FileSink)
        try:
            self._end()
            self._sink.truncate(0)
            self._num_samples = 0
            self._begin()
        except (OSError, soundfile.SoundFileError) as error:
            self.abort()
            raise write_error(self.name, error) from None

    def write(self, audio: np.ndarray) -> None:
        """Append float audio [samples] in -1 .. 1. Raises AudioError; the audio before is kept if possible."""
        try:
            self._append(audio)
        except BrokenPipeError:
            raise
        except (OSError, soundfile.SoundFileError) as error:
            raise self._failure(error) from None
        self._num_samples += len(audio)

    def close(self) -> None:
        """Complete the file and give it its name. Raises AudioError."""
        if not self._is_open:
            return
        try:
            self._end()
        except BrokenPipeError:
            raise
        except (OSError, soundfile.SoundFileError) as error:
            raise self._failure(error) from None
        self._commit()

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._is_open:
            self._is_open = False
            self._sink.discard()

    def _commit(self) -> None:
        self._is_open = False
        try:
            self._sink.commit()
        except OSError as error:
            self._sink.discard()
            raise write_error(self.name, error) from None
        self.is_kept = True

    def _failure(self, error: Exception) -> AudioError:
        """Close the writer after an error, keeping what can be read, and return the error to raise."""
        try:
            self._end()
            is_kept = self._sink.has_audio(self._num_samples)
        except (OSError, soundfile.SoundFileError):
            is_kept = False
        if is_kept:
            self._commit()
        else:
            self.abort()
        reason = getattr(error, "strerror", None) or "the disk is full or failing"
        outcome = f"the first {self.seconds:.2f} s were kept" if is_kept else "nothing was kept"
        return AudioError(f"cannot write {self.name} to its end ({reason}): {outcome}")

    @abstractmethod
    def _begin(self) -> None:
        """Write what precedes the audio. Raises OSError and SoundFileError."""

    @abstractmethod
    def _append(self, audio: np.ndarray) -> None:
        """Write audio. Raises OSError and SoundFileError."""

    @abstractmethod
    def _end(self) -> None:
        """Write what follows the audio, so that the file can be read; may be repeated. Raises as `_append`."""


class WavPipe(AudioWriter):
    """A WAV whose header leaves the length open."""

    def _begin(self) -> None:
        self._sink.write(wav_header(self._sample_rate, None))

    def _append(self, audio: np.ndarray) -> None:
        self._sink.write(pcm16(audio))

    def _end(self) -> None:
        pass


class WavFile(AudioWriter):
    """A WAV file, which `close` makes an RF64 file if it is larger than a WAV may be.

    While it grows, its header leaves the length open.
    """

    def __init__(self, name: str, sink: FileSink, sample_rate: int) -> None:
        self._file = sink
        self._header_size = WAV_HEADER_SIZE
        super().__init__(name, sink, sample_rate)

    @property
    def notice(self) -> str | None:
        if not self._is_too_large:
            return None
        return (
            f"{self.name} has more than the 4 GB of a WAV file: it becomes an RF64 file, whose header has room for its "
            "length"
        )

    @property
    def _is_too_large(self) -> bool:
        return WAV_HEADER_SIZE + 2 * self._num_samples > MAX_WAV_SIZE

    def _begin(self) -> None:
        self._header_size = WAV_HEADER_SIZE
        self._file.write(wav_header(self._sample_rate, None))

    def _append(self, audio: np.ndarray) -> None:
        self._file.write(pcm16(audio))

    def _end(self) -> None:
        self._file.truncate(self._header_size + 2 * self._num_samples)  # drops an incomplete chunk
        if self._is_too_large and not self._make_room():
            return  # the disk is full: what is there can be read, as its header leaves the length open
        header = rf64_header if self._is_too_large else wav_header
        self._file.raw.seek(0)
        self._file.write(header(self._sample_rate, self._num_samples))

    def _make_room(self) -> bool:
        """Move the samples back, so that the larger header of RF64 fits; return False if the disk is full."""
        gap = RF64_HEADER_SIZE - self._header_size
        if gap == 0:
            return True
        end = self._header_size + 2 * self._num_samples
        try:
            self._file.truncate(end)
            self._file.write(bytes(gap))
        except OSError:
            self._file.truncate(end)
            return False
        while end > self._header_size:
            start = max(self._header_size, end - SHIFT_BLOCK)
            block = self._file.read(start, end - start)
            self._file.raw.seek(start + gap)
            self._file.write(block)
            end = start
        self._header_size += gap
        return True


class EncodedFile(AudioWriter):
    """A file that libsndfile encodes."""

    def __init__(self, name: str, sink: Sink, sample_rate: int, suffix: str) -> None:
        self._format = FORMATS[suffix]
        self._max_samples = MAX_AIFF_SAMPLES if suffix == ".aiff" else None
        super().__init__(name, sink, sample_rate)

    def _begin(self) -> None:
        container, subtype = self._format
        self._encoder = soundfile.SoundFile(
            self._sink.raw.fileno(), "w", self._sample_rate, 1, subtype, None, container, closefd=False
        )

    def _append(self, audio: np.ndarray) -> None:
        if self._max_samples is not None and self._num_samples + len(audio) > self._max_samples:
            raise OSError(0, "an AIFF file ends at 4 GB: choose wav or caf")
        self._encoder.write(audio)

    def _end(self) -> None:
        self._encoder.close()  # does nothing the second time

    def abort(self) -> None:
        # Before its descriptor is closed: an encoder that is closed later writes into the file that gets the number.
        with suppress(OSError, soundfile.SoundFileError, AttributeError):  # it may not be open
            self._end()
        super().abort()


class M4aFile(AudioWriter):
    """AAC in an MP4 file, which can be read when it is complete only."""

    def __init__(self, name: str, sink: FileSink, sample_rate: int) -> None:
        self._file = sink
        self._av = load_pyav("the format m4a")
        super().__init__(name, sink, sample_rate)

    def _begin(self) -> None:
        # The index comes first, so that players can begin before they have the whole file.
        options = {"movflags": "+faststart", "brand": "M4A ", "movie_timescale": str(self._sample_rate)}
        with self._as_os_error():
            self._container = self._av.open(f"file:{self._file.path}", "w", format="mp4", options=options)
            self._container.flags |= self._av.container.Flags.bitexact.value  # no version and no date
            self._stream = self._container.add_stream("aac", rate=self._sample_rate, layout="mono", format="fltp")
            self._stream.bit_rate = M4A_BIT_RATE
            self._container.start_encoding()
        self._is_complete = False

    def _append(self, audio: np.ndarray) -> None:
        if len(audio):
            with self._as_os_error():
                self.encode(audio_frame(self._av, audio, "fltp", self._sample_rate, self._num_samples))

    def _end(self) -> None:
        if self._is_complete:
            return
        self._is_complete = True
        with self._as_os_error():
            self.encode(None)
            self._container.close()

    def abort(self) -> None:
        with suppress(OSError, AttributeError):  # it may not be open
            self._end()
        super().abort()

    def encode(self, frame: object) -> None:
        """Encode a frame of PyAV and write the packets that are complete; None: write all that is held back."""
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    @contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except (self._av.FFmpegError, UnicodeError) as error:
            raise OSError(getattr(error, "errno", 0), error_text(error)) from None
