"""The package file of an EPUB: what the book is called, which files it has, and their order.

META-INF/container.xml ─ name of the package file ─ metadata, manifest (files), spine (their order), guide
META-INF/encryption.xml ─ refused, but for fonts
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import DocumentError
from .archive import Archive
from .decode import decode
from .lines import one_line
from .links import resolve
from .markup import attribute, local_name, parse

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
FONTS_ONLY = {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}
MAX_MARKUP = 8 << 20  # bytes of a file


@dataclass(frozen=True)
class Item:
    """A file of the book. name: in the archive, or "" if it is outside."""

    name: str
    href: str
    media_type: str
    properties: tuple[str, ...] = ()


@dataclass
class Package:
    """What the package file says. spine: (item, whether it belongs to the linear text); None is an unknown id."""

    name: str
    title: str = ""
    authors: list[str] = field(default_factory=list)
    language: str = ""
    manifest: dict[str, Item] = field(default_factory=dict)
    spine: list[tuple[str, bool]] = field(default_factory=list)
    ncx: str = ""
    guide: dict[str, str] = field(default_factory=dict)
    cover: str = ""

    def by_property(self, name: str) -> Item | None:
        """Return the first file with a property, such as "nav"."""
        return next((item for item in self.manifest.values() if name in item.properties), None)


def read_markup(archive: Archive, name: str) -> "BeautifulSoup":
    """Return the tree of a file in the archive. Raises DocumentError."""
    return parse(read_text(archive, name), f"{name} in {str(archive.path)!r}")


def read_text(archive: Archive, name: str) -> str:
    """Return the text of a file in the archive. Raises DocumentError."""
    return decode(archive.read(name, MAX_MARKUP), f"{name} in {str(archive.path)!r}", declared=True)


def tags(tree: "BeautifulSoup", name: str = "") -> Iterator["Tag"]:
    """Yield the elements of a name, without regard to its prefix."""
    for tag in tree.find_all(True):
        if not name or local_name(tag) == name:
            yield tag


def read_package(archive: Archive) -> Package:
    """Return what the package file of a book says. Raises DocumentError."""
    _refuse_encrypted(archive)
    if CONTAINER not in archive:
        raise DocumentError(f"{str(archive.path)!r} is not an EPUB, or is incomplete: {CONTAINER} is missing")
    names = [attribute(tag, "full-path") for tag in tags(read_markup(archive, CONTAINER), "rootfile")]
    if not any(names):
        raise DocumentError(f"{str(archive.path)!r} is damaged: {CONTAINER} names no package file")
    package = Package(next(filter(None, names)))
    tree = read_markup(archive, package.name)
    _read_metadata(tree, package)
    for tag in tags(tree):
        _read_entry(tag, package)
    if not package.spine:
        raise DocumentError(f"{str(archive.path)!r} is damaged: the spine in {package.name} lists no files")
    return package


def _refuse_encrypted(archive: Archive) -> None:
    """Raise DocumentError for a book under DRM."""
    if ENCRYPTION not in archive:
        return
    for tag in tags(read_markup(archive, ENCRYPTION), "encryptionmethod"):
        algorithm = attribute(tag, "algorithm")
        if algorithm not in FONTS_ONLY:
            raise DocumentError(
                f"{str(archive.path)!r} is encrypted (DRM, {algorithm!r}): only books without it can be read"
            )


def _read_entry(tag: "Tag", package: Package) -> None:
    """Read an entry of the manifest, the spine or the guide."""
    name = local_name(tag)
    if name == "item":
        href = attribute(tag, "href")
        file, _ = resolve(package.name, href)
        properties = tuple(attribute(tag, "properties").split())
        item = Item(file, href, attribute(tag, "media-type").lower(), properties)
        package.manifest.setdefault(attribute(tag, "id"), item)
    elif name == "spine":
        package.ncx = attribute(tag, "toc")
    elif name == "itemref":
        package.spine.append((attribute(tag, "idref"), attribute(tag, "linear").lower() != "no"))
    elif name == "reference":
        package.guide.setdefault(attribute(tag, "type").lower(), attribute(tag, "href"))
    elif name == "meta" and attribute(tag, "name").lower() == "cover":
        package.cover = package.cover or attribute(tag, "content")


def _read_metadata(tree: "BeautifulSoup", package: Package) -> None:
    """Read the title, the authors (without illustrators and translators) and the language."""
    roles = {}
    for tag in tags(tree, "meta"):
        if attribute(tag, "property") == "role":
            # <meta> has no content in HTML, so that html.parser leaves its text behind it
            roles[attribute(tag, "refines")] = str(tag.next_sibling or "").strip()
    for tag in tags(tree):
        name = local_name(tag)
        if name not in ("title", "creator", "language"):
            continue
        text = one_line(tag.get_text())
        if name == "title":
            package.title = package.title or text
        elif name == "language":
            package.language = package.language or text
        elif (attribute(tag, "opf:role") or roles.get(f"#{attribute(tag, 'id')}") or "aut") == "aut" and text:
            package.authors.append(text)
