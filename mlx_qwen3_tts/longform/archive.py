"""The files in a zip archive that nobody vouches for, read into memory one at a time.

    path ─ GuardedFile ─ zipfile ─ Archive.read(name, limit)

Nothing is unpacked to disk, and names are only looked up, so that "../" leads nowhere. Every size is checked while it
is read, since an archive may lie about it. What all files of a book may have together is counted here, too.
"""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

from ..errors import DocumentError
from .links import loose, resolve

MAX_DIRECTORY = 4 << 20  # bytes of the archive's own list of files: some 30,000 of them
MAX_FILES = 20_000  # a long study Bible has some 5,000
MAX_PIECE = 1 << 20
MAX_TEXT = 64 << 20  # bytes of all files that are read, but pictures
MAX_TAGS = 1_000_000  # tags of all files, up to 50 us each: a novel has 50,000, a Bible with a tag a verse 500,000
MAX_ENTITIES = 4_000_000  # in all files, 4 us each: a Chinese novel may have one for each of its 500,000 letters
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
        self._num_tags = 0
        self._num_entities = 0
        self._file = GuardedFile(path)
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._list_files()
        except DAMAGE as error:
            self._file.close()
            raise DocumentError(
                f"{str(path)!r} is not an EPUB, or is damaged ({error}): download or copy it again"
            ) from None
        except DocumentError:
            self._file.close()
            raise

    def _list_files(self) -> None:
        """Note the files by name. Raises DocumentError for too many."""
        infos = self._zip.infolist()
        if len(infos) > MAX_FILES:
            raise DocumentError(f"{str(self.path)!r} lists more than {MAX_FILES:,} files: it is not read as a book")
        self._files: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.filename.replace("\\", "/")
            if not name.endswith("/") and (name == info.filename or name not in self._files):
                self._files[name] = info
        self._loose: dict[str, str] = {}
        for name in self._files:
            key = loose(name)
            self._loose[key] = "" if key in self._loose else name

    def __enter__(self) -> "Archive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def find(self, name: str) -> str:
        """Return the name as the archive has it, or "".

        A name that only differs in case, slashes or encoding is taken if there is no other such.
        """
        if name in self._files:
            return name
        return self._loose.get(loose(name), "")

    def locate(self, base: str, href: str) -> tuple[str, str]:
        """Return the file and the fragment in it that a link in the file `base` leads to, there or not: see resolve."""
        name, fragment = resolve(base, href)
        return self.find(name) or name, fragment

    def count_markup(self, markup: str, name: str) -> None:
        """Count the tags and entities of a file. Raises DocumentError if those of all files are too many."""
        self._num_tags += markup.count("<")
        self._num_entities += markup.count("&")
        if self._num_tags > MAX_TAGS or self._num_entities > MAX_ENTITIES:
            raise DocumentError(
                f"{str(self.path)!r} has more than {MAX_TAGS:,} tags or {MAX_ENTITIES:,} entities up to {name}: split "
                "the book to read it"
            )

    def read(self, name: str, limit: int, text: bool = True) -> bytes:
        """Return a file's bytes. Raises DocumentError.

        limit: the most that it may have. text: it counts for MAX_TEXT.
        """
        pieces = []
        size = 0
        if text:
            limit = min(limit, self._left)
        try:
            info = self._files[name]
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
