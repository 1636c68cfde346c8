"""Audio in and out of the models: reading, resampling, mel spectrogram, writing.

    file | file object | (array, rate) ─ read_audio ─ float32 mono at its own rate ─ resample ─ 24 kHz
    24 kHz ─ mel_spectrogram ─ [frames, 128] for the speaker encoder
    float32 ─ write_audio ─ WAV, FLAC, OGG, MP3

A file appears under its name only when it is whole: it is written beside it and moved there at the end.
"""

import io
import math
import os
import struct
import tempfile
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import AudioError

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}
READ_BLOCK = 2**16  # samples of each channel
MOST_PADDING = 4096  # samples that a lossy format may add
WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
Audio = str | os.PathLike | BinaryIO | tuple[np.ndarray, int]

# The mel front end of the speaker encoder (mel_spectrogram in modeling_qwen3_tts.py).
N_FFT, HOP, MEL_RATE = 1024, 256, 24000
SPECTRUM_FLOOR, MEL_FLOOR = 1e-9, 1e-5


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


def _hertz_to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """Slaney's scale: linear to 1 kHz, 15 mel there, then logarithmic, 27 mel for a factor of 6.4."""
    hertz = np.asarray(hertz, np.float64)
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


@cache
def mel_filters(n_mels: int) -> np.ndarray:
    """Triangular filters of unit area, 0 to 12 kHz: float32 [n_mels, N_FFT // 2 + 1]. Equals librosa.filters.mel."""
    bins = np.linspace(0, MEL_RATE / 2, N_FFT // 2 + 1)
    corners = _mel_to_hertz(np.linspace(0, _hertz_to_mel(MEL_RATE / 2), n_mels + 2))
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (corners[2:] - corners[:-2])[:, None]).astype(np.float32)


def mel_spectrogram(audio: np.ndarray, n_mels: int = 128) -> np.ndarray:
    """Log-mel spectrogram of audio [samples] at 24 kHz: float32 [(samples - 256) // 256 + 1, n_mels].

    Reflected at both ends by 384 samples, which it must be longer than. Source: the official mel_spectrogram.
    """
    padded = np.pad(audio, (N_FFT - HOP) // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)  # periodic Hann
    # In float64: the official float32 transform leaves rounding noise (up to 0.01 in the logarithm) in the empty bins
    # beside a loud tone, which depends on the FFT library. This is what all of them approximate.
    spectrum = np.fft.rfft(frames * window)
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + SPECTRUM_FLOOR)
    return np.log(np.maximum(magnitude @ mel_filters(n_mels).T, MEL_FLOOR)).astype(np.float32)


def check_writable(path: str | os.PathLike) -> None:
    """Raise AudioError if audio cannot be written to `path`: found before the work, not after."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise AudioError(f"cannot write {path}: its name must end in {', '.join(FORMATS)}")
    try:
        if path.is_dir():
            raise AudioError(f"cannot write {path}: it is a directory")
        if path.exists() and not os.access(path, os.W_OK):
            raise AudioError(f"cannot write {path}: it is write-protected")
        if not path.exists() or path.is_file():
            with tempfile.TemporaryFile(dir=path.resolve().parent):
                pass
            (path.resolve().parent / f".{path.name}.part").exists()  # a name too long, or with a zero in it, shows here
    except (OSError, ValueError) as error:
        raise AudioError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def encode_audio(audio: np.ndarray, sample_rate: int, suffix: str) -> bytes:
    """The bytes of a file of float audio [samples] in -1 .. 1, in the format of `suffix` (".wav", ".mp3", ...)."""
    container, subtype = FORMATS[suffix.lower()]
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate, format=container, subtype=subtype)
    return buffer.getvalue()


def write_audio(path: str | os.PathLike, audio: np.ndarray, sample_rate: int) -> None:
    """Write float audio [samples] in -1 .. 1 in the format of the suffix. Raises AudioError."""
    path = Path(path)
    check_writable(path)
    try:
        write_whole(path, encode_audio(audio, sample_rate, path.suffix))
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


class AudioWriter:
    """A file that grows while the audio is made, under its name only at the end.

    WAV goes to a file or to a pipe (whose header leaves the length open), the other formats to a file. On an error of
    the disk what was written stays under its name if it can be read again, as a WAV always can.
    """

    def __init__(self, target: str | os.PathLike | BinaryIO, sample_rate: int) -> None:
        """target: a path, or a binary stream for WAV. Raises AudioError for a path that cannot be written."""
        self._sample_rate, self._samples = sample_rate, 0
        self._ours, self._open = not hasattr(target, "write"), True
        self._final = self._partial = self._encoder = None
        self._completed = False
        if self._ours:
            self.name, path = str(target), Path(target)
            check_writable(path)
            if path.is_file() or not path.exists():
                self._final = path.resolve()
                self._partial = self._final.with_name(f".{self._final.name}.{os.getpid()}.part")
            self._suffix = path.suffix.lower()
            self._file = open(self._partial or path, "wb", buffering=0)  # noqa: SIM115  (closed by close or abort)
        else:
            self.name, self._suffix, self._file = "standard output", ".wav", target
        self._begin()

    def _begin(self) -> None:
        """What a format asks for at its beginning."""
        try:
            if self._suffix == ".wav":
                self._write_all(wav_header(self._sample_rate, None))
            else:
                container, subtype = FORMATS[self._suffix]
                descriptor = self._file.fileno()
                self._encoder = soundfile.SoundFile(
                    descriptor, "w", self._sample_rate, 1, subtype, None, container, closefd=False
                )
        except BrokenPipeError:
            raise
        except (OSError, soundfile.SoundFileError) as error:
            self.abort()
            raise AudioError(f"cannot write {self.name}: {getattr(error, 'strerror', None) or error}") from None

    @property
    def can_start_over(self) -> bool:
        """What was written can be taken back: not from a pipe."""
        return self._partial is not None

    def start_over(self) -> None:
        """Take back what was written, and begin anew. Raises AudioError."""
        if self._encoder:
            self._encoder.close()
        self._file.seek(0)
        self._file.truncate()
        self._samples = 0
        self._begin()

    def _write_all(self, data: bytes) -> None:
        while data:  # a raw file may take a part
            data = data[self._file.write(data) :]

    def write(self, audio: np.ndarray) -> None:
        """Append float audio [samples] in -1 .. 1. Raises AudioError; what was written before is kept then."""
        try:
            if self._encoder:
                self._encoder.write(audio)
            else:
                self._write_all(pcm16(audio))
                if not self._ours:
                    self._file.flush()
        except BrokenPipeError:
            raise
        except (OSError, soundfile.SoundFileError) as error:
            reason = getattr(error, "strerror", None) or "the disk takes no more"
            kept = f"it holds the first {self.seconds:.2f} s" if self._keep() else "nothing was kept"
            raise AudioError(f"cannot write on to {self.name} ({reason}): {kept}") from None
        self._samples += len(audio)

    @property
    def seconds(self) -> float:
        """Seconds of audio written."""
        return self._samples / self._sample_rate

    def _keep(self) -> bool:
        """After an error: complete the file if that gives a readable one, else remove it."""
        try:
            self._complete()
            # A FLAC whose head could not be completed claims to be endless.
            frames = self._samples if self._partial is None else soundfile.info(str(self._partial)).frames
            whole = 0 < frames <= self._samples + MOST_PADDING
        except (OSError, soundfile.SoundFileError):
            whole = False
        if whole:
            self.close()
        else:
            self.abort()
        return whole

    def _complete(self) -> None:
        """What a format asks for at its end, once."""
        if self._completed:
            return
        self._completed = True
        if self._encoder:
            self._encoder.close()
        elif self._partial:
            self._file.seek(0)
            self._write_all(wav_header(self._sample_rate, self._samples))
            self._file.truncate(WAV_HEADER.size + 2 * self._samples)

    def close(self) -> None:
        """Complete the file and give it its name. Once closed or aborted, nothing more happens."""
        if not self._open:
            return
        self._complete()
        self._open = False
        if self._ours:
            self._file.close()
        if self._partial:
            os.replace(self._partial, self._final)

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._open and self._ours:
            self._open = False
            self._file.close()
            if self._partial:
                self._partial.unlink(missing_ok=True)


def pcm16(audio: np.ndarray) -> bytes:
    """Float audio in -1 .. 1 as 16-bit samples."""
    return np.rint(np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()


def wav_header(sample_rate: int, samples: int | None) -> bytes:
    """The header of a mono 16-bit WAV; None leaves the length open, as a stream must."""
    size = 0xFFFFFFFF if samples is None else 2 * samples
    about = (16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return WAV_HEADER.pack(b"RIFF", min(size + 36, 0xFFFFFFFF), b"WAVE", b"fmt ", *about, b"data", size)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` so that `path` never names half of it. Raises OSError."""
    if path.exists() and not path.is_file():  # a pipe or a device is written to, not replaced
        path.write_bytes(data)
        return
    path = path.resolve()  # behind a symbolic link
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
