"""Audio formats: float samples to the bytes of a file."""

import io
import struct

import numpy as np
import soundfile

# By suffix: libsndfile's container and subtype; None takes the container's default.
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}

_WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
WAV_HEADER_SIZE = _WAV_HEADER.size
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


def encode_audio(audio: np.ndarray, sample_rate: int, suffix: str) -> bytes:
    """Return a file of float audio [samples] in -1 .. 1, in the format of `suffix` (".wav", ".mp3", ...)."""
    container, subtype = FORMATS[suffix.lower()]
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate, format=container, subtype=subtype)
    return buffer.getvalue()
