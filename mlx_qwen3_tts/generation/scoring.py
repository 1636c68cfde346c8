"""What a model says of speech that is already there: the distribution of every code, given all codes before it.

    prompt, then the frames' embeddings ─ talker ─ hidden states ─┬─ codec_head ─ codebook 0
                                  the frames' codes ─────────────┴─ code predictor ─ codebooks 1..15

All frames at once, with the weights of the frame loop; the two give the same logits but for rounding.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..models.cache import KVCache
from ..models.talker import Talker
from ..result import SynthesisResult
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt
from .frames import PREFILL_STEP
from .prompt import Request, check
from .sampling import talker_logits

FRAMES = 64  # that the code predictor sees at a time: bounds memory


def requests(
    tts: Qwen3TTS, texts: Sequence[str], voice: str | VoiceClonePrompt | None, instruct: str | None, max_frames: int
) -> list[Request]:
    """One request for each text, each with a seed of its own; a VoiceDesign model may go without a description.

    Raises RequestError for what the model cannot do.
    """
    if instruct is None and tts.model_type == "voice_design":
        instruct = ""
    made = [Request(text, voice, None, instruct, seed, max_frames=max_frames) for seed, text in enumerate(texts)]
    for request in made:
        check(request, tts.config)
    return made


def speak(tts: Qwen3TTS, request: Request) -> SynthesisResult:
    """The speech of a request."""
    return tts.synthesize(**{field.name: getattr(request, field.name) for field in fields(request)})


class LogProbabilities(NamedTuple):
    """Of the ids that may be generated; -inf for the others. Temperature, top-k and top-p are left out."""

    talker: mx.array  # float32 [frames, vocab]: codebook 0, and the end
    predictor: mx.array  # float32 [frames, 15, codes]


def score(tts: Qwen3TTS, request: Request, codes: np.ndarray) -> LogProbabilities:
    """How likely `tts` finds every code, where all codes before it are those given.

    request: with a string for its text; checked before. codes: int [frames, 16], as `synthesize` returns them.
    """
    talker, frames = tts.talker, mx.array(codes)[None]
    prompt = tts._prompts.build(request)
    spoken = talker.embed_frames(frames) + talker.embed_text(prompt.text.take(len(codes)))
    hidden = _talker_hidden(talker, mx.concatenate([prompt.embeddings, spoken[:, :-1]], axis=1))[0, -len(codes) :]
    logits = talker.codec_head(hidden)
    unseen = mx.zeros(logits.shape, dtype=mx.bool_)
    allowed = talker_logits(logits, unseen, mx.array(True), 1.0, talker.config)
    parts = []
    for start in range(0, len(codes), FRAMES):
        part = _predictor_logits(talker, hidden[start : start + FRAMES], frames[0, start : start + FRAMES])
        mx.eval(part)
        parts.append(part)
    return LogProbabilities(_log_softmax(allowed), _log_softmax(mx.concatenate(parts)))


def _talker_hidden(talker: Talker, x: mx.array) -> mx.array:
    """Hidden states after the final norm [1, positions, hidden]."""
    caches, parts = [KVCache() for _ in talker.model.layers], []
    for start in range(0, x.shape[1], PREFILL_STEP):
        part = talker.model.every_position(x[:, start : start + PREFILL_STEP], caches)
        mx.eval(part)
        parts.append(part)
    return mx.concatenate(parts, axis=1)


def _predictor_logits(talker: Talker, hidden: mx.array, codes: mx.array) -> mx.array:
    """Hidden states [frames, hidden] and codes [frames, 16] -> logits of codebooks 1.. [frames, 15, codes]."""
    predictor = talker.code_predictor
    tables = [talker.model.codec_embedding, *predictor.model.codec_embedding]
    inputs = [hidden, *(table(codes[:, g]) for g, table in enumerate(tables[:-1]))]
    caches = [KVCache(step=len(inputs)) for _ in predictor.model.layers]
    out = predictor.model.every_position(predictor._project(mx.stack(inputs, axis=1)), caches)  # [frames, 16, hidden]
    return mx.stack([head(out[:, g + 1]) for g, head in enumerate(predictor.lm_head)], axis=1)


def _log_softmax(logits: mx.array) -> mx.array:
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
