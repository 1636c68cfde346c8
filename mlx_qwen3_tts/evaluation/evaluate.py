"""Compare a checkpoint with the one that it was converted from: codes, distributions, sound, size and speed.

    texts ─ reference speaks ─ codes ─ scoring.score by both ─┬─ per codebook: agreement, KL divergence
                                                              └─ likeliest codes ─ codecs ─ distance of the waves

Scoring is teacher-forced: both models see the same codes before each one that they predict, so that one difference
does not change everything after it. A checkpoint evaluated against itself agrees exactly.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..audio.mel import mel_spectrogram
from ..capabilities import requests_for
from ..checkpoint.adapter import adapter_path
from ..checkpoint.load import read_config
from ..errors import RequestError
from ..generation.engine import Engine
from ..generation.scoring import LogProbabilities, score
from ..hub import hub_name, resolve
from ..request import Request
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
DECIBEL = 20 / np.log(10)  # decibels in one unit of a natural logarithm of magnitude


@dataclass(frozen=True)
class CheckpointStats:
    """One of the two checkpoints."""

    name: str
    bytes: int  # the size of its weight files, including those of the speech tokenizer
    seconds_per_frame: float  # from SynthesisTiming.generation; a frame is 0.08 s of speech
    real_time_factor: float  # all work divided by the length of the speech; below 1 is faster than real time
    peak_memory: int  # the most bytes that MLX held, without those of the other checkpoint


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`. Lists have one value for each codebook."""

    model: CheckpointStats
    reference: CheckpointStats
    frames: int  # number compared
    agreement: list[float]  # share of the frames in which both models have the same likeliest code
    kl: list[float]  # mean of KL(reference || model) in nats
    mel_distance: float  # mean difference of the log-mel spectrograms in dB
    waveform_distance: float  # L2 norm of the waves' difference divided by the L2 norm of the reference's waves

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
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
    adapter: str | Path | None = None,
) -> Evaluation:
    """Compare `model` with `reference` on speech that the reference makes of `texts`.

    model, reference: directories or hub ids, of the same type and width. voice, instruct: as in Qwen3TTS.synthesize;
    a Base model needs a voice. max_frames: of each text. dtype: as in from_pretrained, for both.
    revision: of the reference, as in from_pretrained.
    adapter: as in from_pretrained, for each of the two that is a Base model: a converted model has it merged already.
    Raises RequestError if the two cannot be compared, and the errors of loading.
    """
    if not texts:
        raise RequestError("there are no texts to speak")
    loaded_model, loaded_reference = _load_pair(model, reference, dtype, progress, revision, adapter_path(adapter))
    reference_tts = loaded_reference.tts
    model_tts = loaded_model.tts
    requests = requests_for(reference_tts.config, texts, voice, instruct, max_frames)
    spoken, reference_stats = _run(loaded_reference, requests)
    _, model_stats = _run(loaded_model, requests)
    compared = []
    for request, result in zip(requests, spoken, strict=True):
        if len(result.codes):
            compared.append(_compare(model_tts, reference_tts, request, result.codes))
    if not compared:
        raise RequestError("the reference model generated no frames for these texts")
    agreement = np.concatenate([text.agreement for text in compared])  # [frames, 16]
    kl = np.concatenate([text.kl for text in compared])
    wave = np.concatenate([text.wave for text in compared])
    reference_wave = np.concatenate([text.reference_wave for text in compared])
    return Evaluation(
        model=model_stats,
        reference=reference_stats,
        frames=len(agreement),
        agreement=agreement.mean(axis=0).tolist(),
        kl=kl.mean(axis=0).tolist(),
        mel_distance=mel_distance(wave, reference_wave),
        waveform_distance=waveform_distance(wave, reference_wave),
    )


class _Loaded(NamedTuple):
    """A loaded checkpoint."""

    tts: Qwen3TTS
    size: int  # bytes on disk
    held: int  # bytes in memory
    adapted: bool  # an adapter was merged into it


def _load_pair(
    model: str | Path,
    reference: str | Path,
    dtype: str | None,
    progress: bool,
    revision: str | None,
    adapter: Path | None,
) -> tuple[_Loaded, _Loaded]:
    """Load the model and its reference. Raises RequestError if they cannot be compared."""
    loaded_reference = _load(reference, dtype, progress, revision, adapter)
    loaded_model = _load(model, dtype, progress, adapter=adapter)
    if adapter is not None and not (loaded_model.adapted or loaded_reference.adapted):
        raise RequestError("adapter has no effect, because neither model is a Base model: leave it out", "adapter")
    _check_pair(loaded_model.tts, loaded_reference.tts)
    return loaded_model, loaded_reference


def _load(
    model: str | Path,
    dtype: str | None,
    progress: bool,
    revision: str | None = None,
    adapter: Path | None = None,
) -> _Loaded:
    before = mx.get_active_memory()
    with resolve(model, progress, revision=revision) as directory:
        size = sum(path.stat().st_size for path in directory.rglob("model*.safetensors"))
        if read_config(directory).tts_model_type != "base":
            adapter = None
        tts = Qwen3TTS(hub_name(model), Engine.load(directory, dtype, adapter=adapter))
    return _Loaded(tts, size, mx.get_active_memory() - before, adapter is not None)


def _check_pair(model: Qwen3TTS, reference: Qwen3TTS) -> None:
    """Raise RequestError if two models do not predict the same kind of codes."""
    found = model.config.talker_config
    expected = reference.config.talker_config
    for name, value, reference_value in (
        ("kinds", model.model_type, reference.model_type),
        ("widths", found.hidden_size, expected.hidden_size),
        ("vocabularies", found.vocab_size, expected.vocab_size),
        ("numbers of codebooks", found.num_code_groups, expected.num_code_groups),
    ):
        if value != reference_value:
            raise RequestError(f"models of different {name} cannot be compared: {value} and {reference_value}")


def _run(loaded: _Loaded, requests: Sequence[Request]) -> tuple[list[SynthesisResult], CheckpointStats]:
    """Let a model speak all texts by itself, and measure it."""
    tts, size, held, _ = loaded
    # Behind the jobs of the requests before, whose memory is freed when they end.
    others = tts.engine.worker.run(mx.get_active_memory) - held
    tts.run(requests[0])  # compiles the kernels, so that their time is not measured
    results = [tts.run(request) for request in requests]
    timings = [result.timing for result in results]
    frames = max(1, sum(timing.frames for timing in timings))
    audio = sum(timing.audio_seconds for timing in timings) or float("nan")
    stats = CheckpointStats(
        name=tts.name,
        bytes=size,
        seconds_per_frame=sum(timing.generation for timing in timings) / frames,
        real_time_factor=sum(timing.total for timing in timings) / audio,
        peak_memory=max(timing.peak_memory for timing in timings) - others,
    )
    return results, stats


class _Comparison(NamedTuple):
    """Two models on the speech of one text."""

    agreement: np.ndarray  # bool [frames, 16]: the same likeliest code
    kl: np.ndarray  # float [frames, 16], in nats
    wave: np.ndarray  # float32 [samples]: the sound of the model's likeliest codes
    reference_wave: np.ndarray


def _compare(model: Qwen3TTS, reference: Qwen3TTS, request: Request, codes: np.ndarray) -> _Comparison:
    scores = score(model.engine, request, codes)
    expected = score(reference.engine, request, codes)
    num_codes = model.config.talker_config.num_codes
    chosen = likeliest(scores, num_codes)
    reference_chosen = likeliest(expected, num_codes)
    first = kl_divergence(expected.talker, scores.talker)
    others = kl_divergence(expected.predictor, scores.predictor)
    return _Comparison(
        agreement=chosen == reference_chosen,
        kl=np.concatenate([first[:, None], others], axis=1),
        wave=model.codec.decode(chosen),
        reference_wave=reference.codec.decode(reference_chosen),
    )


def likeliest(scores: LogProbabilities, num_codes: int) -> np.ndarray:
    """Return the likeliest code of each codebook in each frame, int32 [frames, 16]; the end does not count.

    num_codes: of codebook 0; the ids above them are not codes.
    """
    first = scores.talker[:, :num_codes].argmax(axis=-1)
    return np.concatenate([first[:, None], scores.predictor.argmax(axis=-1)], axis=1).astype(np.int32)


def kl_divergence(reference: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return the KL divergence of log-probabilities [..., ids], in nats.

    Ids that the reference cannot draw add nothing. A sum that rounding brings below 0 becomes 0.
    """
    possible = reference > -np.inf
    difference = np.where(possible, reference, 0) - np.where(possible, model, 0)
    return np.maximum((np.exp(reference) * difference).sum(-1), 0)


def mel_distance(wave: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean difference of two log-mel spectrograms in dB."""
    return float(np.abs(mel_spectrogram(wave) - mel_spectrogram(reference)).mean() * DECIBEL)


def waveform_distance(wave: np.ndarray, reference: np.ndarray) -> float:
    """Return the L2 norm of the difference of two waves, divided by that of the reference."""
    return float(np.linalg.norm(wave - reference) / np.linalg.norm(reference))
