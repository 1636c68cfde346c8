"""The files in a zip archive that nobody vouches for, read into memory one at a time.

    path ─ GuardedFile ─ zipfile ─ Archive.read(name, limit)

Nothing is unpacked to disk, and names are only looked up, so that "../" leads nowhere. Every size is checked while it
is read, since an archive may lie about it.
"""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

from ..errors import DocumentError

MAX_DIRECTORY = 4 << 20  # bytes of the archive's own list of files: some 30,000 of them
MAX_PIECE = 1 << 20
MAX_TEXT = 64 << 20  # bytes of all files that are read, but pictures
DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, OverflowError, NotImplementedError,
    RuntimeError,
)  # fmt: skip


class GuardedFile(io.FileIO):
    """A file that refuses to be read in huge pieces, as zipfile reads an archive's list of files."""

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes. Raises DocumentError for too many."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MAX_DIRECTORY:
            raise DocumentError(f"{str(self.name)!r} lists too many files, or is damaged: it is not read as a book")
        return super().read(max(size, 0))


class Archive:
    """A zip archive that is open; a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises DocumentError if the file is not a zip archive."""
        self.path = path
        self._left = MAX_TEXT
        self._file = GuardedFile(path)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except DAMAGE as error:
            self._file.close()
            raise DocumentError(
                f"{str(path)!r} is not an EPUB, or is damaged ({error}): download or copy it again"
            ) from None
        except DocumentError:
            self._file.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._zip.NameToInfo

    def read(self, name: str, limit: int, text: bool = True) -> bytes:
        """Return a file's bytes. Raises DocumentError.

        limit: the most that it may have. text: it counts for MAX_TEXT.
        """
        pieces = []
        size = 0
        if text:
            limit = min(limit, self._left)
        try:
            info = self._zip.getinfo(name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DocumentError(f"{name} in {str(self.path)!r} is compressed in a way that EPUB does not allow")
            with self._zip.open(info) as file:
                while piece := file.read(MAX_PIECE):
                    size += len(piece)
                    if size > limit:
                        raise DocumentError(
                            f"{name} in {str(self.path)!r} has more than {limit:,} bytes: it is not read as a book"
                        )
                    pieces.append(piece)
        except KeyError:
            raise DocumentError(f"{str(self.path)!r} is incomplete: {name} is missing") from None
        except DAMAGE as error:
            raise DocumentError(
                f"{name} in {str(self.path)!r} is damaged or encrypted ({error}): download or copy the book again"
            ) from None
        if text:
            self._left -= size
        return b"".join(pieces)
