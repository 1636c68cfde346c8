"""PyAV, the binding to FFmpeg's libraries, which the extras `book` and `server` install.

float audio ─ audio_frame ─ av.AudioFrame ─ an encoder or a filter ─ frame_audio ─ float audio

PyAV is an extra, so that the package works without it: functions that need it call `load_pyav`.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import AudioError
from .formats import pcm16

MISSING = "needs PyAV: pip install 'mlx-qwen3-tts[book]' (with a server: 'mlx-qwen3-tts[server]')"


def load_pyav(purpose: str) -> Any:
    """Return the module `av`.

    purpose: what needs it, for the error.
    Raises AudioError if it cannot be imported.
    """
    try:
        import av
    except ImportError:
        raise AudioError(f"{purpose} {MISSING}") from None
    return av


def error_text(error: Exception) -> str:
    """Return what FFmpeg says of an error, on one line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())


def add_mono_stream(
    av: Any, container: Any, codec: str, options: dict[str, str], sample_format: str, sample_rate: int,
    bit_rate: int | None,
) -> Any:  # fmt: skip
    """Add a mono audio stream to a container that is written, without a version in it; None keeps the codec's rate."""
    stream = container.add_stream(codec, rate=sample_rate, options=options, layout="mono", format=sample_format)
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    if bit_rate is not None:
        stream.bit_rate = bit_rate
    return stream


def audio_frame(av: Any, audio: np.ndarray, sample_format: str, sample_rate: int, start: int) -> Any:
    """Return float mono audio [samples] in -1 .. 1 as an av.AudioFrame.

    sample_format: FFmpeg's name: "s16", which rounds as a WAV of this package does, "flt" or "fltp".
    start: the number of samples before it in the stream.
    """
    if sample_format == "s16":
        samples = np.frombuffer(pcm16(audio), np.int16)
    else:
        samples = np.ascontiguousarray(np.clip(audio, -1, 1), np.float32)
    frame = av.AudioFrame.from_ndarray(samples[None], format=sample_format, layout="mono")
    frame.sample_rate = sample_rate
    frame.time_base = Fraction(1, sample_rate)
    frame.pts = start
    return frame


def frame_audio(frame: Any) -> np.ndarray:
    """Return a mono frame of floats as float32 [samples]."""
    return np.array(frame.to_ndarray().reshape(-1), np.float32)


class FilterChain:
    """A chain of FFmpeg's audio filters; mono floats go in."""

    def __init__(self, av: Any, filters: list[tuple[str, dict[str, str]]], sample_rate: int) -> None:
        """filters: names and options, from the first to the last."""
        self._av = av
        self._sample_rate = sample_rate
        self._num_samples = 0
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono")
        nodes = [self._graph.add(name, **options) for name, options in filters]
        self._graph.link_nodes(source, *nodes, self._graph.add("abuffersink")).configure()

    def push(self, audio: np.ndarray) -> list[Any]:
        """Take float audio [samples], and return the frames that are ready. Raises AudioError."""
        if not len(audio):
            return []
        frame = audio_frame(self._av, audio, "flt", self._sample_rate, self._num_samples)
        self._num_samples += len(audio)
        return self._run(frame)

    def flush(self) -> list[Any]:
        """Return the last frames. Raises AudioError."""
        return self._run(None)

    def _run(self, frame: Any) -> list[Any]:
        frames = []
        try:
            self._graph.push(frame)
            while True:
                frames.append(self._graph.pull())
        except (BlockingIOError, EOFError):  # nothing more yet, nothing more at all
            return frames
        except self._av.FFmpegError as error:
            raise AudioError(f"an audio filter failed: {error_text(error)}") from None
