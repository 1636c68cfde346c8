"""The cover picture of an EPUB: the first of those that are named that is a JPEG or PNG file.

properties="cover-image" ─ <meta name="cover"> ─ the guide's cover
          └──── a picture, or a page that shows one ────┘
"""

from ..errors import DocumentError
from .archive import Archive
from .markup import attribute
from .package import PAGE_SUFFIXES, Package, read_markup

MAX_COVER = 16 << 20  # bytes
MAX_CANDIDATES = 8
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"


def read_cover(archive: Archive, package: Package) -> tuple[bytes | None, list[str]]:
    """Return the picture, or None, and the names of files that are called the cover and cannot be used as one."""
    unusable: list[str] = []
    for name in _candidates(archive, package):
        try:
            if name.lower().endswith(PAGE_SUFFIXES):
                picture = _picture_on(archive, name)
                if not picture:
                    continue  # a cover of text
                name = picture
            data = archive.read(name, MAX_COVER, text=False)
        except DocumentError:
            data = b""
        if data.startswith((JPEG, PNG)):
            return data, list(dict.fromkeys(unusable))
        unusable.append(name)
    return None, list(dict.fromkeys(unusable))


def _candidates(archive: Archive, package: Package) -> list[str]:
    """Return the names of the files that are called the cover, best first."""
    named = [item.name or item.href for item in package.manifest.values() if "cover-image" in item.properties]
    item = package.manifest.get(package.cover)
    if item is not None:
        named.append(item.name or item.href)
    elif package.cover:  # some name the file, not its id
        name, _ = archive.locate(package.name, package.cover)
        if name not in archive:
            name = package.cover
        named.append(name)
    if "cover" in package.guide:
        named.append(package.guide["cover"][0])
    return list(dict.fromkeys(name for name in named if name))[:MAX_CANDIDATES]


def _picture_on(archive: Archive, page: str) -> str:
    """Return the name of the first picture on a page, or "" if there is none. Raises DocumentError."""
    for tag in read_markup(archive, page).find_all(["img", "image"]):
        href = attribute(tag, "src") or attribute(tag, "xlink:href") or attribute(tag, "href")
        return archive.locate(page, href)[0] or href
    return ""
