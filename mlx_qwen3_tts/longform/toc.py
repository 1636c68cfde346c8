"""The table of contents of an EPUB: the "toc" of its navigation file (EPUB 3), else its NCX file (EPUB 2).

nav.xhtml   <nav epub:type="toc"> <ol> <li> <a href="ch1.xhtml#two">Two</a>
toc.ncx     <navMap> <navPoint> <navLabel> <text>Two</text>, <content src="ch1.xhtml#two"/>
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .archive import Archive
from .lines import excerpt
from .links import resolve
from .markup import attribute, local_name, traverse
from .package import Item, Package, read_markup

if TYPE_CHECKING:
    from bs4 import Tag

NCX_TYPE = "application/x-dtbncx+xml"
MAX_ENTRIES = 10_000


@dataclass
class Entry:
    """A line of the table of contents. name, fragment: the file and the place in it, "" if there is none."""

    title: str = ""
    name: str = ""
    fragment: str = ""
    depth: int = 0


class NavReader:
    """Collects the links of the "toc" in a navigation file."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.entries: list[Entry] = []
        self._toc: Tag | None = None
        self._depth = 0
        self._link: Tag | None = None

    def enter(self, tag: "Tag") -> bool:
        """Begin an element; return whether to go into it."""
        if tag.name == "nav":
            meanings = f"{attribute(tag, 'epub:type')} {attribute(tag, 'role')}".split()
            if "toc" in meanings or "doc-toc" in meanings:
                self._toc = self._toc or tag
            return tag is self._toc
        if self._toc is not None:
            self._depth += tag.name == "ol"
            if tag.name == "a" and self._link is None:
                self._link = tag
                self.entries.append(Entry("", *resolve(self.base, attribute(tag, "href")), self._depth))
        return True

    def leave(self, tag: "Tag") -> None:
        """End an element."""
        if tag is self._toc:
            self._toc = None
        if tag is self._link:
            self._link = None
        if self._toc is not None:
            self._depth -= tag.name == "ol"

    def text(self, text: str) -> None:
        """Take a piece of a title."""
        if self._link is not None:
            self.entries[-1].title += text


class NcxReader:
    """Collects the points of an NCX file."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.entries: list[Entry] = []
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
            self.entries[-1].name, self.entries[-1].fragment = resolve(self.base, attribute(tag, "src"))
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
    """Return the entries that lead to a file of the book, in the order of the table. Raises DocumentError."""
    nav = package.by_property("nav")
    ncx = package.manifest.get(package.ncx)
    if ncx is None:
        ncx = next((item for item in package.manifest.values() if item.media_type == NCX_TYPE), None)
    for item, reader_type in ((nav, NavReader), (ncx, NcxReader)):
        if item is None or item.name not in archive:
            continue
        entries = _read(archive, item, reader_type)
        if entries:
            return entries
    return []


def _read(archive: Archive, item: Item, reader_type: type[NavReader] | type[NcxReader]) -> list[Entry]:
    reader = reader_type(item.name)
    traverse(read_markup(archive, item.name), reader)
    found = [entry for entry in reader.entries if entry.name in archive]
    for entry in found:
        entry.title = excerpt(entry.title)
    return found[:MAX_ENTRIES]
