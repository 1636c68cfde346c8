"""EPUB 2 and 3 to chapters.

    archive ─ package ─┬─ spine: the files in their order ─ html ─ blocks of the whole book ─┐
                       └─ toc: titles and places ────────────────────────────── starts ──────┴─ Content

Without a table of contents, headings begin chapters; without headings, files do.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DocumentError
from .archive import Archive
from .content import Content
from .flow import Flow, Mark, Start, cut, heading_starts, pattern_starts
from .footnotes import Footnotes
from .html import Page, read_page
from .links import resolve
from .markup import attribute
from .package import Package, read_markup, read_package, read_text
from .toc import Entry, read_toc

HTML_TYPES = {"application/xhtml+xml", "text/html", "application/html", "text/x-oeb1-document", ""}
HTML_SUFFIXES = (".xhtml", ".html", ".htm", ".xht")
MAX_COVER = 16 << 20  # bytes
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Book:
    """The blocks of the files that were read so far.

    starts: of each file, by its name. anchors: of each id, by file and id. titles: of the files with a title.
    """

    flow: Flow = field(default_factory=Flow)
    starts: dict[str, int] = field(default_factory=dict)
    anchors: dict[tuple[str, str], int] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    footnotes: Footnotes = field(default_factory=Footnotes)

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

    def skip(self, kind: str, text: str) -> None:
        """List a file that is not read."""
        self.flow.dropped.append(Mark(len(self.flow.blocks), kind, text))


def read_epub(path: Path, chapter_pattern: str | None) -> Content:
    """Return the content of an EPUB file; see document.read_document. Raises DocumentError."""
    with Archive(path) as archive:
        package = read_package(archive)
        entries = read_toc(archive, package)
        book = _read_spine(archive, package, entries)
        cover = _read_cover(archive, package, book)
    book.footnotes.drop(book.flow)
    starts = _starts(book, entries) if chapter_pattern is None else pattern_starts(book.flow, chapter_pattern)
    title = package.title or path.stem
    chapters, dropped = cut(book.flow, starts, title)
    return Content(title, ", ".join(package.authors), package.language, cover, chapters, dropped)


def _read_spine(archive: Archive, package: Package, entries: list[Entry]) -> Book:
    """Read the files in the order of the spine; what is not read is listed."""
    book = Book()
    contents = _contents_page(package, entries)
    for identifier, linear in package.spine:
        item = package.manifest.get(identifier)
        if item is None or item.name not in archive:
            book.skip("missing file", item.href if item else identifier)
        elif item.name in book.starts:
            continue
        elif not linear:
            book.skip("file outside the text", item.href)
        elif "nav" in item.properties or item.name == contents:
            book.skip("navigation", item.href)
        elif item.media_type not in HTML_TYPES and not item.name.lower().endswith(HTML_SUFFIXES):
            book.skip("image" if item.media_type.startswith("image/") else "media", item.href)
        else:
            book.add(item.name, read_page(read_text(archive, item.name), f"{item.name} in {str(archive.path)!r}"))
    return book


def _contents_page(package: Package, entries: list[Entry]) -> str:
    """Return the name of the file that is a printed table of contents only, or ""."""
    name, _ = resolve(package.name, package.guide.get("toc", "#"))
    if name == package.name or sum(entry.name == name for entry in entries) > 1:
        return ""
    return name


def _starts(book: Book, entries: list[Entry]) -> list[Start]:
    """Return the chapters' beginnings by the table of contents, else by headings, else by files."""
    starts = []
    taken: dict[tuple[str, int], int] = {}
    for entry in entries:
        if entry.name not in book.starts:
            continue
        index = book.anchors.get((entry.name, entry.fragment), book.starts[entry.name])
        # Of entries for one place, those below another win; of those beside each other, the first.
        if entry.depth > taken.get((entry.name, index), -1):
            taken[entry.name, index] = entry.depth
            starts.append(Start(index, entry.title))
    if starts:
        return starts
    _, starts = heading_starts(book.flow, first_is_title=True)
    if starts:
        return starts
    titles = [book.titles[name] for name in book.starts]
    distinct = len(set(titles)) == len(titles)
    return [Start(index, title if distinct else "") for title, index in zip(titles, book.starts.values(), strict=True)]


def _read_cover(archive: Archive, package: Package, book: Book) -> bytes | None:
    """Return the cover picture, or None if there is none, or none that is a JPEG or PNG file (which is listed)."""
    item = package.by_property("cover-image") or package.manifest.get(package.cover)
    name = item.name if item else resolve(package.name, package.cover or "..")[0]  # some name the file, not its id
    if name not in archive:
        name = _cover_in_guide(archive, package)
    if name not in archive:
        return None
    try:
        data = archive.read(name, MAX_COVER, text=False)
    except DocumentError:
        data = b""
    if data.startswith((JPEG, PNG)):
        return data
    book.flow.dropped.append(Mark(0, "cover", name))
    return None


def _cover_in_guide(archive: Archive, package: Package) -> str:
    """Return the name of the picture on the page that the guide calls the cover, or ""."""
    name, _ = resolve(package.name, package.guide.get("cover") or "..")
    if name not in archive or not name.lower().endswith(HTML_SUFFIXES):
        return name
    for tag in read_markup(archive, name).find_all(["img", "image"]):
        href = attribute(tag, "src") or attribute(tag, "xlink:href") or attribute(tag, "href")
        return resolve(name, href)[0]
    return ""
