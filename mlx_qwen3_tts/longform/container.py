"""The audio of a book: one file with chapters, or a folder with a file for each chapter.

begin_chapter, write, write, begin_chapter, ... ─ BookWriter ─┬─ novel.m4b
                                                              └─ novel/01 The Beginning.mp3, ...

Audio goes to disk at once; memory does not grow, except for the index of MP4 files, some 6 MB an hour. Nothing appears
under its name before the book is complete.
"""

import os
import tempfile
from pathlib import Path

import numpy as np

from ..audio.encode import PACKET_FORMATS
from ..audio.pyav import load_pyav
from ..errors import BookError
from ..files import PartialPath, WholeOrNothing
from .media_file import FORMATS, MediaFile
from .tags import ChapterMark, Metadata, clean, open_cover

DEFAULT_FOLDER_FORMAT = "mp3"
_MAX_NAME_BYTES = 120  # bytes of a chapter's title in a file name; file systems take 255 for the whole name
_SPACES_IN_NAMES = str.maketrans(dict.fromkeys('/\\:*?"<>|', " "))  # in place of what some systems refuse


def find_format(target: Path, folder_format: str | None = None) -> tuple[str, bool]:
    """Return the suffix of the audio (one of FORMATS), and whether it goes to a folder.

    A target is a folder if it exists as one, has no suffix, or if folder_format ("mp3", ...) is given.
    Raises BookError, also for a new folder with the suffix of a file.
    """
    formats = ", ".join(suffix[1:] for suffix in FORMATS)
    if folder_format is not None or os.path.isdir(target) or not target.suffix:
        suffix = f".{folder_format or DEFAULT_FOLDER_FORMAT}".lower()
        if suffix not in FORMATS:
            raise BookError(f"folder_format must be one of {formats}, not {folder_format!r}", "folder_format")
        if os.path.exists(target) and not os.path.isdir(target):
            raise BookError(f"cannot write {target}: it is a file, and a file for each chapter needs a folder")
        if target.suffix.lower() in FORMATS and not os.path.isdir(target):
            raise BookError(
                f"cannot write {target}: its name is that of a file; leave the suffix out, or folder_format",
                "folder_format",
            )
        return suffix, True
    if target.suffix.lower() not in FORMATS:
        raise BookError(f"cannot write {target}: its name must end in {', '.join(FORMATS)}; a folder's in nothing")
    return target.suffix.lower(), False


def check_target(target: str | os.PathLike, folder_format: str | None = None) -> None:
    """Raise BookError if a book cannot be written to `target`; call it before the work."""
    path = Path(target)
    find_format(path, folder_format)
    load_pyav("a book")
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise BookError(
                f"cannot write {path}: it is a pipe or a device, and a book's chapters are written at its end"
            )
        if path.exists() and not os.access(path, os.W_OK):
            raise BookError(f"cannot write {path}: it is write-protected")
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
        PartialPath(path.resolve()).check()
    except (OSError, ValueError) as error:
        raise BookError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


class BookWriter(WholeOrNothing):
    """Writes a book. As a context manager it closes at the end of the block, and aborts if that raises."""

    def __init__(
        self,
        target: str | os.PathLike,
        sample_rate: int,
        metadata: Metadata,
        bit_rate: int | None = None,
        folder_format: str | None = None,
        num_chapters: int | None = None,
    ) -> None:
        """target: a file, by its suffix, or a folder (see find_format), in which files of other names stay.

        bit_rate: bits per second; None is the format's default. FLAC and WAV ignore it.
        num_chapters: of the whole book, for the names and track numbers in a folder.
        Raises BookError.
        """
        check_target(target, folder_format)
        self._target = Path(target).resolve()
        self._suffix, self._is_folder = find_format(self._target, folder_format)
        self._sample_rate = sample_rate
        self._metadata = metadata
        self._bit_rate = bit_rate
        self._num_chapters = num_chapters
        self._number = 0
        self._titles: list[str] = []
        self._starts: list[int] = []
        self._num_samples = 0
        self._file: MediaFile | None = None
        self._is_open = True
        self._check_arguments()
        self._partial = PartialPath(self._target)
        try:
            if self._is_folder:
                self._partial.path.mkdir()
            else:
                self._file = self._open(self._partial.path)
        except (OSError, BookError) as error:
            raise self._failure(error) from None

    def _check_arguments(self) -> None:
        if self._metadata.cover is not None:
            open_cover(self._metadata.cover).close()
        codec = FORMATS[self._suffix].codec
        rates = next((known.sample_rates for known in PACKET_FORMATS.values() if known.codec == codec), ())
        if rates and self._sample_rate not in rates:
            raise BookError(
                f"{self._suffix} has sample rates of {', '.join(map(str, rates))}, not {self._sample_rate}",
                "sample_rate",
            )

    @property
    def num_samples(self) -> int:
        """Samples written, over all chapters."""
        return self._num_samples

    def begin_chapter(self, title: str, number: int | None = None) -> None:
        """Begin a chapter with the next sample. A chapter without any audio is left out.

        number: of its file in a folder; None counts on. Raises BookError.
        """
        if number is None:
            number = len(self._titles) + 1
        self._number = number
        self._titles.append(clean(title) or str(number))
        self._starts.append(self._num_samples)
        if self._is_folder:
            self._end_file()
            track = str(number)
            if self._num_chapters is not None:
                track += f"/{self._num_chapters}"
            try:
                self._file = self._open(self._partial.path / self.chapter_file_name, self._titles[-1], track)
            except BookError as error:
                raise self._failure(error) from None

    def write(self, audio: np.ndarray) -> None:
        """Append float audio [samples] in -1 .. 1; before the first chapter it makes one with the book's title.

        Raises BookError; nothing is left behind then.
        """
        if not self._titles:
            self.begin_chapter(self._metadata.title)
        assert self._file is not None
        try:
            self._file.write(audio)
        except BookError as error:
            raise self._failure(error) from None
        self._num_samples += len(audio)

    def close(self) -> None:
        """Complete the book and give it its name. Raises BookError."""
        if not self._is_open:
            return
        if self._num_samples == 0:
            raise self._failure(BookError("there is no audio"))
        self._end_file()
        try:
            self._commit()
        except OSError as error:
            raise self._failure(error) from None
        self._is_open = False

    def abort(self) -> None:
        """Leave nothing behind. After `close` it does nothing."""
        if self._is_open:
            self._is_open = False
            if self._file is not None:
                self._file.abort()
            self._partial.discard()

    def _open(self, path: Path, chapter_title: str | None = None, track: str = "") -> MediaFile:
        return MediaFile(path, self._suffix, self._sample_rate, self._metadata, self._bit_rate, chapter_title, track)

    def _end_file(self) -> None:
        """Complete the file that is open, if there is one."""
        if self._file is None:
            return
        if self._file.num_samples == 0:
            self._file.abort()
            self._file = None
            return
        try:
            self._file.close(self._marks())
        except BookError as error:
            raise self._failure(error) from None
        self._file = None

    def _marks(self) -> list[ChapterMark]:
        """Return where the chapters are in the file; a file in a folder is one chapter and has no marks."""
        if self._is_folder:
            return []
        ends = [*self._starts[1:], self._num_samples]
        marks = [ChapterMark(*mark) for mark in zip(self._titles, self._starts, ends, strict=True)]
        return [mark for mark in marks if mark.end > mark.start]

    @property
    def chapter_file_name(self) -> str:
        """The name of the file of the chapter that was begun last, in a folder."""
        digits = max(2, len(str(self._num_chapters or 0)))
        title = self._titles[-1].translate(_SPACES_IN_NAMES)
        title = title.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
        title = " ".join(title.split()).strip(". ")
        return f"{self._number:0{digits}} {title}".strip() + self._suffix

    def _commit(self) -> None:
        """Put the book into its place; a folder that exists gets the files. Raises OSError."""
        if not self._is_folder or not self._target.exists():
            self._partial.commit()
            return
        for path in sorted(self._partial.path.iterdir()):
            path.replace(self._target / path.name)
        self._partial.discard()

    def _failure(self, error: Exception) -> BookError:
        """Abort, and return the error to raise."""
        self.abort()
        return BookError(f"cannot write {self._target}: {getattr(error, 'strerror', None) or error}")
