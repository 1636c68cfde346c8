"""The clips that a user trains on: what the source says of them. Nothing is decoded yet.

data.jsonl, one object a line      ─┐
a folder: a.wav beside a.txt       ─┼─ read_clips ─ Clip, Clip, ... ─ prepare.py
metadata.csv of LJSpeech, wavs/    ─┘
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TrainingError, printable
from ..text.unicode import is_unicode

METADATA = "metadata.csv"  # the file that LJSpeech has
TEXT_SUFFIXES = (".txt", ".lab")
# The last five cannot be read; such a clip is left out with its reason instead of being overlooked.
AUDIO_SUFFIXES = {
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64",
    ".m4a", ".aac", ".mp4", ".webm", ".wma",
}  # fmt: skip
FORMATS = f"a JSONL file, a folder of audio files with a .txt beside each, or {METADATA} of LJSpeech"


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording and what is said in it."""

    audio: Path
    text: str  # empty if the source has none
    language: str | None
    speaker: str
    ref_audio: Path | None  # the clip that the speaker embedding is made from; None takes `audio`
    codes: np.ndarray | None  # int32 [frames, 16], from the source's audio_codes
    where: str  # for messages: the source and the line, or the audio file in a folder
    source: str  # the audio's name as the source writes it


def read_clips(source: Path, name: str | None = None) -> list[Clip]:
    """Read a list of clips in one of the formats above.

    A line of a JSONL file has `audio` and `text`, and may have `ref_audio`, `language`, `speaker` and `audio_codes`.
    Relative paths start from the file's folder. A folder that has metadata.csv is read as LJSpeech, with the normalized
    text if a line has it. In other folders, subfolders are read as well.
    name: the speaker of clips that name none; None if all of them name one.
    Raises TrainingError for files that are missing or cannot be read, for an invalid line, whose number it gives, for
    a clip without a speaker, for speakers whose names differ in case only, and if there are no clips.
    """
    if name is not None:
        name = name.strip()
        if not name or not is_unicode(name):
            raise TrainingError(f"name must be the name of the speaker, not {name!r}", "name")
    source = Path(os.path.expanduser(source))
    if not os.path.exists(source):
        raise TrainingError(f"{source} does not exist: give {FORMATS}")
    clips = list(_read(source, name))
    if not clips:
        raise TrainingError(f"{source} has no clips: give {FORMATS}")
    _check_files(source, clips)
    _check_speakers(clips)
    return clips


def _read(source: Path, name: str | None) -> Iterator[Clip]:
    """Yield the clips of a source by its format. Raises TrainingError if one has no speaker."""
    if not source.is_dir() and source.suffix.lower() != ".csv":
        yield from _read_jsonl(source, name)
        return
    if name is None:
        raise TrainingError(f"the speaker of {source} has no name: give name", "name")
    metadata = source
    if source.is_dir():
        metadata = source / METADATA
    if metadata.exists():
        yield from _read_ljspeech(metadata, name)
    else:
        yield from _read_folder(source, name)


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file that are not blank: where each is, for messages, and its text."""
    if not path.is_file():  # a pipe would block, and a device may be endless
        raise TrainingError(f"{path} is not a regular file: give {FORMATS}")
    try:
        with path.open("rb") as file:
            encoding = "utf-8-sig"  # of the first line, which may begin with a byte order mark
            for number, line in enumerate(file, start=1):
                where = f"{path}, line {number}"
                try:
                    text = line.decode(encoding).strip()
                except UnicodeDecodeError:
                    raise TrainingError(f"{where}: not UTF-8; convert the file first") from None
                encoding = "utf-8"
                if text:
                    yield where, text
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror}") from None


def _read_jsonl(path: Path, name: str | None) -> Iterator[Clip]:
    for where, text in _read_lines(path):
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise TrainingError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
        except (ValueError, RecursionError) as error:
            raise TrainingError(f"{where}: not valid JSON ({str(error)[:80]})") from None
        if not isinstance(data, dict):
            kind = type(data).__name__
            raise TrainingError(f'{where}: not an object like {{"audio": "a.wav", "text": "Hello."}} but a {kind}')
        audio = _string(data, "audio", where)
        if audio is None:
            raise TrainingError(f"{where}: audio is missing; give the path of the clip")
        reference = _string(data, "ref_audio", where)
        speaker = _string(data, "speaker", where) or name
        if speaker is None:
            raise TrainingError(f"{where}: speaker is missing: give one in each line, or name for all clips", "name")
        ref_audio = None
        if reference is not None:
            ref_audio = _path(path, reference)
        yield Clip(
            audio=_path(path, audio),
            text=_string(data, "text", where) or "",
            language=_string(data, "language", where),
            speaker=speaker,
            ref_audio=ref_audio,
            codes=_codes(data.get("audio_codes"), where),
            where=where,
            source=printable(audio),
        )


def _string(data: dict[str, Any], key: str, where: str) -> str | None:
    """Return a string of a line without white space around it; None if it is missing, null or blank."""
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise TrainingError(f"{where}: {key} is {repr(value)[:60]}; it must be a string")
    if value and key != "text" and not is_unicode(value):  # a clip with such a text is left out
        raise TrainingError(f"{where}: {key} is {value!r}, which is not valid Unicode")
    return (value or "").strip() or None


def _path(source: Path, name: str) -> Path:
    return source.parent / os.path.expanduser(name)


def _codes(value: Any, where: str) -> np.ndarray | None:
    """Return audio_codes as int32 [frames, codebooks]; how many codebooks there must be depends on the model."""
    if value is None:
        return None
    try:
        codes = np.array(value)
    except (ValueError, OverflowError):  # rows of several lengths
        codes = np.zeros(0)
    in_range = codes.size and codes.dtype.kind in "iu" and 0 <= codes.min() <= codes.max() < 2**31
    if codes.ndim != 2 or not in_range:
        raise TrainingError(f"{where}: audio_codes must be rows of 16 codes; leave them out to have them made again")
    return codes.astype(np.int32)


def _read_folder(folder: Path, name: str) -> Iterator[Clip]:
    for audio in sorted(folder.rglob("*")):
        inside = audio.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in inside.parts)
        if audio.suffix.lower() in AUDIO_SUFFIXES and not is_hidden:
            yield Clip(audio, _read_text(audio), None, name, None, None, str(audio), printable(inside.as_posix()))


def _read_text(audio: Path) -> str:
    """Return what the text file beside an audio file says, on one line; empty if there is none."""
    for suffix in TEXT_SUFFIXES:
        path = audio.with_suffix(suffix)
        if path.is_file():
            return " ".join(text for _, text in _read_lines(path))
    return ""


def _read_ljspeech(path: Path, name: str) -> Iterator[Clip]:
    for where, line in _read_lines(path):
        identifier, *texts = (field.strip() for field in line.split("|"))
        if not identifier or len(texts) not in (1, 2):
            raise TrainingError(f"{where}: not of the form ID|text or ID|text|normalized text")
        audio = f"wavs/{identifier}.wav"
        text = texts[-1] or texts[0]
        yield Clip(path.parent / audio, text, None, name, None, None, where, printable(audio))


def _check_files(source: Path, clips: list[Clip]) -> None:
    """Raise TrainingError for audio that is missing."""
    missing: dict[Path, str] = {}
    exists: dict[Path, bool] = {}
    for clip in clips:
        for path in (clip.audio, clip.ref_audio):
            if path is None:
                continue
            if path not in exists:
                exists[path] = os.path.exists(path)
            if not exists[path]:
                missing.setdefault(path, clip.where)
    if missing:
        path, where = next(iter(missing.items()))
        others = f" (and {len(missing) - 1} other files)" if len(missing) > 1 else ""
        raise TrainingError(f"{where}: {path} does not exist{others}; relative paths start from {source.parent}")


def _check_speakers(clips: list[Clip]) -> None:
    """Raise TrainingError for speakers that a model, in which names match in any case, cannot tell apart."""
    known: dict[str, Clip] = {}
    for clip in clips:
        first = known.setdefault(clip.speaker.casefold(), clip)
        if first.speaker != clip.speaker:
            raise TrainingError(
                f"{clip.where}: the speakers {first.speaker!r} and {clip.speaker!r} differ in case only: "
                "write the name alike everywhere",
            )
