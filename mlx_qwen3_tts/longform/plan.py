"""What is spoken in which order: a document becomes segments, each one request to the model.

document ─ script: marks, speakers ─ passages: paragraphs, pauses ─ cut: segments ─ pronounce ─ Plan
"""

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import DocumentError
from ..request import MAX_SEED
from .document import Document
from .lengths import expected_seconds
from .options import BookOptions
from .passages import Draft, drafts_of
from .pronounce import Pronouncer, read_pronunciations
from .script import read_script
from .sentences import split_sentences

MAX_LISTED = 200  # characters of a note on what is left out

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
class Note:
    """What the user should know, in one line; `str` returns it.

    kind: "mark" for a script mark that has no effect, "left out" for parts that are not read; `Document.dropped` has
    those in full.
    """

    kind: Literal["mark", "left out"]
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Plan:
    """The segments of a document, or of some of its chapters, in order.

    chapters: the chapters that have segments, by number from 1.
    """

    document: Document
    segments: tuple[Segment, ...]
    chapters: tuple[int, ...]
    notes: tuple[Note, ...]

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


def plan(document: Document, options: BookOptions, chapters: Sequence[int] | None = None) -> Plan:
    """Return the segments of a document.

    chapters: indices of the chapters to be read, from 0; None is all of them. A segment's text and seed are the same
    whichever are read. Raises DocumentError for an invalid pronunciation list or index, and if nothing is to be read.
    """
    chosen = _chosen(document, chapters)
    notes = _notes_on_dropped(document, chosen)
    pronouncer = _pronouncer(options)
    occurrences: Counter[tuple[str | None, str]] = Counter()
    planned: list[list[Segment]] = []
    last = False  # the pause after the last segment is the script's
    for index, chapter in enumerate(document.chapters):
        items, found = read_script(chapter, options)
        before, drafts = drafts_of(items, options)
        _end_chapter(drafts, options)
        segments = _segments(index + 1, before, drafts, pronouncer, options.seed, occurrences)
        if index in chosen:
            notes += [Note("mark", f"chapter {index + 1}: {text}") for text in found]
            if segments:
                planned.append(segments)
                last = drafts[-1].is_set
    if not planned:
        raise DocumentError("there is nothing to read: the chapters chosen have no text")
    if not last:
        planned[-1][-1] = replace(planned[-1][-1], pause_after=0.0)
    numbers = tuple(segments[0].chapter for segments in planned)
    return Plan(document, tuple(segment for segments in planned for segment in segments), numbers, tuple(notes))


def _chosen(document: Document, chapters: Sequence[int] | None) -> list[int]:
    """Return the indices of the chapters to be read, in order."""
    count = len(document.chapters)
    chosen = list(range(count)) if chapters is None else sorted(set(chapters))
    for index in chosen:
        if not 0 <= index < count:
            raise DocumentError(f"chapter {index + 1} does not exist: the book has {count}")
    return chosen


def _pronouncer(options: BookOptions) -> Pronouncer:
    entries = options.pronounce or ()
    if isinstance(entries, str | os.PathLike):
        entries = read_pronunciations(entries)
    return Pronouncer(entries, options.any_case)


def _end_chapter(drafts: Sequence[Draft], options: BookOptions) -> None:
    """Set the pause after a chapter's last segment, unless the script has."""
    if drafts and not drafts[-1].is_set:
        drafts[-1].pause = options.chapter_pause


def _segments(
    chapter: int,
    before: float,
    drafts: Iterable[Draft],
    pronouncer: Pronouncer,
    seed: int,
    occurrences: Counter[tuple[str | None, str]],
) -> list[Segment]:
    """Return the segments of a chapter. occurrences: of each voice and text so far, which are counted on."""
    segments = []
    for number, draft in enumerate(drafts, start=1):
        text = pronouncer.apply(draft.shown)
        occurrences[draft.voice, text] += 1
        segments.append(
            Segment(
                chapter=chapter,
                number=number,
                text=text,
                shown=draft.shown,
                sentences=_sentences(draft.shown),
                voice=draft.voice,
                pause_after=draft.pause,
                seed=segment_seed(seed, draft.voice, text, occurrences[draft.voice, text]),
                kind=draft.kind,
                seconds=expected_seconds(text),
                pause_before=before,
            )
        )
        before = 0.0  # the others have none
    return segments


def segment_seed(seed: int, voice: str | None, text: str, occurrence: int) -> int:
    """Return the seed of a segment, 0 to MAX_SEED; it does not depend on where in the book the segment is.

    seed: the book's. voice: named by the script, or None. occurrence: of this text in this voice in the book, from 1.
    """
    parts = json.dumps([int(seed), voice, text, occurrence]).encode()
    return int.from_bytes(hashlib.sha256(parts).digest()[:8], "big") & MAX_SEED


def _sentences(shown: str) -> tuple[str, ...]:
    """Return the sentences of a segment; each of its paragraphs, on lines of their own, begins a new one."""
    found = (sentence.strip() for line in shown.split("\n") for sentence in split_sentences(line))
    return tuple(sentence for sentence in found if sentence)


def _notes_on_dropped(document: Document, chosen: Sequence[int]) -> list[Note]:
    """Return a note for each kind of thing that is left out of each chapter."""
    titles = {document.chapters[index].title for index in chosen}
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for dropped in document.dropped:
        if dropped.chapter in titles:
            texts[dropped.chapter, dropped.kind].append(dropped.text)
    notes = []
    for (title, kind), found in texts.items():
        quoted = ", ".join(repr(text) for text in found if text)
        if len(quoted) > MAX_LISTED:
            quoted = f"{quoted[:MAX_LISTED]} ..."
        text = f"left out of {title!r}: {kind}"
        if len(found) > 1:
            text += f" ({len(found)} times)"
        if quoted:
            text += f": {quoted}"
        notes.append(Note("left out", text))
    return notes
