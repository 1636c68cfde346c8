"""What synthesis returns: chunks while it runs, a result at the end, and the times it took."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
import soundfile

from .audio.formats import encode_audio
from .audio.write import write_audio

MAX_SHOWN_WAV = 60.0  # seconds of audio that a notebook gets as WAV; a longer result as MP3
MAX_SHOWN = 600.0  # seconds of audio that a notebook gets: some 6 MB

# "stop": the model ended by itself; "length": max_frames, the frame budget or the context was reached; "runaway": it
# went on after its text, in silence or in a cycle, which was cut.
FinishReason = Literal["stop", "length", "runaway"]


@dataclass(frozen=True)
class SynthesisTiming:
    """The time that one request spent in each stage, in wall-clock seconds.

    While requests share a batch, the work on the others that a request waits for counts as well.
    """

    prefill: float  # tokenizing, waiting for a place in the batch, and running the prompt through the talker
    generation: float  # talker and code predictor, with the part of the codec's work that overlaps them
    decode: float  # waiting for the codec after that
    first_audio: float  # from the request to its first samples
    total: float  # from the request to its last samples; time in which nobody asked for more is left out
    frames: int
    audio_seconds: float
    peak_memory: int  # bytes, the most that MLX held at once during the request

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for one second of audio: below 1 is faster than real time."""
        if not self.audio_seconds:
            return float("inf")
        return self.total / self.audio_seconds


@dataclass(frozen=True)
class AudioChunk:
    """A piece of speech as it is generated. The last one of a stream has `is_final` set and may hold no samples."""

    audio: np.ndarray  # float32 [samples]
    codes: np.ndarray  # int32 [frames, 16]
    sample_rate: int
    seed: int  # the seed in use, given or drawn
    timing: SynthesisTiming  # up to and with this chunk; waiting for text is left out
    is_final: bool = False
    finish_reason: FinishReason | None = None  # on the final chunk
    text_ran_dry: bool = False  # the text of the next frame is not known yet


@dataclass(frozen=True)
class SynthesisResult:
    """A whole request's speech."""

    audio: np.ndarray  # float32 [samples], -1 .. 1, mono
    codes: np.ndarray  # int32 [frames, 16]
    sample_rate: int  # samples per second
    timing: SynthesisTiming
    finish_reason: FinishReason
    seed: int  # pass this seed to reproduce the result

    @classmethod
    def from_chunks(cls, chunks: Sequence[AudioChunk]) -> "SynthesisResult":
        """Concatenate all chunks of a stream. Raises ValueError if the last one is not final."""
        last = chunks[-1]
        if last.finish_reason is None:
            raise ValueError("the last chunk is not final: the stream was not read to its end")
        return cls(
            audio=np.concatenate([chunk.audio for chunk in chunks]),
            codes=np.concatenate([chunk.codes for chunk in chunks]),
            sample_rate=last.sample_rate,
            timing=last.timing,
            finish_reason=last.finish_reason,
            seed=last.seed,
        )

    def save(self, path: str | PathLike) -> None:
        """Write the audio as WAV (16 bit), FLAC, OGG, MP3, Opus, AIFF, CAF or M4A, by the suffix of `path`.

        M4A needs PyAV (the extra `book`). Raises AudioError.
        """
        write_audio(path, self.audio, self.sample_rate)

    def _repr_html_(self) -> str | None:
        """Return a player for a notebook, or None if there is nothing to play."""
        seconds = len(self.audio) / self.sample_rate
        if not seconds:
            return None
        shown = self.audio[: round(MAX_SHOWN * self.sample_rate)]
        media, suffix = ("wav", ".wav") if seconds <= MAX_SHOWN_WAV else ("mpeg", ".mp3")
        try:
            data = base64.b64encode(encode_audio(shown, self.sample_rate, suffix)).decode()
        except soundfile.SoundFileError:
            return None
        player = f'<audio controls src="data:audio/{media};base64,{data}"></audio>'
        if len(shown) < len(self.audio):
            player += f"<div>the first {MAX_SHOWN:.0f} of {seconds:.0f} s</div>"
        return player
