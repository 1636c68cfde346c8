"""Where the bytes of an AudioWriter go: a file that appears when it is complete, or a pipe."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

import soundfile

from ..files import PartialPath

MAX_PADDING = 4096  # samples that a lossy format may add


class Sink(ABC):
    """Takes the bytes of an AudioWriter."""

    raw: BinaryIO

    def write(self, data: bytes) -> None:
        """Write all of `data`. Raises OSError."""
        while data:  # an unbuffered file may take a part
            data = data[self.raw.write(data) :]
        self.raw.flush()

    @abstractmethod
    def has_audio(self, num_samples: int) -> bool:
        """Return whether the `num_samples` written so far can be read. Raises OSError and SoundFileError."""

    @abstractmethod
    def commit(self) -> None:
        """Close the sink and keep what was written. Raises OSError."""

    @abstractmethod
    def discard(self) -> None:
        """Close the sink and leave nothing behind, as far as possible."""


class FileSink(Sink):
    """A regular file that grows under a temporary name."""

    def __init__(self, path: Path) -> None:
        self._partial = PartialPath(path.resolve())
        self.raw = open(self._partial.path, "w+b", buffering=0)  # noqa: SIM115  (closed by commit or discard)

    @property
    def path(self) -> Path:
        """The temporary name."""
        return self._partial.path

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes of what was written. Raises OSError."""
        self.raw.seek(start)
        data = b""
        while len(data) < size:  # an unbuffered file may give a part
            part = self.raw.read(size - len(data))
            if not part:
                raise OSError(0, "the file has become shorter")
            data += part
        return data

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes and continue there. Raises OSError."""
        self.raw.truncate(size)
        self.raw.seek(size)

    def has_audio(self, num_samples: int) -> bool:
        frames = soundfile.info(str(self._partial.path)).frames
        # A FLAC file with an unfinished header claims to be endless.
        return 0 < frames <= num_samples + MAX_PADDING

    def commit(self) -> None:
        self.raw.close()
        self._partial.commit()

    def discard(self) -> None:
        self.raw.close()
        self._partial.discard()


class PipeSink(Sink):
    """Standard output, a pipe or a device: what is written cannot be taken back."""

    def __init__(self, raw: BinaryIO, close: bool) -> None:
        """close: the stream at the end."""
        self.raw = raw
        self._close = close

    @classmethod
    def open(cls, path: Path) -> "PipeSink":
        """Open a named pipe or a device. Raises OSError."""
        return cls(path.open("wb", buffering=0), close=True)

    def has_audio(self, num_samples: int) -> bool:
        return num_samples > 0

    def commit(self) -> None:
        if self._close:
            self.raw.close()

    def discard(self) -> None:
        self.commit()
