"""A file to a document: chapters of headings and paragraphs, and what is not read aloud.

.epub ── epub ──────┐
.md ──── markdown ──┤
.html ── html ──────┼─ Content ── Document
others ─ plain ─────┘

"3-5,9" ─ select_chapters ─ indices
"""

import re
import stat
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import DocumentError
from .content import Block, Chapter, Content, Dropped
from .decode import decode
from .epub import read_epub
from .flow import compile_pattern
from .html import read_html
from .markdown import read_markdown
from .plain import read_plain

__all__ = ["Block", "Chapter", "Document", "Dropped", "read_document", "select_chapters"]

EPUB_SUFFIXES = {".epub"}
MARKDOWN_SUFFIXES = {".md", ".markdown"}
HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
MAX_BYTES = 64 << 20  # bytes of a plain text file
MAX_MARKUP_BYTES = 16 << 20  # bytes of a Markdown or HTML file: a long novel has 3 MB, the rest is for pictures
RANGE = re.compile(r"\s*(\d{1,6})?\s*(-)?\s*(\d{1,6})?\s*")


@dataclass(frozen=True)
class Document(Content):
    """A book, an article or a script that can be read aloud."""

    @classmethod
    def open(cls, path: Path | str, chapter_pattern: str | None = None) -> "Document":
        """Read a file; see `read_document`."""
        return read_document(path, chapter_pattern)


def read_document(path: Path | str, chapter_pattern: str | None = None) -> Document:
    """Read an EPUB, Markdown, HTML or plain text file; the suffix of its name says which.

    chapter_pattern: a regular expression; a chapter begins at each heading or line that it matches as a whole, and
    nowhere else. Raises DocumentError.
    """
    path = Path(path)
    if chapter_pattern is not None:
        compile_pattern(chapter_pattern)
    try:
        content = _read(path, chapter_pattern)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise DocumentError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    if not any(block.text for chapter in content.chapters for block in chapter.blocks):
        raise DocumentError(f"{str(path)!r} has no text to read aloud")
    return Document(**{field.name: getattr(content, field.name) for field in fields(Content)})


def _read(path: Path, chapter_pattern: str | None) -> Content:
    """Return what the reader for the file's kind finds in it. Raises OSError, ValueError or DocumentError."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe may never end; opening a folder says that it is one
        raise DocumentError(f"cannot read {str(path)!r}: it is a pipe or a device, so save its text to a file first")
    suffix = path.suffix.lower()
    if suffix in EPUB_SUFFIXES:
        return read_epub(path, chapter_pattern)
    limit = MAX_MARKUP_BYTES if suffix in HTML_SUFFIXES | MARKDOWN_SUFFIXES else MAX_BYTES
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DocumentError(f"{str(path)!r} has more than {limit:,} bytes: split the file")
    text = decode(data, repr(str(path)), declared=suffix in HTML_SUFFIXES)
    if suffix in HTML_SUFFIXES:
        return read_html(text, repr(str(path)), path.stem, chapter_pattern)
    if suffix in MARKDOWN_SUFFIXES:
        return read_markdown(text, repr(str(path)), path.stem, chapter_pattern)
    return read_plain(text, path.stem, chapter_pattern)


def select_chapters(document: Content, chapters: str) -> list[int]:
    """Return the indices, from 0, of the chapters that a list such as "3-5,9" names, in the order of the book.

    The list counts chapters from 1; "5-" goes to the last chapter. Raises DocumentError.
    """
    count = len(document.chapters)
    chosen: set[int] = set()
    for part in chapters.split(","):
        found = RANGE.fullmatch(part)
        if found is None or not (found[1] or found[3]):
            raise DocumentError(f'chapters must be a list such as "3-5,9", not {chapters!r}', "chapters")
        first = int(found[1] or 1)
        last = first
        if found[2]:
            last = int(found[3] or count)
        if not 1 <= first <= last <= count:
            raise DocumentError(f"chapters {part.strip()!r} are not in this book: it has 1 to {count}", "chapters")
        chosen.update(range(first - 1, last))
    return sorted(chosen)
