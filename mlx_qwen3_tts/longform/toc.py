"""The table of contents of an EPUB: the "toc" of its navigation file (EPUB 3), else its NCX file (EPUB 2).

nav.xhtml   <nav epub:type="toc"> <ol> <li> <a href="ch1.xhtml#two">Two</a>, or <span>Part One</span> for a mere group
toc.ncx     <navMap> <navPoint> <navLabel> <text>Two</text>, <content src="ch1.xhtml#two"/>
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import DocumentError
from .archive import Archive
from .lines import excerpt
from .markup import attribute, local_name, traverse
from .package import MAX_ENTRIES, Item, Package, read_markup

if TYPE_CHECKING:
    from bs4 import Tag

NCX_TYPE = "application/x-dtbncx+xml"


@dataclass
class Entry:
    """A line of the table of contents. name, fragment: the file and the place in it, "" if it leads to none."""

    title: str = ""
    name: str = ""
    fragment: str = ""
    depth: int = 0


class NavReader:
    """Collects the list items of the "toc" in a navigation file, each with its first link, or else its first label."""

    def __init__(self, archive: Archive, base: str) -> None:
        self.entries: list[Entry] = []
        self._archive = archive
        self._base = base
        self._toc: Tag | None = None
        self._depth = 0
        self._open: list[Entry] = []  # list items
        self._label: Tag | None = None

    def enter(self, tag: "Tag") -> bool:
        """Begin an element; return whether to go into it."""
        if tag.name == "nav":
            meanings = f"{attribute(tag, 'epub:type')} {attribute(tag, 'role')}".split()
            if "toc" in meanings or "doc-toc" in meanings:
                self._toc = self._toc or tag
            return tag is self._toc
        if self._toc is None:
            return True
        self._depth += tag.name == "ol"
        if tag.name == "li":
            self._label = None
            self._add(self._open)
        elif tag.name == "a" and attribute(tag, "href"):
            self._link(tag)
        elif tag.name in ("a", "span") and self._label is None and self._open and not self._open[-1].title:
            self._label = tag
        return True

    def _add(self, entries: list[Entry]) -> None:
        """Add an entry, also to the list items that are open."""
        self.entries.append(Entry(depth=self._depth))
        entries.append(self.entries[-1])

    def _link(self, tag: "Tag") -> None:
        """Take a link for the list item that it stands in, unless that has one; without such an item, it is one."""
        if not self._open:
            self._add([])
        entry = self.entries[-1]
        if (self._open and entry is not self._open[-1]) or entry.name:
            return
        entry.name, entry.fragment = self._archive.locate(self._base, attribute(tag, "href"))
        if self._label is None:
            self._label = tag
            entry.title = ""

    def leave(self, tag: "Tag") -> None:
        """End an element."""
        if tag is self._toc:
            self._toc = None
        if tag is self._label:
            self._label = None
        if self._toc is not None:
            self._depth -= tag.name == "ol"
            if tag.name == "li" and self._open:
                self._open.pop()

    def text(self, text: str) -> None:
        """Take a piece of a title."""
        if self._label is not None:
            self.entries[-1].title += text


class NcxReader:
    """Collects the points of an NCX file."""

    def __init__(self, archive: Archive, base: str) -> None:
        self.entries: list[Entry] = []
        self._archive = archive
        self._base = base
        self._depth = 0
        self._in_label = False

    def enter(self, tag: "Tag") -> bool:
        """Begin an element; return whether to go into it."""
        name = local_name(tag)
        if name == "navpoint":
            self._depth += 1
            self.entries.append(Entry(depth=self._depth))
        elif name == "navlabel":
            self._in_label = bool(self.entries) and not self.entries[-1].title
        elif name == "content" and self.entries and not self.entries[-1].name:
            entry = self.entries[-1]
            entry.name, entry.fragment = self._archive.locate(self._base, attribute(tag, "src"))
        return name not in ("pagelist", "navlist", "doctitle", "docauthor")

    def leave(self, tag: "Tag") -> None:
        """End an element."""
        name = local_name(tag)
        if name == "navpoint":
            self._depth -= 1
        elif name == "navlabel":
            self._in_label = False

    def text(self, text: str) -> None:
        """Take a piece of a title."""
        if self._in_label:
            self.entries[-1].title += text


def read_toc(archive: Archive, package: Package) -> list[Entry]:
    """Return the entries in the order of the table if one leads to a file of the book. Raises DocumentError."""
    nav = package.by_property("nav")
    ncx = package.manifest.get(package.ncx)
    if ncx is None:
        ncx = next((item for item in package.manifest.values() if item.media_type == NCX_TYPE), None)
    for item, reader_type in ((nav, NavReader), (ncx, NcxReader)):
        if item is None or item.name not in archive:
            continue
        entries = _read(archive, item, reader_type)
        if any(entry.name for entry in entries):
            return entries
    return []


def _read(archive: Archive, item: Item, reader_type: type[NavReader] | type[NcxReader]) -> list[Entry]:
    reader = reader_type(archive, item.name)
    traverse(read_markup(archive, item.name), reader)
    if len(reader.entries) > MAX_ENTRIES:
        raise DocumentError(
            f"{item.name} in {str(archive.path)!r} lists more than {MAX_ENTRIES:,} chapters: it is not read as a book"
        )
    for entry in reader.entries:
        entry.title = excerpt(entry.title)
        if entry.name not in archive:
            entry.name = ""
    return reader.entries
