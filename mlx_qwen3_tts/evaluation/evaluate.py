"""How much a checkpoint differs from the one that it was made from: codes, distributions, sound, size and speed.

    texts ─ reference speaks ─ codes ─ teacher_forcing.score by both ─┬─ per codebook: agreement, KL divergence
                                                                     └─ likeliest codes ─ codecs ─ distance of the waves

Teacher-forced: both models see the same codes before each one they predict, so one difference does not grow into
another speech. A checkpoint evaluated against itself agrees exactly.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..audio.mel import mel_spectrogram
from ..checkpoint.load import load_directory
from ..errors import RequestError
from ..generation.prompt import Request
from ..generation.scoring import LogProbabilities, requests, score, speak
from ..hub import resolve
from ..result import SynthesisResult
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt

TEXTS = (
    "The train leaves at seven, so we should be at the station before the doors open.",
    "She laughed, and said: I never thought it would be that simple!",
    "Er hat den Schlüssel gestern auf dem Tisch liegen lassen.",
    "今天天气很好，我们去公园散步吧。",
)
MAX_FRAMES = 125  # 10 s of speech for each text
DECIBEL = 20 / np.log(10)  # of a natural logarithm of magnitude


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints."""

    name: str
    bytes: int  # of weight files, the speech tokenizer's among them
    seconds_per_frame: float  # of SynthesisTiming.generation; a frame is 0.08 s of speech
    real_time_factor: float  # all work over the speech's length, below 1 is faster than real time
    peak_memory: int  # bytes that MLX held at most, what belongs to the other checkpoint left out


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. Lists have one value for each codebook."""

    model: Side
    reference: Side
    frames: int  # that were compared
    agreement: list[float]  # share of frames with the same likeliest code
    kl: list[float]  # mean of KL(reference || model) in nats
    mel_distance: float  # mean difference of the log-mel spectrograms in dB
    waveform_distance: float  # energy of the waves' difference over the reference's energy, as a root

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def evaluate(
    model: str | Path,
    reference: str | Path,
    texts: Sequence[str] = TEXTS,
    voice: str | VoiceClonePrompt | None = None,
    instruct: str | None = None,
    max_frames: int = MAX_FRAMES,
    dtype: str | None = None,
    progress: bool = False,
    revision: str | None = None,
) -> Evaluation:
    """Compare `model` with `reference`, which speaks `texts` first.

    model, reference: directories or hub ids, of the same kind and width. voice, instruct: as in Qwen3TTS.synthesize;
    a Base model needs a voice. max_frames: of each text. dtype: as in from_pretrained, for both.
    revision: of the reference, as in from_pretrained.
    Raises RequestError where the two cannot be compared, and what loading raises.
    """
    if not texts:
        raise RequestError("there are no texts to speak")
    loaded = _load(reference, dtype, progress, revision), _load(model, dtype, progress)
    theirs, ours = (one.tts for one in loaded)
    _check_pair(ours, theirs)
    asked = requests(theirs, texts, voice, instruct, max_frames)
    (spoken, their_side), (_, our_side) = (_run(one, asked) for one in loaded)
    parts = [
        _compare(ours, theirs, *pair) for pair in zip(asked, [s.codes for s in spoken], strict=True) if len(pair[1])
    ]
    if not parts:
        raise RequestError("the reference says nothing to these texts: there is nothing to compare")
    agreed, kl = (np.concatenate([part[i] for part in parts]) for i in (0, 1))  # [frames, 16]
    waves = [np.concatenate([part[i] for part in parts]) for i in (2, 3)]
    return Evaluation(
        model=our_side,
        reference=their_side,
        frames=len(agreed),
        agreement=agreed.mean(axis=0).tolist(),
        kl=kl.mean(axis=0).tolist(),
        mel_distance=_mel_distance(*waves),
        waveform_distance=float(np.sqrt(np.square(waves[0] - waves[1]).sum() / np.square(waves[1]).sum())),
    )


class _Loaded(NamedTuple):
    """A checkpoint, and the bytes that it takes on disk and in memory."""

    tts: Qwen3TTS
    size: int
    held: int


def _load(model: str | Path, dtype: str | None, progress: bool, revision: str | None = None) -> _Loaded:
    before = mx.get_active_memory()
    with resolve(model, progress, revision=revision) as directory:
        size = sum(path.stat().st_size for path in directory.rglob("model*.safetensors"))
        tts = Qwen3TTS(str(model), load_directory(directory, dtype))
    return _Loaded(tts, size, mx.get_active_memory() - before)


def _check_pair(ours: Qwen3TTS, theirs: Qwen3TTS) -> None:
    for what, values in {
        "kinds": [tts.model_type for tts in (ours, theirs)],
        "widths": [tts.config.talker_config.hidden_size for tts in (ours, theirs)],
        "vocabularies": [tts.config.talker_config.vocab_size for tts in (ours, theirs)],
        "numbers of codebooks": [tts.config.talker_config.num_code_groups for tts in (ours, theirs)],
    }.items():
        if values[0] != values[1]:
            raise RequestError(f"models of different {what} cannot be compared: {values[0]} and {values[1]}")


def _run(loaded: _Loaded, asked: Sequence[Request]) -> tuple[list[SynthesisResult], Side]:
    """Let a model speak all texts by itself, and time it."""
    tts, size, held = loaded
    others = mx.get_active_memory() - held
    speak(tts, asked[0])  # once for the compilation
    results = [speak(tts, request) for request in asked]
    timings = [result.timing for result in results]
    frames = max(1, sum(timing.frames for timing in timings))
    audio = sum(timing.audio_seconds for timing in timings) or float("nan")
    side = Side(
        name=tts.name,
        bytes=size,
        seconds_per_frame=sum(timing.generation for timing in timings) / frames,
        real_time_factor=sum(timing.total for timing in timings) / audio,
        peak_memory=max(timing.peak_memory for timing in timings) - others,
    )
    return results, side


def _compare(
    ours: Qwen3TTS, theirs: Qwen3TTS, request: Request, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Agreement and KL [frames, 16], and the waves of both models' likeliest codes, for one text."""
    mine, reference = score(ours, request, codes), score(theirs, request, codes)
    likeliest = [_likeliest(scores, tts) for scores, tts in ((mine, ours), (reference, theirs))]
    kl = mx.concatenate([_kl(reference.talker, mine.talker)[:, None], _kl(reference.predictor, mine.predictor)], axis=1)
    waves = [tts.codec.decode(picked) for tts, picked in zip((ours, theirs), likeliest, strict=True)]
    return likeliest[0] == likeliest[1], np.array(kl), *waves


def _likeliest(scores: LogProbabilities, tts: Qwen3TTS) -> np.ndarray:
    """The likeliest code of each codebook in each frame, int32 [frames, 16]; the end is not one of them."""
    first = mx.argmax(scores.talker[:, : tts.config.talker_config.num_codes], axis=-1)[:, None]
    return np.array(mx.concatenate([first, mx.argmax(scores.predictor, axis=-1)], axis=1), dtype=np.int32)


def _kl(reference: mx.array, model: mx.array) -> mx.array:
    """KL divergence of log-probabilities [..., ids], in nats; ids that the reference cannot draw add nothing.

    Rounding may bring a sum below 0, which no divergence is.
    """
    possible = reference > -mx.inf
    difference = mx.where(possible, reference - mx.where(possible, model, 0), 0)
    return mx.maximum((mx.exp(reference) * difference).sum(-1), 0)


def _mel_distance(wave: np.ndarray, reference: np.ndarray) -> float:
    """Mean difference of two log-mel spectrograms in dB."""
    return float(np.abs(mel_spectrogram(wave) - mel_spectrogram(reference)).mean() * DECIBEL)
