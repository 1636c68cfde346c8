"""What an EPUB is called, who wrote it, and in which language: the metadata of its package file.

EPUB 2   <dc:creator opf:role="aut">Lewis Carroll</dc:creator>
EPUB 3   <dc:creator id="lc">Lewis Carroll</dc:creator> <meta refines="#lc" property="role">aut</meta>
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .lines import one_line
from .markup import attribute, local_name

if TYPE_CHECKING:
    from bs4 import Tag


@dataclass(frozen=True)
class Metadata:
    """What the metadata say; "" for what they do not. author: several are joined by ", "."""

    title: str = ""
    author: str = ""
    language: str = ""


def read_metadata(tags: Sequence["Tag"]) -> Metadata:
    """Return what the elements of a package file say about the book."""
    found: dict[str, list[tuple[str, Tag]]] = {"title": [], "creator": [], "language": []}
    refined: dict[tuple[str, str], set[str]] = {}
    for tag in tags:
        name = local_name(tag)
        if name == "meta":
            # <meta> has no content in HTML, so that html.parser leaves its text behind it
            value = str(tag.next_sibling or "").strip().lower()
            identifier = attribute(tag, "refines").strip().removeprefix("#")
            refined.setdefault((attribute(tag, "property"), identifier), set()).add(value)
        elif name in found:
            text = one_line(tag.get_text())
            if text:
                found[name].append((text, tag))

    def refinements(tag: "Tag", name: str) -> set[str]:
        identifier = attribute(tag, "id")
        if not identifier:
            return set()
        return refined.get((name, identifier), set())

    main = [text for text, tag in found["title"] if "main" in refinements(tag, "title-type")]
    titles = main + [text for text, _ in found["title"]]
    languages = [text for text, _ in found["language"]]
    creators = [(text, _own_role(tag) or refinements(tag, "role")) for text, tag in found["creator"]]
    return Metadata(next(iter(titles), ""), _author(creators), next(iter(languages), ""))


def _own_role(tag: "Tag") -> set[str]:
    """Return the role in an attribute such as opf:role, whatever its prefix."""
    names = (name for name in tag.attrs if name.rpartition(":")[2] == "role")
    return {attribute(tag, name).strip().lower() for name in names} - {""}


def _author(creators: Sequence[tuple[str, set[str]]]) -> str:
    """Return the creators called authors, then those without a role; only if there are neither, all others."""
    authors = [name for name, roles in creators if "aut" in roles]
    authors += [name for name, roles in creators if not roles]
    return ", ".join(dict.fromkeys(authors or [name for name, _ in creators]))
