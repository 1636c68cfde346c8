"""A file to a document: chapters of headings and paragraphs, and what is not read aloud.

.epub ── epub ──────┐
.md ──── markdown ──┤
.html ── html ──────┼─ Content ── Document
others ─ plain ─────┘
"""

from dataclasses import dataclass
from pathlib import Path

from .content import Block, Chapter, Content, Dropped

__all__ = ["Block", "Chapter", "Document", "Dropped", "read_document", "select_chapters"]


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
    raise NotImplementedError


def select_chapters(document: Document, chapters: str) -> list[int]:
    """Return the indices (from 0) of the chapters that a list such as "3-5,9" (from 1) names. Raises DocumentError."""
    raise NotImplementedError
