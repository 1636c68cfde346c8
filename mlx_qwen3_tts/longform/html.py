"""HTML to blocks: headings, paragraphs and breaks; everything else is text in them, or dropped and listed.

markup ─ parse ─ tree ─ traverse ─ PageReader ─ Page ─ Flow ─ Content
                           │
                           └─ skip: footnotes, marks, page numbers, code, images, tables ... to the list
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .content import Block, Content
from .flow import Flow, Mark, cut, heading_starts, pattern_starts
from .footnotes import Footnotes, Note, bare
from .lines import excerpt, is_break, one_line, paragraphs
from .markup import attribute, parse, traverse
from .notes import BEGINNING, follows_word, strip_marks
from .ruby import RubyText
from .skip import description, is_raised_number, kind_of

if TYPE_CHECKING:
    from bs4 import Tag

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "html", "legend", "li", "main",
    "menu", "ol", "p", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul", *HEADINGS,
}  # fmt: skip
NOTES = {"dd", "div", "dt", "li", "p"}  # what may be a footnote, if a mark links to it
NO_TEXT = {"base", "link", "meta", "title"}
LINE = "\u2028"  # between the lines of a paragraph
PIECES_BEFORE, CHARACTERS_BEFORE = 8, 80  # how much is looked at before a raised number
MAX_BEGINNINGS = 3  # nested elements that may be the same footnote


@dataclass
class Page:
    """What one HTML file holds.

    anchors: the index of the block that each id stands at. notes: what may be footnotes. marks: (link, label) of the
    footnote marks.
    """

    title: str = ""
    author: str = ""
    language: str = ""
    flow: Flow = field(default_factory=Flow)
    anchors: dict[str, int] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    marks: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Element:
    """An open element that may be a footnote: where it began, and the ids at its beginning."""

    tag: "Tag"
    start: int
    ids: list[str]
    marked: bool = False


class PageReader:
    """Collects a page from its tree."""

    def __init__(self) -> None:
        self.page = Page()
        self._blocks = self.page.flow.blocks
        self._text: list[str] = []
        self._begun = False  # text other than white space
        self._heading = 0
        self._in_head = False
        self._ruby: tuple[Tag, RubyText] | None = None
        self._open: list[_Element] = []
        self._images: list[str] = []

    def enter(self, tag: "Tag") -> bool:
        """Begin an element; return whether its content is read."""
        if self._ruby is not None:
            return self._ruby[1].enter(tag)
        if tag.name in BLOCKS:
            if tag.name == "p" and self._begun:
                self._flush()
                self._heading = 0  # a heading that was not closed
            self._flush()
        self._anchor(tag)
        if tag.name in ("head", "body"):
            self._in_head = tag.name == "head"
        if self._metadata(tag):
            return False
        kind = kind_of(tag)
        if kind is None and is_raised_number(tag) and follows_word(self._before()):
            kind = "footnote mark"
        if kind is not None:
            self._drop(tag, kind)
            return False
        self._begin(tag)
        return True

    def _begin(self, tag: "Tag") -> None:
        """Begin an element whose content is read."""
        if tag.name == "ruby":
            self._ruby = (tag, RubyText())
        elif tag.name == "br":
            self._append(LINE)
        elif tag.name == "hr":
            self._flush()
            self._blocks.append(Block("break"))
        elif tag.name in HEADINGS:
            self._heading = int(tag.name[1])
        if tag.name in NOTES:
            self._open.append(_Element(tag, len(self._blocks), [attribute(tag, "id")]))

    def leave(self, tag: "Tag") -> None:
        """End an element."""
        if self._ruby is not None:
            if tag is not self._ruby[0]:
                self._ruby[1].leave(tag)
                return
            self._append(self._ruby[1].spoken())
            self._ruby = None
        if tag.name == "head":
            self._in_head = False
        if tag.name in BLOCKS:
            self._flush()
        if tag.name in HEADINGS:
            self._heading = 0
        if self._open and self._open[-1].tag is tag:
            self._close(self._open.pop())

    def text(self, text: str) -> None:
        """Take a piece of text."""
        if self._ruby is not None:
            self._ruby[1].text(text)
        elif not self._in_head or text.strip():
            self._append(text)

    def _append(self, text: str) -> None:
        """Add to the paragraph or heading."""
        self._text.append(text)
        self._begun = self._begun or bool(text.strip())

    def _before(self) -> str:
        """Return the end of the paragraph or heading as far as it is read."""
        return "".join(self._text[-PIECES_BEFORE:])[-CHARACTERS_BEFORE:]

    def finish(self) -> Page:
        """Return the page."""
        self._flush()
        return self.page

    def _metadata(self, tag: "Tag") -> bool:
        """Read what an element says about the whole page; return whether it says nothing else."""
        page = self.page
        if tag.name == "html":
            page.language = attribute(tag, "lang") or attribute(tag, "xml:lang")
        elif tag.name == "title" and not page.title:
            page.title = excerpt(tag.get_text())
        elif tag.name == "meta" and attribute(tag, "name").lower() == "author" and not page.author:
            page.author = excerpt(attribute(tag, "content"))
        return tag.name in NO_TEXT or (self._in_head and tag.name in ("script", "style", "noscript"))

    def _anchor(self, tag: "Tag") -> None:
        """Note where an id is: at the paragraph that it stands in."""
        ids = [attribute(tag, "id")]
        if tag.name == "a":
            ids.append(attribute(tag, "name"))
        ids = [name for name in ids if name]
        for name in ids:
            self.page.anchors.setdefault(name, len(self._blocks))
        if ids and not self._begun:
            for element in self._open[-MAX_BEGINNINGS:]:
                if element.start == len(self._blocks):
                    element.ids.extend(ids)

    def _drop(self, tag: "Tag", kind: str) -> None:
        """List an element and note its ids; what only its description shows may still be read."""
        for descendant in tag.find_all(id=True):
            self._anchor(descendant)
        if kind == "footnote mark":
            links = [tag, *tag.find_all("a")]
            self.page.marks += [(attribute(link, "href"), description(tag)) for link in links if link.has_attr("href")]
            if not self._begun:
                for element in self._open[-MAX_BEGINNINGS:]:
                    element.marked = element.marked or element.start == len(self._blocks)
        alternative = one_line(attribute(tag, "alt"))
        if kind == "image" and len(alternative) == 1 and alternative.isalpha():
            self._append(alternative)  # an initial: "A" and "lice was beginning ..."
        elif kind == "image" and self._heading:
            self._images.append(alternative)
        self.page.flow.dropped.append(Mark(len(self._blocks), kind, description(tag)))

    def _flush(self) -> None:
        """End a heading or a paragraph."""
        text = "".join(self._text)
        self._text.clear()
        self._begun = False
        if self._heading and not text.strip():
            text = " ".join(self._images)  # a heading that is drawn
        self._images.clear()
        if self._heading:
            self._add(one_line(text.replace(LINE, "\n")))
            return
        for line in paragraphs(text.split(LINE)):
            self._add(line)

    def _add(self, line: str) -> None:
        """Add a heading, a paragraph or a break."""
        line, dropped = strip_marks(line)
        self.page.flow.dropped += [Mark(len(self._blocks), kind, text) for kind, text in dropped]
        if is_break(line):
            self._blocks.append(Block("break"))
        elif line and self._heading:
            self._blocks.append(Block("heading", line, self._heading))
        elif line:
            self._blocks.append(Block("paragraph", line))

    def _close(self, element: _Element) -> None:
        """Note blocks that are a footnote if a mark links to them."""
        ids = tuple(name for name in element.ids if name)
        if not ids or element.start >= len(self._blocks):
            return
        first = self._blocks[element.start]
        numbered = BEGINNING.match(first.text) if first is not None else None
        if element.marked or element.tag.name == "li":
            self.page.notes.append(Note(element.start, len(self._blocks), ids, label=None))
        elif numbered:
            self.page.notes.append(Note(element.start, len(self._blocks), ids, bare(numbered[1])))


def read_page(markup: str, name: str) -> Page:
    """Return what an HTML file holds. name: of the file, for messages. Raises DocumentError."""
    reader = PageReader()
    traverse(parse(markup, name), reader)
    return reader.finish()


def read_html(markup: str, name: str, fallback: str, chapter_pattern: str | None) -> Content:
    """Return the content of an HTML file; see document.read_document. Raises DocumentError.

    name: of the file, for messages. fallback: the title if the file has none.
    """
    page = read_page(markup, name)
    footnotes = Footnotes()
    footnotes.add("", 0, page.notes, page.marks)
    footnotes.drop(page.flow)
    title, starts = heading_starts(page.flow, first_is_title=True)
    if chapter_pattern is not None:
        starts = pattern_starts(page.flow, chapter_pattern)
    title = page.title or title or fallback
    chapters, dropped = cut(page.flow, starts, title)
    return Content(title, page.author, page.language, None, chapters, dropped)
