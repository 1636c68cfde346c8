"""The package file of an EPUB: what the book is called, which files it has, and their order.

META-INF/container.xml ─ name of the package file ─ metadata, manifest (files), spine (their order), guide
META-INF/encryption.xml ─ refused, except for fonts; if it is damaged, the files of the spine show if they are encrypted
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import DocumentError
from .archive import Archive
from .decode import decode
from .markup import MAX_TAGS, attribute, elements, local_name, parse
from .metadata import Metadata, read_metadata

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
FONTS_ONLY = {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}
PAGE_TYPES = {"application/xhtml+xml", "text/html", "application/html", "text/x-oeb1-document", ""}
PAGE_SUFFIXES = (".xhtml", ".html", ".htm", ".xht")
MAX_MARKUP = 8 << 20  # bytes of a file
MAX_PACKAGE_TAGS = 100_000  # tags of the package file: one for each entry, and a few more
# Entries of the manifest, of the spine, and of the table of contents: as many as an archive may have files.
MAX_ENTRIES = 20_000


@dataclass(frozen=True)
class Item:
    """A file of the book. name: in the archive (if it is there), or "" if it is outside."""

    name: str
    href: str
    media_type: str
    properties: tuple[str, ...] = ()

    @property
    def is_page(self) -> bool:
        """Whether it is HTML: by its type, or by its name if the type is wrong."""
        return self.media_type in PAGE_TYPES or self.name.lower().endswith(PAGE_SUFFIXES)


@dataclass
class Package:
    """What the package file says.

    spine: (item, whether it belongs to the linear text); an item may be unknown. guide: file and fragment by type.
    cover: what <meta name="cover"> says, an item or a file.
    """

    name: str
    metadata: Metadata
    manifest: dict[str, Item] = field(default_factory=dict)
    spine: list[tuple[str, bool]] = field(default_factory=list)
    ncx: str = ""
    guide: dict[str, tuple[str, str]] = field(default_factory=dict)
    cover: str = ""

    def by_property(self, name: str) -> Item | None:
        """Return the first file with a property, such as "nav"."""
        return next((item for item in self.manifest.values() if name in item.properties), None)


def read_markup(archive: Archive, name: str, max_tags: int = MAX_TAGS) -> "BeautifulSoup":
    """Return the tree of a file in the archive. Raises DocumentError."""
    return parse(read_text(archive, name), f"{name} in {str(archive.path)!r}", max_tags)


def read_text(archive: Archive, name: str) -> str:
    """Return the text of a file in the archive, whose tags count for the whole book. Raises DocumentError."""
    text = decode(archive.read(name, MAX_MARKUP), f"{name} in {str(archive.path)!r}", declared=True)
    archive.count_markup(text, name)
    return text


def read_package(archive: Archive) -> Package:
    """Return what the package file of a book says. Raises DocumentError."""
    sure = _refuse_encrypted(archive)
    name = _package_name(archive)
    tags = read_markup(archive, name, MAX_PACKAGE_TAGS).find_all(True)
    package = Package(name, read_metadata(tags))
    _read_entries(archive, tags, package)
    if not package.spine:
        raise DocumentError(f"{str(archive.path)!r} is damaged: the spine in {name} lists no files")
    if not sure:
        _refuse_noise(archive, package)
    return package


def _package_name(archive: Archive) -> str:
    """Return the name of the first package file that is there. Raises DocumentError."""
    container = archive.find(CONTAINER)
    if not container:
        raise DocumentError(f"{str(archive.path)!r} is not an EPUB, or is incomplete: {CONTAINER} is missing")
    paths = [attribute(tag, "full-path") for tag in elements(read_markup(archive, container), "rootfile")]
    names = [archive.locate("", path)[0] or path for path in paths if path]
    if not names:
        raise DocumentError(f"{str(archive.path)!r} is damaged: {CONTAINER} names no package file")
    return next((name for name in names if name in archive), names[0])


def _refuse_encrypted(archive: Archive) -> bool:
    """Raise DocumentError for a book under DRM; return False if the file that would say so is damaged."""
    name = archive.find(ENCRYPTION)
    if not name:
        return True
    try:
        tree = read_markup(archive, name)
    except DocumentError:
        return False
    algorithms = [attribute(tag, "algorithm") for tag in elements(tree, "encryptionmethod")]
    for algorithm in algorithms:
        if algorithm not in FONTS_ONLY:
            raise DocumentError(
                f"{str(archive.path)!r} is encrypted (DRM, {algorithm!r}): only books without it can be read"
            )
    return 0 < len(algorithms) >= sum(1 for _ in elements(tree, "encrypteddata"))


def _refuse_noise(archive: Archive, package: Package) -> None:
    """Raise DocumentError if a file of the spine is not text, as if it were encrypted."""
    for identifier, _ in package.spine:
        item = package.manifest.get(identifier)
        if item is None or item.name not in archive or not item.is_page:
            continue
        data = archive.read(item.name, MAX_MARKUP, text=False)
        try:
            decode(data, item.name, declared=True)
        except DocumentError:
            raise DocumentError(
                f"{item.name} in {str(archive.path)!r} is not text, and {ENCRYPTION} is damaged: the book seems to be "
                "encrypted (DRM), and only books without it can be read"
            ) from None


def _read_entries(archive: Archive, tags: Sequence["Tag"], package: Package) -> None:
    """Read the manifest, the spine and the guide. Raises DocumentError for too many entries."""
    for tag in tags:
        name = local_name(tag)
        if name == "item":
            package.manifest.setdefault(attribute(tag, "id"), _item(archive, tag, package.name))
        elif name == "spine":
            package.ncx = attribute(tag, "toc")
        elif name == "itemref":
            package.spine.append((attribute(tag, "idref"), attribute(tag, "linear").lower() != "no"))
        elif name == "reference" and attribute(tag, "href"):
            place = archive.locate(package.name, attribute(tag, "href"))
            package.guide.setdefault(attribute(tag, "type").lower(), place)
        elif name == "meta" and attribute(tag, "name").lower() == "cover":
            package.cover = package.cover or attribute(tag, "content")
    if max(len(package.manifest), len(package.spine)) > MAX_ENTRIES:
        raise DocumentError(
            f"{package.name} in {str(archive.path)!r} lists more than {MAX_ENTRIES:,} files: it is not read as a book"
        )


def _item(archive: Archive, tag: "Tag", base: str) -> Item:
    """Return an entry of the manifest."""
    href = attribute(tag, "href")
    name, _ = archive.locate(base, href)
    return Item(name, href, attribute(tag, "media-type").lower(), tuple(attribute(tag, "properties").split()))
