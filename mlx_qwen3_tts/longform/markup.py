"""HTML, XHTML and XML to a tree, in time and memory that grow with the file and no faster.

    markup ─ simplify (comments, CDATA, declarations, stray "<", huge tags) ─ html.parser, BeautifulSoup ─ traverse

html.parser reads XML as well: what a book's package file needs of it are names and attributes. It expands no entities
of a document's own, opens no other file, and takes quadratic time only for what `simplify` removes.
"""

import re
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Protocol

from ..errors import DocumentError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

MAX_TAGS = 400_000  # tags of a file; each takes up to 1 KB of memory
MAX_TAG_CHARACTERS = 2000
SECTIONS = {"<!--": "-->", "<![CDATA[": "]]>", "<?": ">"}
SECTION = re.compile(r"<!--|<!\[CDATA\[|<\?", re.IGNORECASE)
ENTITY = re.compile("<!ENTITY", re.IGNORECASE)
DOCTYPE = re.compile(r"^[^<]{0,9}<!DOCTYPE(?:[^<>\[]*(?:\[[^\]]*\]\s*)?>|[^<>]*)", re.IGNORECASE)
DATA_URI = re.compile(r"""(?<=["'])data:[^"'<>\s]*""")
QUOTED = re.compile(r"""="[^"<>]*<[^"]*"|='[^'<>]*<[^']*'""")
STRAY = re.compile(r"<(?![^<>]*>)|<(?![a-zA-Z/!])")
DECLARATION = re.compile(r"<![^<>]*>")
HUGE_TAG = re.compile(rf"<(/?[^\s<>/]{{1,100}})[^<>]{{{MAX_TAG_CHARACTERS},}}?(/?)>")


class Visitor(Protocol):
    """What `traverse` calls."""

    def enter(self, tag: "Tag") -> bool:
        """Begin an element; return whether to go into it."""
        ...

    def leave(self, tag: "Tag") -> None:
        """End an element that was gone into."""
        ...

    def text(self, text: str) -> None:
        """Take a piece of text."""
        ...


def parse(markup: str, name: str, max_tags: int = MAX_TAGS) -> "BeautifulSoup":
    """Return the tree of a file. name: of the file, for messages. Raises DocumentError."""
    try:
        from bs4 import BeautifulSoup
    except ImportError:
        raise DocumentError(
            "books need BeautifulSoup: install this package with its extra [book], or `pip install beautifulsoup4`"
        ) from None
    markup = simplify(markup, name)
    if markup.count("<") > max_tags:
        raise DocumentError(f"{name} has more than {max_tags:,} tags: split the file")
    try:
        return BeautifulSoup(markup, "html.parser")
    except (ValueError, OverflowError, AssertionError) as error:  # such as a character number of 5,000 digits
        raise DocumentError(f"{name} cannot be parsed ({error})") from None


def simplify(markup: str, name: str) -> str:
    """Return markup without what html.parser takes quadratic time for. Raises DocumentError for own entities."""
    markup = _without_sections(markup)
    if ENTITY.search(markup):
        raise DocumentError(f"{name} defines its own entities, which is not supported: remove its DOCTYPE")
    markup = DOCTYPE.sub("", markup, count=1)
    markup = DATA_URI.sub("data:", markup)
    markup = QUOTED.sub(lambda found: found[0].replace("<", "&lt;"), markup)
    markup = STRAY.sub("&lt;", markup)
    markup = DECLARATION.sub("", markup)
    return HUGE_TAG.sub(r"<\1\2>", markup)


def _without_sections(markup: str) -> str:
    """Remove comments and processing instructions, and make text of CDATA sections; one that never ends is ignored."""
    kept = []
    position = 0
    endless = set()
    for found in SECTION.finditer(markup):
        opening = found[0].upper()
        if found.start() < position:
            continue
        end = -1
        if opening not in endless:
            end = markup.find(SECTIONS[opening], found.start() + 2)
        kept.append(markup[position : found.start()])
        if end < 0:
            endless.add(opening)
            position = found.end()
            continue
        if opening == "<![CDATA[":
            kept.append(escape(markup[found.end() : end], quote=False))
        position = end + len(SECTIONS[opening])
    kept.append(markup[position:])
    return "".join(kept)


def traverse(root: "Tag", visitor: Visitor) -> None:
    """Show a tree to a visitor in the order of the file, however deep it is."""
    pending: list[tuple[object, bool]] = [(root, True)]
    while pending:
        node, entering = pending.pop()
        if isinstance(node, str):
            visitor.text(node)
        elif not entering:
            visitor.leave(node)  # type: ignore[arg-type]
        elif visitor.enter(node):  # type: ignore[arg-type]
            pending.append((node, False))
            pending.extend((child, True) for child in reversed(node.contents))  # type: ignore[attr-defined]


def attribute(tag: "Tag", name: str) -> str:
    """Return an attribute's value, or ""."""
    value = tag.get(name)
    if isinstance(value, str):
        return value
    return " ".join(value or [])


def local_name(tag: "Tag") -> str:
    """Return a tag's name in lower case without a prefix: "title" for <dc:title>."""
    return tag.name.rpartition(":")[2].lower()


def elements(tree: "Tag", name: str) -> Iterator["Tag"]:
    """Yield the elements of a name, without regard to its prefix."""
    return (tag for tag in tree.find_all(True) if local_name(tag) == name)


def short_text(tag: "Tag", limit: int) -> str | None:
    """Return the text in an element if it has at most `limit` characters (and as many nodes), else None."""
    text = ""
    for count, node in enumerate(nodes(tag)):
        if isinstance(node, str):
            text += node
        if len(text.strip()) > limit or count > limit:
            return None
    return text.strip()


def nodes(tag: "Tag") -> Iterator[object]:
    """Yield the nodes in an element in their order; `Tag.descendants` goes to the last one before the first."""
    pending = [iter(tag.contents)]
    while pending:
        node = next(pending[-1], None)
        if node is None:
            pending.pop()
            continue
        yield node
        if not isinstance(node, str):
            pending.append(iter(node.contents))  # type: ignore[attr-defined]
