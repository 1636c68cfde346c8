"""Takes to a book: one after the other, with the pauses between them, into a file with chapters and its subtitles.

parts ─ takes ─ finish_speech ─ BookWriter ─► novel.m4b    or  novel/01 The Beginning.mp3, ...
                    └ sentence_cues ────────► novel.srt    or  novel/01 The Beginning.srt, ...
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import BookError
from .container import BookWriter, check_target, find_format
from .cues import Cue, sentence_cues
from .make import Progress
from .options import BookOptions
from .parts import Part
from .plan import Plan
from .sound import Gains, finish_speech, silence
from .subtitles import SUBTITLE_FORMATS, SubtitleWriter, check_subtitles
from .tags import Metadata
from .takes import Take, TakeStore

SUBTITLES = tuple(suffix[1:] for suffix in SUBTITLE_FORMATS)
LINE_WIDTH = 42  # columns of a line of SRT and WebVTT, as is usual; JSON has whole sentences


def check_output(target: Path, subtitles: str | None, folder_format: str | None = None) -> None:
    """Raise BookError if the book or its subtitles cannot be written; call it before the work."""
    check_target(target, folder_format)
    if subtitles is None:
        return
    if subtitles not in SUBTITLES:
        raise BookError(f"subtitles must be one of {', '.join(SUBTITLES)}, not {subtitles!r}", "subtitles")
    if not find_format(target, folder_format)[1]:
        check_subtitles(subtitles_beside(target, subtitles))


def subtitles_beside(target: Path, subtitles: str) -> Path:
    """Return the file of a book's subtitles."""
    return target.with_suffix(f".{subtitles}")


def chapter_title(plan: Plan, chapter: int) -> str:
    """Return the title of a chapter, counted from 1; its number if it has none."""
    return plan.document.chapters[chapter - 1].title or f"Chapter {chapter}"


class Assembly:
    """A book that is being put together from its takes."""

    def __init__(
        self, plan: Plan, parts: Sequence[Part], takes: Mapping[str, Take], store: TakeStore, options: BookOptions
    ) -> None:
        """takes: by the parts' keys; all of them."""
        self._plan = plan
        self._parts = parts
        self._takes = takes
        self._store = store
        self._options = options
        self._gains = Gains(((part.voice, takes[part.key]) for part in parts), store.sample_rate, options.loudness)

    def write(self, target: Path, subtitles: str | None = None, folder_format: str | None = None) -> Iterator[Progress]:
        """Write the book, and then its subtitles; see Renderer.assemble.

        Raises BookError, and DamagedTake for a take that cannot be read.
        """
        document = self._plan.document
        metadata = Metadata(document.title, document.author, document.language, document.cover)
        is_folder = find_format(target, folder_format)[1]
        cues: dict[str, list[Cue]] = {}  # by the name of the chapter's file
        with BookWriter(
            target,
            self._store.sample_rate,
            metadata,
            folder_format=folder_format,
            num_chapters=len(document.chapters),
        ) as writer:
            yield from self._write_parts(writer, cues, is_folder)
        if subtitles is None:
            return
        if is_folder:
            for name, found in cues.items():
                self._write_subtitles(target / f"{Path(name).stem}.{subtitles}", found)
        else:
            self._write_subtitles(
                subtitles_beside(target, subtitles), [one for found in cues.values() for one in found]
            )

    def _write_parts(self, writer: BookWriter, cues: dict[str, list[Cue]], is_folder: bool) -> Iterator[Progress]:
        began = time.perf_counter()
        rate = self._store.sample_rate
        chapter = 0
        for number, part in enumerate(self._parts, start=1):
            segment = part.segment
            if segment.chapter != chapter:
                chapter = segment.chapter
                writer.begin_chapter(chapter_title(self._plan, chapter), chapter)
                found = cues[writer.chapter_file_name] = []
                origin = writer.num_samples if is_folder else 0
            writer.write(silence(segment.pause_before, rate))
            speech = self._speech(part)
            found += sentence_cues(speech, rate, writer.num_samples - origin, segment.sentences, chapter)
            writer.write(speech)
            writer.write(silence(segment.pause_after, rate))
            seconds = time.perf_counter() - began
            left = seconds / number * (len(self._parts) - number)
            yield Progress("write", number, len(self._parts), writer.num_samples / rate, seconds, left)

    def _speech(self, part: Part) -> np.ndarray:
        take = self._takes[part.key]
        factor = self._gains.factor(part.voice, take)
        return finish_speech(self._store.audio(take), take, self._store.sample_rate, self._options.speed, factor)

    def _write_subtitles(self, path: Path, cues: Sequence[Cue]) -> None:
        width = None if path.suffix == ".json" else LINE_WIDTH
        with SubtitleWriter(path, self._store.sample_rate, self._plan.document.language, width) as writer:
            for cue in cues:
                writer.write(cue)
