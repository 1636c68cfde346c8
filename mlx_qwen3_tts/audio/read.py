"""Audio in and out of the models: reading, resampling, mel spectrogram, writing.

    file | file object | (array, rate) ─ read_audio ─ float32 mono at its own rate ─ resample ─ 24 kHz
    24 kHz ─ mel_spectrogram ─ [frames, 128] for the speaker encoder
    float32 ─ write_audio ─ WAV, FLAC, OGG, MP3

A file appears under its name only when it is whole: it is written beside it and moved there at the end.
"""

import math
import os
from numbers import Integral
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import AudioError

READ_BLOCK = 2**16  # samples of each channel
Audio = str | os.PathLike | BinaryIO | tuple[np.ndarray, int]


def read_audio(source: Audio, max_seconds: float = math.inf) -> tuple[np.ndarray, int]:
    """Read audio as float32 mono [samples] (the mean of the channels) and its rate.

    max_seconds: a longer clip is refused, before it is read.

    source: a path or a file object that holds any format that libsndfile knows (WAV in all its encodings, FLAC, OGG,
    MP3), or an array [samples] or [samples, channels] with its rate.
    Raises AudioError for what is no audio, empty, too long, or not finite.
    Source: Qwen3TTSModel._normalize_audio_inputs, which reads through librosa.load(sr=None, mono=True).
    """
    if isinstance(source, tuple):
        name = "the array"
        try:
            audio, rate = source
            audio = np.asarray(audio)
        except ValueError:
            raise AudioError("audio in memory is a pair: an array of one shape, and its sample rate") from None
        if audio.dtype.kind != "f" or audio.ndim not in (1, 2):
            raise AudioError(
                f"audio must be floats of shape [samples] or [samples, channels], not {audio.dtype} {list(audio.shape)}"
            )
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
        raise AudioError(f"{name} holds no samples")
    if not np.isfinite(audio).all():
        raise AudioError(f"{name} holds samples that are no numbers (NaN or infinite): repair or export it again")
    return audio, int(rate)


def check_length(name: str, seconds: float, max_seconds: float) -> None:
    """Raise AudioError for a clip that is longer than allowed."""
    if seconds > max_seconds:
        raise AudioError(
            f"{name} is {seconds:.0f} s long and the limit is {max_seconds:g} s: cut it, or raise the limit "
            "(max_seconds; --max-ref-seconds)"
        )


def check_clip_file(path: str | os.PathLike, max_seconds: float) -> None:
    """Raise AudioError for a file that `read_audio` would refuse by its header alone."""
    _read_file(path, str(path), max_seconds, header_only=True)


def _read_file(
    source: str | os.PathLike | BinaryIO, name: str, max_seconds: float, header_only: bool = False
) -> tuple[np.ndarray, int]:
    if isinstance(source, str | os.PathLike):
        path = Path(os.path.expanduser(source))
        if path.is_dir():
            raise AudioError(f"{name} is a directory, not an audio file")
        if not path.exists():
            raise AudioError(f"{name} does not exist")
        if not path.is_file():  # a pipe would be waited for, and could not be sought in
            raise AudioError(f"{name} is no file that audio could be in: write it to one first")
        source = str(path)
    try:
        with soundfile.SoundFile(source) as file:
            check_length(name, file.frames / max(1, file.samplerate), max_seconds)
            audio = np.zeros(0, np.float32) if header_only else _read_blocks(file)
            return audio, file.samplerate
    except (OSError, TypeError, ValueError, soundfile.SoundFileError) as error:
        reason = " ".join(str(error).split())[:120]
        raise AudioError(f"{name} cannot be read as audio ({reason}); WAV, FLAC, OGG and MP3 can") from None


def _read_blocks(file: soundfile.SoundFile) -> np.ndarray:
    """All of a file as mono [samples], a block at a time: what its header claims to be there is not allocated."""
    blocks = [np.zeros(0, np.float32)]
    while len(block := file.read(READ_BLOCK, dtype="float32", always_2d=True)):
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            blocks.append(np.mean(block, axis=1))
    return np.concatenate(blocks)


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Audio [samples] at `rate` as [ceil(samples * (target / rate))] at `target`.

    Source: librosa.resample with its default, soxr's high quality.
    """
    if rate == target:
        return audio
    import soxr

    length = math.ceil(len(audio) * (target / rate))  # in floats, as there: one more where the product rounds up
    result = soxr.resample(audio, rate, target, quality="HQ")[:length]
    return np.pad(result, (0, length - len(result)))


def trim_silence(audio: np.ndarray, rate: int, below: float = 0.01) -> np.ndarray:
    """Audio [samples] without what is quieter at both ends than `below` (-40 dB) of its loudest 20 ms."""
    block = max(1, rate // 50)
    padded = np.pad(audio, (0, -len(audio) % block)).reshape(-1, block)
    loudness = np.sqrt(np.mean(np.square(padded, dtype=np.float64), axis=1))
    loud = np.flatnonzero(loudness > below * loudness.max())
    return audio[loud[0] * block : (loud[-1] + 1) * block] if len(loud) else audio
