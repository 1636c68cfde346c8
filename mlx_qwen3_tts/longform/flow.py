"""The blocks of a whole book in one row, and how they are cut to chapters.

    blocks   heading, paragraph, paragraph, break, heading, ...
    starts   0 "Down the Rabbit-Hole",              4 "The Pool of Tears", ...
             └─ Chapter                             └─ Chapter

A start comes from a table of contents, from headings, or from lines that a pattern matches.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import DocumentError
from .content import Block, Chapter, Dropped
from .lines import excerpt


@dataclass(frozen=True)
class Start:
    """Where a chapter begins: at the block of this index."""

    index: int
    title: str
    is_block: bool = False  # with the block itself: what was dropped right before it belongs to the chapter before


@dataclass(frozen=True)
class Mark:
    """Something dropped before the block of this index."""

    index: int
    kind: str
    text: str


@dataclass
class Flow:
    """The blocks of a book, and what was dropped between them. A block that is dropped later becomes None."""

    blocks: list[Block | None] = field(default_factory=list)
    dropped: list[Mark] = field(default_factory=list)

    def drop(self, start: int, end: int, kind: str) -> None:
        """Drop the blocks from `start` to before `end`."""
        for index in range(start, end):
            block = self.blocks[index]
            if block is not None:
                self.dropped.append(Mark(index, kind, excerpt(block.text)))
                self.blocks[index] = None

    def between(self, start: int, end: int) -> tuple[Block, ...]:
        """Return the blocks from `start` to before `end`, without breaks at the ends or next to each other."""
        kept: list[Block] = []
        for block in self.blocks[start:end]:
            if block is None or (block.kind == "break" and (not kept or kept[-1].kind == "break")):
                continue
            kept.append(block)
        if kept and kept[-1].kind == "break":
            kept.pop()
        return tuple(kept)


def heading_starts(flow: Flow, first_is_title: bool) -> tuple[str, list[Start]]:
    """Return the book's title and the chapters' beginnings by the headings.

    The headings of the highest level begin chapters. If there is only one of that level, and first_is_title, it is the
    title of the book, and those of the next level begin chapters.
    """
    headings = [(index, block) for index, block in enumerate(flow.blocks) if block and block.kind == "heading"]
    title = ""
    levels = sorted({block.level for _, block in headings})
    if not levels:
        return title, []
    top = [(index, block) for index, block in headings if block.level == levels[0]]
    if first_is_title and len(top) == 1 and top[0][0] == headings[0][0]:
        title = top[0][1].text
        if len(levels) > 1:
            top += [(index, block) for index, block in headings if block.level == levels[1]]
    return title, [Start(index, block.text, is_block=True) for index, block in top]


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a compiled chapter pattern. Raises DocumentError."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise DocumentError(
            f"chapter_pattern {pattern!r} is not a regular expression ({error})", "chapter_pattern"
        ) from None


def pattern_starts(flow: Flow, pattern: str) -> list[Start]:
    """Return the chapters' beginnings: the headings and paragraphs that the pattern matches as a whole.

    The paragraphs among them become headings. Raises DocumentError if there are none.
    """
    matches = compile_pattern(pattern).fullmatch
    starts = []
    for index, block in enumerate(flow.blocks):
        if block is None or block.kind == "break" or not matches(block.text):
            continue
        if block.kind == "paragraph":
            flow.blocks[index] = Block("heading", block.text, level=1)
        starts.append(Start(index, block.text, is_block=True))
    if not starts:
        raise DocumentError(f"chapter_pattern {pattern!r} matches no heading or line as a whole", "chapter_pattern")
    return starts


def cut(flow: Flow, starts: Sequence[Start], title: str) -> tuple[tuple[Chapter, ...], tuple[Dropped, ...]]:
    """Return the chapters that begin at `starts`, and what was dropped from each.

    A start without text up to the next one makes no chapter. title: of the book, for text before the first start
    without a heading of its own.
    """
    bounds = sorted(starts, key=lambda start: start.index)
    if not bounds or bounds[0].index > 0:
        bounds.insert(0, Start(0, ""))
    next_starts = [*bounds[1:], Start(len(flow.blocks) + 1, "")]
    marks = sorted(flow.dropped, key=lambda mark: mark.index)
    position = 0
    chapters: list[Chapter] = []
    dropped = []
    for start, following in zip(bounds, next_starts, strict=True):
        blocks = flow.between(start.index, following.index)
        last_mark = following.index if following.is_block else following.index - 1
        heading = next((block.text for block in blocks if block.kind == "heading"), "")
        name = start.title or heading or (str(len(chapters) + 1) if chapters else title)
        if blocks:
            chapters.append(Chapter(name, blocks))
        while position < len(marks) and marks[position].index <= last_mark:
            dropped.append(Dropped(marks[position].kind, marks[position].text, name))
            position += 1
    return tuple(chapters), tuple(dropped)
