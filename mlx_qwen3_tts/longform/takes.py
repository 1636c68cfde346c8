"""The speech of segments on the disk: a take is one segment's speech as the model made it, and what is known of it.

(Take, audio) ─ TakeStore.write ─ segments/KEY.flac ─ read, audio ─ (Take, audio)

A take's file is a FLAC of 16 bits, with the record of it as JSON in its comment: both appear at once, so that a process
may be killed at any moment. Its audio is untouched by pauses, speed and loudness. A file that is damaged counts as
missing. Files of other keys are left alone: a segment that goes back to an earlier text or voice is made already.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..audio.formats import pcm16
from ..errors import BookError
from ..files import atomic_path

SUFFIX = ".flac"
FULL_SCALE = 32767  # as in pcm16


@dataclass(frozen=True)
class Heard:
    """What a recognizer heard in a take.

    command: the recognizer. error: of its words or characters, a share of the text's. limit: of the error.
    """

    command: str
    limit: float
    text: str
    error: float


@dataclass(frozen=True)
class Take:
    """A segment's speech and what is known of it.

    key: of everything that shapes it (see manifest.py). attempts: how many seeds were tried; `seed` is the best one's.
    start, end: the samples between which there is speech. loudness: of that part, in LUFS; None if it is too short to
    be measured. problem: what seems wrong with it, or "". score: how wrong; 0 is fine.
    """

    key: str
    text: str
    seed: int
    attempts: int
    frames: int
    samples: int
    start: int
    end: int
    loudness: float | None
    problem: str = ""
    score: float = 0.0
    heard: Heard | None = None

    def needs_more(self, attempts: int) -> bool:
        """Return whether there is a problem, and an attempt left."""
        return bool(self.problem) and self.attempts < attempts


class DamagedTake(BookError):
    """A file of a take that cannot be read any more."""

    def __init__(self, key: str, path: Path) -> None:
        super().__init__(f"{path} is damaged: delete it, and run the same again")
        self.key = key


class TakeStore:
    """The folder of takes."""

    def __init__(self, folder: Path, sample_rate: int) -> None:
        self.folder = folder
        self.sample_rate = sample_rate

    def path(self, key: str) -> Path:
        """Return the file of a take."""
        return self.folder / f"{key}{SUFFIX}"

    def read(self, key: str) -> Take | None:
        """Return the record of a take; None if it is missing or damaged."""
        try:
            with soundfile.SoundFile(self.path(key)) as file:
                take = _take_from(json.loads(file.comment))
                is_whole = file.frames == take.samples and file.samplerate == self.sample_rate
        except (OSError, soundfile.SoundFileError, ValueError, TypeError, KeyError):
            return None
        if not is_whole or take.key != key:
            return None
        return take

    def read_all(self, keys: Sequence[str]) -> dict[str, Take]:
        """Return the records of all takes that are there."""
        found = {key: self.read(key) for key in keys}
        return {key: take for key, take in found.items() if take is not None}

    def audio(self, take: Take) -> np.ndarray:
        """Return the audio of a take, float32 [samples]. Raises DamagedTake."""
        path = self.path(take.key)
        try:
            audio, _ = soundfile.read(path, dtype="int16")
        except (OSError, soundfile.SoundFileError):
            raise DamagedTake(take.key, path) from None
        if audio.shape != (take.samples,):
            raise DamagedTake(take.key, path)
        return _as_floats(audio)

    def write(self, take: Take, audio: np.ndarray) -> None:
        """Write a take and its audio, float [samples] in -1 .. 1. Raises BookError."""
        buffer = io.BytesIO()
        with soundfile.SoundFile(buffer, "w", self.sample_rate, 1, subtype="PCM_16", format="FLAC") as file:
            file.comment = json.dumps(asdict(take), ensure_ascii=False, sort_keys=True)
            file.write(_as_integers(audio))
        self.put(take.key, buffer.getvalue())

    def put(self, key: str, data: bytes) -> None:
        """Write the file of a take. Raises BookError."""
        path = self.path(key)
        try:
            with atomic_path(path) as partial, partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # before the file gets its name: it is whole after a power failure as well
        except OSError as error:
            raise write_error(path, error) from None

    def get(self, key: str) -> bytes:
        """Return the file of a take. Raises OSError."""
        return self.path(key).read_bytes()


def rounded(audio: np.ndarray) -> np.ndarray:
    """Return float audio [samples] as a take's file gives it back, to 16 bits."""
    return _as_floats(_as_integers(audio))


def _as_integers(audio: np.ndarray) -> np.ndarray:
    return np.frombuffer(pcm16(audio), "<i2")


def _as_floats(audio: np.ndarray) -> np.ndarray:
    return audio.astype(np.float32) / np.float32(FULL_SCALE)


def write_error(path: Path, error: Exception) -> BookError:
    """Return the error for a file that cannot be written; what was made before it is kept."""
    reason = getattr(error, "strerror", None) or error
    return BookError(f"cannot write {path}: {reason}; what was made is kept: run the same again to go on")


def _take_from(record: dict[str, Any]) -> Take:
    """Return the take of a record. Raises TypeError and ValueError for any other object."""
    heard = record.get("heard")
    if heard is not None:
        heard = Heard(**heard)
    return Take(**record | {"heard": heard})
