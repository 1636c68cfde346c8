"""Clips to examples: each clip is checked and encoded, and each speaker gets a voice.

Clip ─ read_audio ─ checks ─┬─ CodesCache ─ Example ──────────────────────┐
                            │                                             ├─ Prepared ─ split
                            ├─ speaker encoder ─ mean over a speaker's ───┤
                            └─ LeftOut, with the reason ──────────────────┘
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..audio.read import read_audio, resample
from ..capabilities import MODEL_KINDS, MODEL_NAMES, language_name
from ..config.model import ModelConfig
from ..errors import AudioError, RequestError, TrainingError
from ..option import is_number
from ..tts import Qwen3TTS
from ..voice import MAX_SECONDS as MAX_REFERENCE_SECONDS
from .checks import (
    MIN_SECONDS,
    audio_problem,
    codes_problem,
    rate_problem,
    rate_problems,
    speaking_rate,
    text_problem,
)
from .codes_cache import CodesCache, codec_fingerprint
from .dataset import Clip

MIN_TO_SPLIT = 10  # examples; of fewer none is held out


@dataclass(frozen=True, eq=False)
class Example:
    """What one clip teaches."""

    text: str
    language: str | None  # as the checkpoint spells it
    speaker: str
    codes: np.ndarray  # int32 [frames, 16]
    seconds: float
    source: str  # the audio's name, as in Clip


@dataclass(frozen=True)
class LeftOut:
    """A clip that is not used, and why."""

    source: str
    reason: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is trained on."""

    examples: list[Example]
    left_out: list[LeftOut]
    voices: dict[str, np.ndarray]  # speaker -> float32 [hidden], the mean of its clips' speaker embeddings


class _Usable(NamedTuple):
    """A clip that has passed the checks of its own."""

    example: Example
    embedding: np.ndarray  # float32 [hidden]
    rate: float  # the speaking rate, in letters a second


class _UnfitError(Exception):
    """The reason to leave a clip out."""


def check_base(config: ModelConfig) -> None:
    """Raise TrainingError for a model that cannot make a voice."""
    if config.tts_model_type != "base":
        kind = MODEL_KINDS[config.tts_model_type]
        raise TrainingError(f"a {kind} model cannot be fine-tuned: use {MODEL_NAMES['base']}")


def prepare(
    tts: Qwen3TTS,
    clips: Sequence[Clip],
    cache: Path | None = None,
    max_seconds: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Check clips, encode them, and make the voices of their speakers.

    tts: a Base model. cache: the folder that keeps the codes; None keeps none. max_seconds: a longer clip is left out.
    progress: called after each clip with the number of clips done and of all.
    Raises TrainingError for another type of model, a language that it does not know, audio_codes of other codebooks,
    codes that cannot be written, and if no clip is usable; GenerationError for a damaged checkpoint.
    """
    check_base(tts.config)
    if not is_number(max_seconds) or not MIN_SECONDS <= max_seconds < math.inf:
        message = f"max_seconds must be a number of seconds from {MIN_SECONDS:g}, not {max_seconds!r}"
        raise TrainingError(message, "max_seconds")
    for clip in clips:
        _check_clip(clip, tts.config)
    preparation = _Preparation(tts, cache, max_seconds)
    found: list[_Usable | LeftOut] = []
    for count, clip in enumerate(clips, start=1):
        try:
            found.append(preparation.usable(clip))
        except _UnfitError as reason:
            found.append(LeftOut(clip.source, str(reason)))
        if progress is not None:
            progress(count, len(clips))
    found = _without_outliers(found)
    usable = [one for one in found if isinstance(one, _Usable)]
    left_out = [one for one in found if isinstance(one, LeftOut)]
    if not usable:
        first = f"; {left_out[0].source}: {left_out[0].reason}" if left_out else ""
        raise TrainingError(f"none of the {len(clips)} clips can be used{first}")
    return Prepared([one.example for one in usable], left_out, _voices(usable))


def _check_clip(clip: Clip, config: ModelConfig) -> None:
    """Raise TrainingError for what the model does not know."""
    try:
        language_name(clip.language, config)
    except RequestError as error:
        raise TrainingError(f"{clip.where}: {error}") from None
    talker = config.talker_config
    codes = clip.codes
    if codes is not None and (codes.shape[1] != talker.num_code_groups or codes.max() >= talker.num_codes):
        raise TrainingError(
            f"{clip.where}: audio_codes are not of this model's codec, {talker.num_code_groups} codebooks of "
            f"{talker.num_codes} codes: leave them out to have them made again"
        )


class _Preparation:
    """What the clips of one call share."""

    def __init__(self, tts: Qwen3TTS, cache: Path | None, max_seconds: float) -> None:
        self.tts = tts
        self.max_seconds = max_seconds
        fingerprint = tts.engine.worker.run(codec_fingerprint, tts.codec)
        self.cache = CodesCache(cache, tts.codec, fingerprint)
        self.references: dict[Path, np.ndarray] = {}  # speaker embeddings

    def usable(self, clip: Clip) -> _Usable:
        """Check a clip, encode it and embed its speaker. Raises _UnfitError."""
        _require_none(text_problem(clip.text))
        samples, sample_rate = self._read(clip.audio)
        seconds = len(samples) / sample_rate
        rate = speaking_rate(clip.text, seconds)
        _require_none(audio_problem(samples, sample_rate))
        _require_none(rate_problem(rate))
        samples = resample(samples, sample_rate, self.tts.sample_rate)
        codes = self._codes(clip, samples)
        language = None if clip.language is None else language_name(clip.language, self.tts.config)
        example = Example(clip.text, language, clip.speaker, codes, seconds, clip.source)
        return _Usable(example, self._embedding(clip, samples), rate)

    def _read(self, path: Path) -> tuple[np.ndarray, int]:
        try:
            return read_audio(path, self.max_seconds)
        except AudioError as error:
            if "max_seconds" in error.arguments:
                raise _UnfitError(
                    f"too long: more than {self.max_seconds:g} s; cut it where the speaker pauses"
                ) from None
            raise _UnfitError(str(error).removeprefix(f"{path} ")) from None

    def _codes(self, clip: Clip, samples: np.ndarray) -> np.ndarray:
        if clip.codes is not None:
            _require_none(codes_problem(clip.codes, len(samples) / self.tts.codec.config.encode_downsample_rate))
            return clip.codes
        try:
            return self.cache.encode(clip.audio, samples)
        except OSError as error:
            raise _UnfitError(f"cannot be read: {error.strerror}") from None

    def _embedding(self, clip: Clip, samples: np.ndarray) -> np.ndarray:
        """Return the speaker embedding of a clip's reference, or of the clip."""
        path = clip.ref_audio
        if path is None:
            clip_and_rate = (samples, self.tts.sample_rate)  # resampling may have added a sample
            return self.tts.clone_voice(clip_and_rate, max_seconds=self.max_seconds + 1).speaker_embedding
        if path not in self.references:
            try:
                voice = self.tts.clone_voice(path, max_seconds=MAX_REFERENCE_SECONDS)
            except AudioError as error:
                raise _UnfitError(f"ref_audio: {error}") from None
            self.references[path] = voice.speaker_embedding
        return self.references[path]


def _require_none(problem: str | None) -> None:
    if problem is not None:
        raise _UnfitError(problem)


def _without_outliers(found: Sequence[_Usable | LeftOut]) -> list[_Usable | LeftOut]:
    """Leave out the clips whose speaking rate is far from that of their speaker."""
    result = list(found)
    places: dict[str, list[int]] = {}
    for place, one in enumerate(found):
        if isinstance(one, _Usable):
            places.setdefault(one.example.speaker, []).append(place)
    for indices in places.values():
        usable = [one for one in (found[i] for i in indices) if isinstance(one, _Usable)]
        for index, one, problem in zip(indices, usable, rate_problems([one.rate for one in usable]), strict=True):
            if problem is not None:
                result[index] = LeftOut(one.example.source, problem)
    return result


def _voices(usable: Sequence[_Usable]) -> dict[str, np.ndarray]:
    embeddings: dict[str, list[np.ndarray]] = {}
    for one in usable:
        embeddings.setdefault(one.example.speaker, []).append(one.embedding)
    return {name: np.stack(rows).mean(axis=0, dtype=np.float64).astype(np.float32) for name, rows in embeddings.items()}


def split(examples: Sequence[Example], share: float = 0.05, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Return the examples to train on and those held out, both in their order.

    share: of the examples that are held out, at least one; of fewer than ten examples, none. What is held out depends
    on the names of the clips and the seed, not on their order.
    Raises TrainingError for a share out of range.
    """
    if not is_number(share) or not 0 <= share <= 0.5:
        raise TrainingError(f"share must be a number from 0 to 0.5, not {share!r}", "share")
    count = 0
    if share and len(examples) >= MIN_TO_SPLIT:
        count = max(1, round(share * len(examples)))
    order = sorted(range(len(examples)), key=lambda i: hashlib.sha256(f"{seed}:{examples[i].source}".encode()).digest())
    held_out = set(order[:count])
    return (
        [example for i, example in enumerate(examples) if i not in held_out],
        [example for i, example in enumerate(examples) if i in held_out],
    )
