"""Which entries of a table of contents begin chapters: not the sections in them, and not the parts above them.

    Part One          no text before Chapter 1: a part, whose heading goes to Chapter 1
      Chapter 1       text of its own: a chapter ...
        A Section     ... with this inside it
      Chapter 2
    Epilogue          a chapter

entries, places ─ tree ─ text of each ─ parts are opened, level by level ─ starts
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from .content import Block
from .flow import Start
from .toc import Entry

# The share of a part's text that may stand before its first chapter: a heading, an epigraph.
PART_SHARE = 0.02
# Beside parts, an entry with up to this share before its first child is a part, whose introduction is a chapter.
INTRODUCTION_SHARE = 0.2
# What says of itself that it is a chapter has sections below it.
CHAPTER = re.compile(
    r"(?:chapter|kapitel|chapitre|cap[ií]tulo|capitolo|глава)\b|第\s?\S{1,8}?\s?[章回話话]|제?\s?\d{1,4}\s?장",
    re.IGNORECASE,
)


@dataclass(eq=False)
class _Node:
    """An entry in the tree.

    order: among the entries. place: index of its block, -1 if it leads nowhere. own: characters of paragraphs up to the
    next entry. total: with those of the entries below it.
    """

    entry: Entry
    order: int
    place: int = -1
    own: int = 0
    total: int = 0
    children: list["_Node"] = field(default_factory=list)

    @property
    def share(self) -> float:
        """How much of its text stands before its first child."""
        if not self.total:
            return 0.0
        return self.own / self.total

    @property
    def can_be_part(self) -> bool:
        return bool(self.children) and not CHAPTER.match(self.entry.title)


def chapter_starts(
    entries: Sequence[Entry], places: Sequence[int | None], blocks: Sequence[Block | None]
) -> list[Start]:
    """Return where chapters begin, in the order of the text.

    places: the index of the block that each entry leads to; None if it leads nowhere.
    """
    nodes = _tree(entries, places)
    _weigh(nodes, blocks)
    below = {child for node in nodes for child in node.children}
    groups = [[node for node in nodes if node not in below]]
    parts: set[_Node] = set()
    chapters: list[_Node] = []
    while groups:
        group = groups.pop()
        opened = _parts(group)
        parts.update(opened)
        chapters += [node for node in group if node not in opened or node.share > PART_SHARE]
        groups += [node.children for node in opened]
    return _starts(sorted({*chapters, *parts}, key=lambda node: (node.place, node.order)), set(chapters))


def _tree(entries: Sequence[Entry], places: Sequence[int | None]) -> list[_Node]:
    """Return the entries that have a place; one that is a mere group has the place of its first child."""
    nodes = []
    ancestors: list[_Node] = []
    for order, (entry, place) in enumerate(zip(entries, places, strict=True)):
        node = _Node(entry, order)
        if place is not None:
            node.place = place
        while ancestors and ancestors[-1].entry.depth >= entry.depth:
            ancestors.pop()
        if ancestors:
            ancestors[-1].children.append(node)
        ancestors.append(node)
        nodes.append(node)
    for node in reversed(nodes):
        node.children = [child for child in node.children if child.place >= 0]
        if node.place < 0 and node.children:
            node.place = node.children[0].place
    return [node for node in nodes if node.place >= 0]


def _weigh(nodes: Sequence[_Node], blocks: Sequence[Block | None]) -> None:
    """Fill in how much text each entry has."""
    sizes = [len(block.text) if block and block.kind == "paragraph" else 0 for block in blocks]
    if not any(sizes):  # a book in headings only
        sizes = [len(block.text) if block else 0 for block in blocks]
    before = list(accumulate(sizes, initial=0))
    bounds = sorted({node.place for node in nodes} | {len(blocks)})
    ends = dict(pairwise(bounds))
    for node in reversed(nodes):
        if all(child.place != node.place for child in node.children) and node.place in ends:
            node.own = before[ends[node.place]] - before[node.place]
        node.total = node.own + sum(child.total for child in node.children)


def _parts(group: Sequence[_Node]) -> list[_Node]:
    """Return those of entries beside each other that are parts.

    If most of the text is in chapters with sections, the others are chapters, too, though they begin with a section.
    """
    bare = [node for node in group if node.can_be_part and node.share <= PART_SHARE]
    chapters = [node for node in group if node.children and node not in bare]
    if sum(node.total for node in bare) <= sum(node.total for node in chapters):
        return []
    return bare + [node for node in chapters if node.can_be_part and node.share <= INTRODUCTION_SHARE]


def _starts(nodes: Sequence[_Node], chapters: set[_Node]) -> list[Start]:
    """Return the beginnings of chapters. nodes: chapters and parts in the order of the text.

    What is a heading only, as parts are, goes to the chapter that follows.
    """
    starts: list[Start] = []
    heading: _Node | None = None
    taken = -1
    for node in nodes:
        if node not in chapters or node.total == 0:
            heading = heading or node
            continue
        if node.place != taken:  # if several entries share a place, the first one counts
            first = heading or node
            starts.append(Start(first.place, node.entry.title))
            taken = node.place
        heading = None
    if heading is not None:
        starts.append(Start(heading.place, heading.entry.title))
    return starts
