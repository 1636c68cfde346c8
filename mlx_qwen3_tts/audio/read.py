"""Reading of audio in any format, and resampling.

file | file object | (array, rate) ─ read_audio ─ float32 mono at its own rate ─ resample ─ 24 kHz
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from ..errors import AudioError

READ_BLOCK = 2**16  # samples of each channel
Audio = str | os.PathLike | BinaryIO | tuple[np.ndarray, int]


def read_audio(source: Audio, max_seconds: float = math.inf) -> tuple[np.ndarray, int]:
    """Read audio as float32 mono [samples], the mean of the channels, and its sample rate.

    source: a path or a file object in any format of libsndfile (WAV in all its encodings, FLAC, OGG, MP3), or an array
    [samples] or [samples, channels] with its sample rate.
    max_seconds: the limit of the length, which is checked before the audio is read.
    Raises AudioError for anything but audio, and for audio that is empty, too long, or not finite.
    Source: Qwen3TTSModel._normalize_audio_inputs, which reads through librosa.load(sr=None, mono=True).
    """
    if isinstance(source, tuple):
        name = "the array"
        audio, rate = _check_pair(source)
    else:
        name = str(source) if isinstance(source, str | os.PathLike) else "the audio"
        audio, rate = _read_file(source, name, max_seconds)
    audio = audio.astype(np.float32)
    if audio.ndim == 2:
        audio = np.mean(audio, axis=1)
    if not isinstance(rate, Integral) or isinstance(rate, bool) or rate <= 0:
        raise AudioError(f"{name} has the sample rate {rate!r}; it must be a whole number above 0")
    check_length(name, len(audio) / int(rate), max_seconds)
    if not len(audio):
        raise AudioError(f"{name} has no samples")
    if not np.isfinite(audio).all():
        raise AudioError(f"{name} has samples that are not finite (NaN or infinity): repair or export it again")
    return audio, int(rate)


def _check_pair(source: tuple[np.ndarray, int]) -> tuple[np.ndarray, int]:
    try:
        audio, rate = source
        audio = np.asarray(audio)
    except ValueError:
        raise AudioError("audio in memory must be a pair: an array, and its sample rate") from None
    if audio.dtype.kind != "f" or audio.ndim not in (1, 2):
        raise AudioError(
            f"audio must be floats of shape [samples] or [samples, channels], not {audio.dtype} {list(audio.shape)}"
        )
    return audio, rate


def check_length(name: str, seconds: float, max_seconds: float) -> None:
    """Raise AudioError for a clip that is too long."""
    if seconds > max_seconds:
        raise AudioError(
            f"{name} is {seconds:.0f} s long and the limit is {max_seconds:g} s: cut it, or raise max_seconds",
            "max_seconds",
        )


def check_clip_file(path: str | os.PathLike, max_seconds: float) -> None:
    """Raise AudioError for a file that `read_audio` would refuse by its header alone."""
    with _open_file(path, str(path), max_seconds):
        pass


def _read_file(source: str | os.PathLike | BinaryIO, name: str, max_seconds: float) -> tuple[np.ndarray, int]:
    with _open_file(source, name, max_seconds) as file:
        return _read_blocks(file), file.samplerate


@contextmanager
def _open_file(source: str | os.PathLike | BinaryIO, name: str, max_seconds: float) -> Iterator[soundfile.SoundFile]:
    """Open a file whose length is within the limit. Raises AudioError, also for what fails in the block."""
    if isinstance(source, str | os.PathLike):
        source = str(_check_path(source, name))
    try:
        with soundfile.SoundFile(source) as file:
            check_length(name, file.frames / max(1, file.samplerate), max_seconds)
            yield file
    except (OSError, TypeError, ValueError, soundfile.SoundFileError) as error:
        # soundfile's own words begin with the source, whose repr has an address in memory if it is a file object
        reason = getattr(error, "error_string", None) or str(error)
        reason = " ".join(reason.split())[:120]
        raise AudioError(f"{name} cannot be read as audio ({reason}); use WAV, FLAC, OGG or MP3") from None


def _check_path(source: str | os.PathLike, name: str) -> Path:
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        raise AudioError(f"{name} is a directory, not an audio file")
    if not path.exists():
        raise AudioError(f"{name} does not exist")
    if not path.is_file():  # a pipe would block, and cannot seek
        raise AudioError(f"{name} is not a regular file; save the audio to a file first")
    return path


def _read_blocks(file: soundfile.SoundFile) -> np.ndarray:
    """Read a file as mono [samples], block by block, because its header may claim a length that exceeds the memory."""
    blocks = [np.zeros(0, np.float32)]
    while len(block := file.read(READ_BLOCK, dtype="float32", always_2d=True)):
        with np.errstate(over="ignore", invalid="ignore"):  # read_audio refuses values that are not finite
            blocks.append(np.mean(block, axis=1))
    return np.concatenate(blocks)


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resample audio [samples] from `rate` to `target`: [ceil(samples * (target / rate))].

    Source: librosa.resample with its default, soxr's high quality.
    """
    if rate == target:
        return audio
    length = math.ceil(len(audio) * (target / rate))  # in floats, as in librosa: one sample more if it rounds up
    result = soxr.resample(audio, rate, target, quality="HQ")[:length]
    return np.pad(result, (0, length - len(result)))


def trim_silence(audio: np.ndarray, rate: int, threshold: float = 0.01) -> np.ndarray:
    """Cut silence off both ends of audio [samples]: blocks of 20 ms below `threshold` (-40 dB) of the loudest one."""
    block = max(1, rate // 50)
    padded = np.pad(audio, (0, -len(audio) % block)).reshape(-1, block)
    loudness = np.sqrt(np.mean(np.square(padded, dtype=np.float64), axis=1))
    loud = np.flatnonzero(loudness > threshold * loudness.max())
    if not len(loud):
        return audio
    return audio[loud[0] * block : (loud[-1] + 1) * block]
