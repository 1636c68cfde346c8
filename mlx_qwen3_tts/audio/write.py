"""Audio files: written whole, or while the audio is made."""

import io
import os
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import AudioError
from ..files import write_whole

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}
MOST_PADDING = 4096  # samples that a lossy format may add
WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def check_writable(path: str | os.PathLike) -> None:
    """Raise AudioError if audio cannot be written to `path`: found before the work, not after."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise AudioError(f"cannot write {path}: its name must end in {', '.join(FORMATS)}")
    try:
        if path.is_dir():
            raise AudioError(f"cannot write {path}: it is a directory")
        if path.exists() and not os.access(path, os.W_OK):
            raise AudioError(f"cannot write {path}: it is write-protected")
        if not path.exists() or path.is_file():
            with tempfile.TemporaryFile(dir=path.resolve().parent):
                pass
            (path.resolve().parent / f".{path.name}.part").exists()  # a name too long, or with a zero in it, shows here
    except (OSError, ValueError) as error:
        raise AudioError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def encode_audio(audio: np.ndarray, sample_rate: int, suffix: str) -> bytes:
    """The bytes of a file of float audio [samples] in -1 .. 1, in the format of `suffix` (".wav", ".mp3", ...)."""
    container, subtype = FORMATS[suffix.lower()]
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate, format=container, subtype=subtype)
    return buffer.getvalue()


def write_audio(path: str | os.PathLike, audio: np.ndarray, sample_rate: int) -> None:
    """Write float audio [samples] in -1 .. 1 in the format of the suffix. Raises AudioError."""
    path = Path(path)
    check_writable(path)
    try:
        write_whole(path, encode_audio(audio, sample_rate, path.suffix))
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


class AudioWriter:
    """A file that grows while the audio is made, under its name only at the end.

    WAV goes to a file or to a pipe (whose header leaves the length open), the other formats to a file. On an error of
    the disk what was written stays under its name if it can be read again, as a WAV always can.
    """

    def __init__(self, target: str | os.PathLike | BinaryIO, sample_rate: int) -> None:
        """target: a path, or a binary stream for WAV. Raises AudioError for a path that cannot be written."""
        self._sample_rate, self._samples = sample_rate, 0
        self._ours, self._open = not hasattr(target, "write"), True
        self._final = self._partial = self._encoder = None
        self._completed = False
        if self._ours:
            self.name, path = str(target), Path(target)
            check_writable(path)
            if path.is_file() or not path.exists():
                self._final = path.resolve()
                self._partial = self._final.with_name(f".{self._final.name}.{os.getpid()}.part")
            self._suffix = path.suffix.lower()
            self._file = open(self._partial or path, "wb", buffering=0)  # noqa: SIM115  (closed by close or abort)
        else:
            self.name, self._suffix, self._file = "standard output", ".wav", target
        self._begin()

    def _begin(self) -> None:
        """What a format asks for at its beginning."""
        try:
            if self._suffix == ".wav":
                self._write_all(wav_header(self._sample_rate, None))
            else:
                container, subtype = FORMATS[self._suffix]
                descriptor = self._file.fileno()
                self._encoder = soundfile.SoundFile(
                    descriptor, "w", self._sample_rate, 1, subtype, None, container, closefd=False
                )
        except BrokenPipeError:
            raise
        except (OSError, soundfile.SoundFileError) as error:
            self.abort()
            raise AudioError(f"cannot write {self.name}: {getattr(error, 'strerror', None) or error}") from None

    @property
    def can_start_over(self) -> bool:
        """What was written can be taken back: not from a pipe."""
        return self._partial is not None

    def start_over(self) -> None:
        """Take back what was written, and begin anew. Raises AudioError."""
        if self._encoder:
            self._encoder.close()
        self._file.seek(0)
        self._file.truncate()
        self._samples = 0
        self._begin()

    def _write_all(self, data: bytes) -> None:
        while data:  # a raw file may take a part
            data = data[self._file.write(data) :]

    def write(self, audio: np.ndarray) -> None:
        """Append float audio [samples] in -1 .. 1. Raises AudioError; what was written before is kept then."""
        try:
            if self._encoder:
                self._encoder.write(audio)
            else:
                self._write_all(pcm16(audio))
                if not self._ours:
                    self._file.flush()
        except BrokenPipeError:
            raise
        except (OSError, soundfile.SoundFileError) as error:
            reason = getattr(error, "strerror", None) or "the disk takes no more"
            kept = f"it holds the first {self.seconds:.2f} s" if self._keep() else "nothing was kept"
            raise AudioError(f"cannot write on to {self.name} ({reason}): {kept}") from None
        self._samples += len(audio)

    @property
    def seconds(self) -> float:
        """Seconds of audio written."""
        return self._samples / self._sample_rate

    def _keep(self) -> bool:
        """After an error: complete the file if that gives a readable one, else remove it."""
        try:
            self._complete()
            # A FLAC whose head could not be completed claims to be endless.
            frames = self._samples if self._partial is None else soundfile.info(str(self._partial)).frames
            whole = 0 < frames <= self._samples + MOST_PADDING
        except (OSError, soundfile.SoundFileError):
            whole = False
        if whole:
            self.close()
        else:
            self.abort()
        return whole

    def _complete(self) -> None:
        """What a format asks for at its end, once."""
        if self._completed:
            return
        self._completed = True
        if self._encoder:
            self._encoder.close()
        elif self._partial:
            self._file.seek(0)
            self._write_all(wav_header(self._sample_rate, self._samples))
            self._file.truncate(WAV_HEADER.size + 2 * self._samples)

    def close(self) -> None:
        """Complete the file and give it its name. Once closed or aborted, nothing more happens."""
        if not self._open:
            return
        self._complete()
        self._open = False
        if self._ours:
            self._file.close()
        if self._partial:
            os.replace(self._partial, self._final)

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._open and self._ours:
            self._open = False
            self._file.close()
            if self._partial:
                self._partial.unlink(missing_ok=True)


def pcm16(audio: np.ndarray) -> bytes:
    """Float audio in -1 .. 1 as 16-bit samples."""
    return np.rint(np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()


def wav_header(sample_rate: int, samples: int | None) -> bytes:
    """The header of a mono 16-bit WAV; None leaves the length open, as a stream must."""
    size = 0xFFFFFFFF if samples is None else 2 * samples
    about = (16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return WAV_HEADER.pack(b"RIFF", min(size + 36, 0xFFFFFFFF), b"WAVE", b"fmt ", *about, b"data", size)
