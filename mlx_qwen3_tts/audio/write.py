"""Audio files: written whole, or while the audio is generated.

    write_audio:  audio ─ encode_audio ─ a complete file
    open_writer:  chunks ─ an AudioWriter of writers.py ─ a file that grows

A file appears under its name only when it is complete.
"""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import AudioError
from ..files import PartialPath, is_regular, write_file
from .formats import FORMATS, M4A, MAX_WAV_SIZE, NEED_SEEK, SUFFIXES, encode_audio
from .pyav import load_pyav
from .sinks import FileSink, PipeSink
from .writers import AudioWriter, EncodedFile, M4aFile, WavFile, WavPipe, write_error


def check_writable(path: str | os.PathLike) -> None:
    """Raise AudioError if audio cannot be written to `path`; call it before the work."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise AudioError(f"cannot write {path}: its name must end in {', '.join(SUFFIXES)}")
    _check_encoder(suffix)
    try:
        if path.is_dir():
            raise AudioError(f"cannot write {path}: it is a directory")
        if path.exists() and not os.access(path, os.W_OK):
            raise AudioError(f"cannot write {path}: it is write-protected")
        if not is_regular(path) and suffix in NEED_SEEK:
            raise AudioError(f"cannot write {path}: a pipe cannot take {suffix}, whose header is written last")
        if is_regular(path):
            resolved = path.resolve()
            with tempfile.TemporaryFile(dir=resolved.parent):
                pass
            PartialPath(resolved).check()
    except (OSError, ValueError) as error:
        raise write_error(path, error) from None


def _check_encoder(suffix: str) -> None:
    """Raise AudioError if what encodes this format is missing."""
    if suffix == M4A:
        load_pyav("the format m4a")
    elif not soundfile.check_format(*FORMATS[suffix]):
        version = soundfile.__libsndfile_version__
        raise AudioError(f"libsndfile {version}, which is installed here, cannot write {suffix}: choose another format")


def write_audio(path: str | os.PathLike, audio: np.ndarray, sample_rate: int) -> None:
    """Write float audio [samples] in -1 .. 1 in the format of the suffix. Raises AudioError."""
    path = Path(path)
    check_writable(path)
    if path.suffix.lower() == M4A or 2 * len(audio) + 4096 > MAX_WAV_SIZE:
        writer = open_writer(path, sample_rate)
        writer.write(audio)
        writer.close()
        return
    try:
        write_file(path, encode_audio(audio, sample_rate, path.suffix))
    except (OSError, soundfile.SoundFileError) as error:
        raise write_error(path, error) from None


def open_writer(target: str | os.PathLike | BinaryIO, sample_rate: int) -> AudioWriter:
    """Return a writer for a path, by its suffix, or for standard output, which gets a WAV.

    Raises AudioError if the target cannot be written.
    """
    if not isinstance(target, str | os.PathLike):
        return WavPipe("standard output", PipeSink(target, close=False), sample_rate)
    check_writable(target)
    path = Path(target)
    suffix = path.suffix.lower()
    try:
        sink = FileSink(path) if is_regular(path) else PipeSink.open(path)
    except OSError as error:
        raise write_error(path, error) from None
    if suffix == M4A:
        assert isinstance(sink, FileSink)
        return M4aFile(str(target), sink, sample_rate)
    if suffix != ".wav":
        return EncodedFile(str(target), sink, sample_rate, suffix)
    if isinstance(sink, FileSink):
        return WavFile(str(target), sink, sample_rate)
    return WavPipe(str(target), sink, sample_rate)
