"""Subtitle files: cues to SRT, WebVTT or JSON, written while they come.

Cue ─ SubtitleWriter ─┬─ SrtFile    times to the millisecond
                      ├─ VttFile    times to the millisecond
                      └─ JsonFile   samples and seconds, "estimated", chapter

SRT does not mark estimated times, having no comments. WebVTT says in a NOTE at its head that there are some; a NOTE at
each cue is shown as text by players that know the format half. A file appears under its name when it is complete.
"""

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TextIO

from ..errors import BookError
from ..files import PartialPath, WholeOrNothing
from .cues import Cue, break_cue
from .tags import clean

MIN_WIDTH = 10  # columns of a line


class SubtitleFormat(ABC):
    """How cues are written."""

    def __init__(self, sample_rate: int, language: str) -> None:
        self._sample_rate = sample_rate
        self._language = language

    @abstractmethod
    def header(self) -> str:
        """Return what comes before the cues."""

    @abstractmethod
    def cue(self, cue: Cue, number: int) -> str:
        """Return a cue; number: from 1."""

    def footer(self) -> str:
        """Return what comes after the cues."""
        return ""

    def _times(self, cue: Cue, point: str) -> str:
        """Return the line of a cue's times, which are at least a millisecond apart."""
        start = round(1000 * cue.start_sample / self._sample_rate)
        end = max(start + 1, round(1000 * cue.end_sample / self._sample_rate))
        return f"{_clock(start, point)} --> {_clock(end, point)}"


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


class SrtFile(SubtitleFormat):
    """SubRip."""

    def header(self) -> str:
        return ""

    def cue(self, cue: Cue, number: int) -> str:
        text = cue.text.replace("-->", "->")  # there is no escape for it
        return f"{number}\n{self._times(cue, ',')}\n{text}\n\n"


class VttFile(SubtitleFormat):
    """WebVTT. Source: W3C WebVTT, 4."""

    def header(self) -> str:
        return "WEBVTT\n\nNOTE Times between the sentences of one segment are estimated.\n\n"

    def cue(self, cue: Cue, number: int) -> str:
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")  # and thereby no "-->"
        return f"{number}\n{self._times(cue, '.')}\n{text}\n\n"


class JsonFile(SubtitleFormat):
    """One object, with a cue on each line."""

    def header(self) -> str:
        language = json.dumps(self._language, ensure_ascii=False)
        return f'{{"sample_rate": {self._sample_rate}, "language": {language}, "cues": ['

    def cue(self, cue: Cue, number: int) -> str:
        fields = {
            "start_sample": cue.start_sample,
            "end_sample": cue.end_sample,
            "start": round(cue.start_sample / self._sample_rate, 6),
            "end": round(cue.end_sample / self._sample_rate, 6),
            "text": cue.text,
            "estimated": cue.estimated,
            "chapter": cue.chapter,
        }
        comma = "," if number > 1 else ""
        return f"{comma}\n{json.dumps(fields, ensure_ascii=False)}"

    def footer(self) -> str:
        return "\n]}\n"


SUBTITLE_FORMATS: dict[str, type[SubtitleFormat]] = {".srt": SrtFile, ".vtt": VttFile, ".json": JsonFile}


def check_subtitles(target: str | os.PathLike) -> None:
    """Raise BookError if no subtitles can be written under this name."""
    path = Path(target)
    if path.suffix.lower() not in SUBTITLE_FORMATS:
        raise BookError(f"cannot write {path}: subtitles' names end in {', '.join(SUBTITLE_FORMATS)}")
    if path.exists() and not path.is_file():
        raise BookError(f"cannot write {path}: it is not a regular file")
    place = path
    if not path.exists():
        place = path.resolve().parent
    if not os.access(place, os.W_OK):
        raise BookError(f"cannot write {path}: the folder does not exist or is write-protected")


class SubtitleWriter(WholeOrNothing):
    """Writes cues to a file. As a context manager it closes at the end of the block, and aborts if that raises."""

    def __init__(
        self, target: str | os.PathLike, sample_rate: int, language: str = "", max_width: int | None = None
    ) -> None:
        """target: its suffix is the format. language: BCP 47, for JSON.

        max_width: break cues into two lines of this many columns each (42 is usual); None leaves a sentence one line.
        Raises BookError.
        """
        check_subtitles(target)
        if max_width is not None and max_width < MIN_WIDTH:
            raise BookError(f"max_width must be at least {MIN_WIDTH}, not {max_width}", "max_width")
        path = Path(target).resolve()
        self._format = SUBTITLE_FORMATS[path.suffix.lower()](sample_rate, language)
        self._max_width = max_width
        self._number = 0
        self._partial = PartialPath(path)
        self._file: TextIO | None = None
        try:
            self._file = self._partial.path.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self._failure(error) from None
        self._put(self._format.header())

    def write(self, cue: Cue) -> None:
        """Append a cue. Raises BookError; nothing is left behind then."""
        cue = Cue(cue.start_sample, cue.end_sample, clean(cue.text), cue.estimated, cue.chapter)
        cues = [cue] if self._max_width is None else break_cue(cue, self._max_width)
        for part in cues:
            self._number += 1
            self._put(self._format.cue(part, self._number))

    def close(self) -> None:
        """Complete the file and give it its name. Raises BookError."""
        if self._file is None:
            return
        self._put(self._format.footer())
        try:
            self._file.close()
            self._partial.commit()
        except OSError as error:
            raise self._failure(error) from None
        self._file = None

    def abort(self) -> None:
        """Leave nothing behind. After `close` it does nothing."""
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError:  # what it still held does not fit on the disk
            pass
        finally:
            self._file = None
            self._partial.discard()

    def _put(self, text: str) -> None:
        assert self._file is not None
        try:
            self._file.write(text)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> BookError:
        """Abort, and return the error to raise."""
        self.abort()
        return BookError(f"cannot write {self._partial.target}: {error.strerror or error}")
