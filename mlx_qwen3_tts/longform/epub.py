"""EPUB 2 and 3 to chapters.

    archive ─ package ─┬─ spine: the files in their order ─ html ─ blocks of the whole book ─┐
                       ├─ toc: titles and places ─ outline: which begin chapters ─ starts ───┼─ Content
                       └─ metadata, cover ───────────────────────────────────────────────────┘

Without a table of contents, headings begin chapters; without headings, files do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .archive import Archive
from .content import Content
from .cover import read_cover
from .flow import Flow, Mark, Start, cut, heading_starts, pattern_starts
from .footnotes import Footnotes
from .html import Page, read_page
from .outline import chapter_starts
from .package import Item, Package, read_package, read_text
from .toc import Entry, read_toc


@dataclass
class Book:
    """The blocks of the files that were read so far.

    starts: of each file, by its name. anchors: of each id, by file and id. titles: of the files with a title.
    """

    footnotes: Footnotes
    flow: Flow = field(default_factory=Flow)
    starts: dict[str, int] = field(default_factory=dict)
    anchors: dict[tuple[str, str], int] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, page: Page) -> None:
        """Append what a file holds."""
        offset = len(self.flow.blocks)
        self.starts[name] = offset
        self.titles[name] = page.title
        self.flow.blocks += page.flow.blocks
        # What follows the last block of a file belongs to it, and not to the chapter that the next file begins.
        last = max(0, len(self.flow.blocks) - 1)
        self.flow.dropped += [Mark(min(offset + mark.index, last), mark.kind, mark.text) for mark in page.flow.dropped]
        self.anchors.update({(name, anchor): offset + index for anchor, index in page.anchors.items()})
        self.footnotes.add(name, offset, page.notes, page.marks)

    def place(self, entry: Entry) -> int | None:
        """Return the index of the block that an entry of the table of contents leads to, if any."""
        return self.anchors.get((entry.name, entry.fragment), self.starts.get(entry.name))

    def skip(self, kind: str, text: str) -> None:
        """List a file that is not read."""
        self.flow.dropped.append(Mark(len(self.flow.blocks), kind, text))


def read_epub(path: Path, chapter_pattern: str | None) -> Content:
    """Return the content of an EPUB file; see document.read_document. Raises DocumentError."""
    with Archive(path) as archive:
        package = read_package(archive)
        entries = read_toc(archive, package)
        book = _read_spine(archive, package, entries)
        cover, unusable = read_cover(archive, package)
    book.flow.dropped += [Mark(0, "cover", name) for name in unusable]
    book.footnotes.drop(book.flow)
    starts = _starts(book, entries) if chapter_pattern is None else pattern_starts(book.flow, chapter_pattern)
    metadata = package.metadata
    title = metadata.title or path.stem
    chapters, dropped = cut(book.flow, starts, title)
    return Content(title, metadata.author, metadata.language, cover, chapters, dropped)


def _read_spine(archive: Archive, package: Package, entries: Sequence[Entry]) -> Book:
    """Read the files in the order of the spine; what is not read is listed."""
    book = Book(Footnotes(archive.locate))
    for identifier, linear in package.spine:
        item = package.manifest.get(identifier)
        if item is None:
            book.skip("missing file", identifier)
        elif item.name not in archive:
            book.skip("missing file", item.href)
        elif item.name in book.starts:
            continue
        elif not linear:
            book.skip("file outside the text", item.href)
        elif _is_contents(package, entries, item):
            book.skip("navigation", item.href)
        elif item.is_page:
            book.add(item.name, read_page(read_text(archive, item.name), f"{item.name} in {str(archive.path)!r}"))
        elif item.media_type.startswith("image/"):
            book.skip("image", item.href)
        else:
            book.skip("media", item.href)
    return book


def _is_contents(package: Package, entries: Sequence[Entry], item: Item) -> bool:
    """Return True for a file that is a table of contents, and has no chapters as well."""
    called = "nav" in item.properties or item.name == package.guide.get("toc", ("", ""))[0]
    return called and sum(entry.name == item.name for entry in entries) <= 1


def _starts(book: Book, entries: Sequence[Entry]) -> list[Start]:
    """Return the chapters' beginnings by the table of contents, else by headings, else by files."""
    starts = chapter_starts(entries, [book.place(entry) for entry in entries], book.flow.blocks)
    if starts:
        return starts
    _, starts = heading_starts(book.flow, first_is_title=True)
    if starts:
        return starts
    titles = [book.titles[name] for name in book.starts]
    if len(set(titles)) < len(titles):  # titles of the book, not of the chapters
        titles = [""] * len(titles)
    return [Start(index, title) for title, index in zip(titles, book.starts.values(), strict=True)]
