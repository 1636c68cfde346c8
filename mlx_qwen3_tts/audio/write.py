"""Audio files: written whole, or while the audio is generated.

    write_audio:  audio ─ encode_audio ─ a complete file
    open_writer:  chunks ─ AudioWriter ─┬─ WavFile       a WAV that grows
                                        ├─ WavPipe       a WAV of unknown length, for standard output or a pipe
                                        └─ EncodedFile   FLAC, OGG, MP3

A file appears under its name only when it is complete.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import AudioError
from ..files import PartialPath, is_regular, write_file
from .formats import FORMATS, WAV_HEADER_SIZE, encode_audio, pcm16, wav_header
from .sinks import FileSink, PipeSink, Sink


def check_writable(path: str | os.PathLike) -> None:
    """Raise AudioError if audio cannot be written to `path`; call it before the work."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise AudioError(f"cannot write {path}: its name must end in {', '.join(FORMATS)}")
    try:
        if path.is_dir():
            raise AudioError(f"cannot write {path}: it is a directory")
        if path.exists() and not os.access(path, os.W_OK):
            raise AudioError(f"cannot write {path}: it is write-protected")
        if is_regular(path):
            resolved = path.resolve()
            with tempfile.TemporaryFile(dir=resolved.parent):
                pass
            PartialPath(resolved).path.exists()  # raises if the name is too long, or contains a zero
    except (OSError, ValueError) as error:
        raise _write_error(path, error) from None


def _write_error(name: str | os.PathLike, error: Exception) -> AudioError:
    return AudioError(f"cannot write {name}: {getattr(error, 'strerror', None) or error}")


def write_audio(path: str | os.PathLike, audio: np.ndarray, sample_rate: int) -> None:
    """Write float audio [samples] in -1 .. 1 in the format of the suffix. Raises AudioError."""
    path = Path(path)
    check_writable(path)
    try:
        write_file(path, encode_audio(audio, sample_rate, path.suffix))
    except (OSError, soundfile.SoundFileError) as error:
        raise _write_error(path, error) from None


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
        self._num_samples = 0
        self._is_open = True
        try:
            self._begin()
        except BrokenPipeError:
            raise
        except (OSError, soundfile.SoundFileError) as error:
            self.abort()
            raise _write_error(name, error) from None

    @property
    def seconds(self) -> float:
        """Seconds of audio written."""
        return self._num_samples / self._sample_rate

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
            raise _write_error(self.name, error) from None

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
            raise _write_error(self.name, error) from None

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
    """A WAV file. While it grows, its header leaves the length open."""

    def __init__(self, name: str, sink: FileSink, sample_rate: int) -> None:
        self._file = sink
        super().__init__(name, sink, sample_rate)

    def _begin(self) -> None:
        self._file.write(wav_header(self._sample_rate, None))

    def _append(self, audio: np.ndarray) -> None:
        self._file.write(pcm16(audio))

    def _end(self) -> None:
        self._file.raw.seek(0)
        self._file.write(wav_header(self._sample_rate, self._num_samples))
        self._file.truncate(WAV_HEADER_SIZE + 2 * self._num_samples)  # drops an incomplete chunk


class EncodedFile(AudioWriter):
    """A FLAC, OGG or MP3 file."""

    def __init__(self, name: str, sink: Sink, sample_rate: int, suffix: str) -> None:
        self._format = FORMATS[suffix]
        super().__init__(name, sink, sample_rate)

    def _begin(self) -> None:
        container, subtype = self._format
        self._encoder = soundfile.SoundFile(
            self._sink.raw.fileno(), "w", self._sample_rate, 1, subtype, None, container, closefd=False
        )

    def _append(self, audio: np.ndarray) -> None:
        self._encoder.write(audio)

    def _end(self) -> None:
        self._encoder.close()  # does nothing the second time


def open_writer(target: str | os.PathLike | BinaryIO, sample_rate: int) -> AudioWriter:
    """Return a writer for a path, by its suffix, or for standard output, which gets a WAV.

    Raises AudioError if the target cannot be written.
    """
    if not isinstance(target, str | os.PathLike):
        return WavPipe("standard output", PipeSink(target, close=False), sample_rate)
    check_writable(target)
    path = Path(target)
    suffix = path.suffix.lower()
    try:
        sink = FileSink(path) if is_regular(path) else PipeSink.open(path)
    except OSError as error:
        raise _write_error(path, error) from None
    if suffix != ".wav":
        return EncodedFile(str(target), sink, sample_rate, suffix)
    if isinstance(sink, FileSink):
        return WavFile(str(target), sink, sample_rate)
    return WavPipe(str(target), sink, sample_rate)
