"""Which elements are not read aloud, and as what they are listed.

tag ─┬─ by its name        <table>, <pre>, <img>, <nav>, <aside>, ...
     ├─ by its meaning     epub:type="footnote", role="doc-noteref", class="pagenum", ...
     └─ by what it shows   <sup><a href="#note3">3</a></sup>, <a href="#note3">[3]</a>
"""

import re
from itertools import islice
from typing import TYPE_CHECKING

from .lines import excerpt
from .markup import attribute, nodes, short_text
from .notes import HINT, LABEL, RAISED, RETURN_LABEL, SURE_LABEL

if TYPE_CHECKING:
    from bs4 import Tag

NAMES = {
    "script": "script", "noscript": "script", "template": "script", "style": "style",
    "nav": "navigation", "pre": "code", "table": "table", "aside": "aside",
    "img": "image", "image": "image", "picture": "image", "svg": "image", "canvas": "image",
    "math": "formula", "audio": "media", "video": "media", "object": "media", "iframe": "media", "embed": "media",
    "button": "form", "input": "form", "select": "form", "textarea": "form",
}  # fmt: skip
MEANINGS = {
    "noteref": "footnote mark", "backlink": "footnote mark", "pagebreak": "page number",
    "footnote": "footnote", "footnotes": "footnote", "rearnote": "footnote", "rearnotes": "footnote",
    "endnote": "footnote", "endnotes": "footnote", "note": "footnote",
    "toc": "navigation", "landmarks": "navigation", "page-list": "navigation", "loi": "navigation", "lot": "navigation",
}  # fmt: skip
PAGE_CLASS = re.compile(r"(?:x-ebookmaker-)?(?:page|pg)[-_]?(?:num|number|no|break)s?", re.IGNORECASE)
NOTE_CLASS = re.compile(r"(?:foot|end|rear)[-_]?notes?(?:[-_]?text)?", re.IGNORECASE)
MARK_CLASS = re.compile(
    r"(?:foot|end|rear)?[-_]?note[-_]?(?:ref|mark|anchor|call|backref)|fnanchor|fnref", re.IGNORECASE
)
INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
MAX_MARK = 32  # characters: what is called a mark or a page number and is longer is text, or was never closed
MAX_FIGURE = 50  # nodes in a figure among which its image is looked for
PICTURES = ("img", "picture", "svg")
INLINE = {"a", "b", "em", "i", "small", "span", "strong", "sub", "sup"}


def kind_of(tag: "Tag") -> str | None:
    """Return as what an element is dropped, or None if its text is read aloud."""
    kind = _by_name(tag) or _by_meaning(tag) or _by_class(tag)
    if kind in ("footnote mark", "page number") and short_text(tag, MAX_MARK) is None:
        kind = None
    if kind is None and tag.name in ("a", "sup") and is_mark(tag):
        kind = "footnote mark"
    if kind is None and (tag.has_attr("hidden") or INVISIBLE.search(attribute(tag, "style"))):
        kind = "hidden"
    return kind


def _by_name(tag: "Tag") -> str | None:
    kind = NAMES.get(tag.name.rpartition(":")[2])
    if kind == "table" and attribute(tag, "role") in ("presentation", "none"):
        return None
    if kind == "aside":
        return _by_meaning(tag) or kind
    if tag.name == "figure" and any(
        getattr(child, "name", None) in PICTURES for child in islice(nodes(tag), MAX_FIGURE)
    ):
        return "image"
    return kind


def _by_meaning(tag: "Tag") -> str | None:
    meanings = attribute(tag, "epub:type").lower().split()
    meanings += [role.removeprefix("doc-") for role in attribute(tag, "role").lower().split() if role[:4] == "doc-"]
    return next((MEANINGS[meaning] for meaning in meanings if meaning in MEANINGS), None)


def _by_class(tag: "Tag") -> str | None:
    for name in attribute(tag, "class").split():
        if PAGE_CLASS.fullmatch(name):
            return "page number"
        if MARK_CLASS.fullmatch(name):
            return "footnote mark"
        if NOTE_CLASS.fullmatch(name):
            if tag.name in INLINE and short_text(tag, 8) is not None:
                return "footnote mark"
            return "footnote"
    return None


def is_mark(tag: "Tag") -> bool:
    """Return True if a link or a raised text is a footnote mark (or the way back from the note), by what it shows."""
    label = short_text(tag, MAX_MARK)
    if not label:
        return False
    if tag.name == "sup":
        links = tag.find("a", href=True) is not None
        return bool(SURE_LABEL.fullmatch(label)) or (links and bool(LABEL.fullmatch(label)))
    href = attribute(tag, "href")
    if "#" not in href:
        return False
    if SURE_LABEL.fullmatch(label) or RETURN_LABEL.fullmatch(label):
        return True
    hints = [href.rpartition("#")[2], attribute(tag, "id"), *attribute(tag, "class").split()]
    raised = tag.find("sup") is not None or (tag.parent is not None and tag.parent.name == "sup")
    return bool(LABEL.fullmatch(label)) and (raised or any(HINT.search(hint) for hint in hints))


def is_raised_number(tag: "Tag") -> bool:
    """Return True for <sup>3</sup>, which is a footnote mark or an exponent."""
    return tag.name == "sup" and RAISED.fullmatch(short_text(tag, MAX_MARK) or "") is not None


def description(tag: "Tag") -> str:
    """Return what an element shows, or says about itself, to list it."""
    text = excerpt(_beginning(tag)) or short_text(tag, MAX_MARK)
    if text:
        return text
    for name in ("alt", "title", "aria-label", "alttext", "src", "value"):
        if attribute(tag, name):
            return excerpt(attribute(tag, name))
    image = tag.find(["img", "image"])
    if image is not None:
        return description(image)
    return excerpt(attribute(tag, "id"))


def _beginning(tag: "Tag") -> str:
    """Return the first text in an element, some more than what `excerpt` keeps, without the ways back of footnotes."""
    text = ""
    for node in nodes(tag):
        if isinstance(node, str) and not RETURN_LABEL.fullmatch(node.strip()):
            text += f"{node} "
        if len(text) > 2000:
            break
    return text
