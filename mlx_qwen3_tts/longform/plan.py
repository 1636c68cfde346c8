"""What is spoken in which order: a document becomes segments, each one request to the model.

document ─ script (marks, speakers) ─ pieces of one voice ─ cut (sentences, lengths) ─ pronounce ─ Plan of Segments
"""

import re
from dataclasses import dataclass

from ..errors import DocumentError
from .document import Document

PLACE = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Segment:
    """One request to the model, and the silence around its speech.

    chapter, number: from 1, as the user counts; "3:17" is segment 17 of chapter 3. number counts in the chapter.
    text: as it is spoken. shown: as the book has it, without script marks.
    sentences: of `shown`; joined, they are `shown` up to white space.
    voice: named by the script; None is the book's.
    pause_before, pause_after: seconds of silence. Only the first segment of a chapter has a pause before it.
    seed: derives from the book's seed, the voice, the text, and how often the book had the same text before.
    kind: "heading" or "paragraph".
    seconds: that the speech is expected to take.
    """

    chapter: int
    number: int
    text: str
    shown: str
    sentences: tuple[str, ...]
    voice: str | None
    pause_after: float
    seed: int
    kind: str
    seconds: float
    pause_before: float = 0.0

    @property
    def place(self) -> str:
        """The segment as the user names it, such as "3:17"."""
        return f"{self.chapter}:{self.number}"


@dataclass(frozen=True)
class Plan:
    """The segments of a document, or of some of its chapters, in order.

    chapters: the chapters that have segments, by number from 1.
    notes: what the user should know: marks that are read as text, parts that are left out. One line each.
    """

    document: Document
    segments: tuple[Segment, ...]
    chapters: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Seconds that the book is expected to take, with its pauses, at speed 1."""
        return sum(segment.pause_before + segment.seconds + segment.pause_after for segment in self.segments)

    def of_chapter(self, chapter: int) -> tuple[Segment, ...]:
        """Return the segments of a chapter, counted from 1."""
        return tuple(segment for segment in self.segments if segment.chapter == chapter)

    def find(self, place: str) -> Segment:
        """Return the segment at a place such as "3:17". Raises DocumentError for any other."""
        match = PLACE.fullmatch(place.strip())
        if not match:
            raise DocumentError(f"a segment is named as chapter:segment, such as 3:17, not {place!r}")
        chapter, number = int(match[1]), int(match[2])
        if chapter not in self.chapters:
            raise DocumentError(f"segment {place}: chapter {chapter} is not among those to be read")
        segments = self.of_chapter(chapter)
        if not 1 <= number <= len(segments):
            raise DocumentError(f"segment {place}: chapter {chapter} has segments 1 to {len(segments)}")
        return segments[number - 1]
