"""Audio formats: float samples to the bytes of a file."""

import io
import struct

import numpy as np
import soundfile

# By suffix: libsndfile's container and subtype; None takes the container's default.
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", None),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
}
M4A = ".m4a"  # PyAV writes it
SUFFIXES = (*FORMATS, M4A)
NAMES = "wav, flac, ogg, mp3, opus, aiff, caf or m4a"
NEED_SEEK = (".aiff", ".caf", M4A)  # formats that a pipe cannot take

_WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
WAV_HEADER_SIZE = _WAV_HEADER.size
_RF64_HEADER = struct.Struct("<4sI4s4sIQQQI4sIHHIIHH4sI")
RF64_HEADER_SIZE = _RF64_HEADER.size
MAX_WAV_SIZE = 0xFFFFFFFF  # bytes; in a stream it stands for an unknown size


def pcm16(audio: np.ndarray) -> bytes:
    """Return float audio in -1 .. 1 as 16-bit samples."""
    return np.rint(np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()


def wav_header(sample_rate: int, num_samples: int | None) -> bytes:
    """Return the header of a mono 16-bit WAV; None leaves the length open, as a stream must."""
    size = MAX_WAV_SIZE if num_samples is None else 2 * num_samples
    riff_size = min(size + 36, MAX_WAV_SIZE)
    pcm_format = (16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return _WAV_HEADER.pack(b"RIFF", riff_size, b"WAVE", b"fmt ", *pcm_format, b"data", size)


def rf64_header(sample_rate: int, num_samples: int) -> bytes:
    """Return the header of a mono 16-bit RF64 file (EBU Tech 3306), a WAV whose sizes have 64 bits."""
    size = 2 * num_samples
    long_sizes = (b"ds64", 28, size + RF64_HEADER_SIZE - 8, size, num_samples, 0)
    pcm_format = (16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    start = (b"RF64", MAX_WAV_SIZE, b"WAVE")
    return _RF64_HEADER.pack(*start, *long_sizes, b"fmt ", *pcm_format, b"data", MAX_WAV_SIZE)


def encode_audio(audio: np.ndarray, sample_rate: int, suffix: str) -> bytes:
    """Return a file of float audio [samples] in -1 .. 1, in the format of `suffix` (".wav", ".mp3", ...)."""
    container, subtype = FORMATS[suffix.lower()]
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, subtype, None, container) as encoder:
        for start in range(0, len(audio), sample_rate):  # libsndfile's Vorbis encoder crashes on long blocks
            encoder.write(audio[start : start + sample_rate])
    return buffer.getvalue()
