"""Audio files: writing, through soundfile.

A file appears under its name only when it is whole: it is written beside it and moved there at the end.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from .errors import AudioError

FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", None),
}


def check_writable(path: str | os.PathLike) -> None:
    """Raise AudioError if audio cannot be written to `path`: found before the work, not after."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise AudioError(f"cannot write {path}: its name must end in {', '.join(FORMATS)}")
    if path.is_dir():
        raise AudioError(f"cannot write {path}: it is a directory")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise AudioError(f"cannot write {path}: {error.strerror or error}") from None


def write_audio(path: str | os.PathLike, audio: np.ndarray, sample_rate: int) -> None:
    """Write float audio [samples] in -1 .. 1 in the format of the suffix. Raises AudioError."""
    path = Path(path)
    check_writable(path)
    container, subtype = FORMATS[path.suffix.lower()]
    partial = path.with_name(f".{path.name}.part")
    try:
        soundfile.write(partial, audio, sample_rate, format=container, subtype=subtype)
        os.replace(partial, path)
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(f"cannot write {path}: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
