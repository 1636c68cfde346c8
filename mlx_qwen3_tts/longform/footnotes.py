"""Footnotes that nothing marks as such: a footnote mark links to them, in the same file or from another.

<p>The pool<a href="notes.html#n3">[3]</a> of tears.</p>      the mark, its label 3, its target notes.html#n3
<p id="n3"><a href="one.html#r3">[3]</a> Of salt water.</p>   the note: a mark links to it, and it begins with one
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from .flow import Flow
from .links import resolve

BRACKETS = " []［］〔〕【】()（）注註"


@dataclass(frozen=True)
class Note:
    """The blocks from `start` to before `end`, which are a footnote if a mark links to one of the ids.

    label: with which they begin, and which the mark must have; None if it may have any.
    """

    start: int
    end: int
    ids: tuple[str, ...]
    label: str | None


@dataclass
class Footnotes:
    """The marks and the possible notes of a book.

    locate: returns the file and the id that a link in a file leads to. marks: their labels, by that file and id.
    """

    locate: Callable[[str, str], tuple[str, str]] = resolve
    marks: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    notes: list[tuple[str, int, Note]] = field(default_factory=list)

    def add(self, name: str, offset: int, notes: list[Note], marks: list[tuple[str, str]]) -> None:
        """Add those of a file. offset: the index of its first block. marks: (link, label)."""
        self.notes += [(name, offset, note) for note in notes]
        for link, label in marks:
            self.marks.setdefault(self.locate(name, link), set()).add(bare(label))

    def drop(self, flow: Flow) -> None:
        """Drop the footnotes from a book."""
        for name, offset, note in self.notes:
            labels: set[str] = set()
            for anchor in note.ids:
                labels |= self.marks.get((name, anchor), set())
            if labels and (note.label is None or note.label in labels):
                flow.drop(offset + note.start, offset + note.end, "footnote")


def bare(label: str) -> str:
    """Return a label without brackets: "3" for "[3]"."""
    return label.strip(BRACKETS)
