"""Teacher-forced scoring of given codes: the distribution of every code, given all codes before it.

    prompt, then the frames' embeddings ─ talker ─ hidden states ─┬─ codec_head ─ codebook 0
                                  the frames' codes ─────────────┴─ code predictor ─ codebooks 1..15

All frames at once, with the weights of the frame loop; the two give the same logits up to rounding.
"""

from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..models.cache import KVCache
from ..models.qwen3 import ApplyLayer, call_layer
from ..models.talker import Talker
from ..request import Request
from .engine import PREFILL_STEP, Engine
from .prompt import Prompt, embed
from .sampling import talker_logits

FRAMES = 64  # frames that the code predictor sees at a time: bounds memory


class LogProbabilities(NamedTuple):
    """Of the ids that may be generated; -inf for the others. Temperature, top-k and top-p are left out."""

    talker: np.ndarray  # float32 [frames, vocab]: codebook 0, and the end
    predictor: np.ndarray  # float32 [frames, 15, codes]


def score(engine: Engine, request: Request, codes: np.ndarray) -> LogProbabilities:
    """Return the log-probabilities of every code, given the codes before it.

    request: checked, with a string for its text. codes: int [frames, 16], as `synthesize` returns them.
    """
    prompt = engine.prompts.build(request)
    return engine.worker.run(_score, engine.talker, prompt, codes)


def _score(talker: Talker, prompt: Prompt, codes: np.ndarray) -> LogProbabilities:
    frames = mx.array(codes)[None]
    fed = talker.embed_frames(frames) + talker.embed_text(mx.array(prompt.feed.take(len(codes)))[None])
    x = mx.concatenate([embed(talker, prompt, 0, len(prompt)), fed[:, :-1]], axis=1)
    hidden = talker_hidden_states(talker, x)[0, -len(codes) :]
    logits = talker.codec_head(hidden)
    unseen = mx.zeros(logits.shape, dtype=mx.bool_)
    allowed = talker_logits(logits, unseen, mx.array(True), 1.0, talker.config)
    parts = []
    for start in range(0, len(codes), FRAMES):
        part = predictor_logits(talker, hidden[start : start + FRAMES], frames[0, start : start + FRAMES])
        mx.eval(part)
        parts.append(part)
    return LogProbabilities(np.array(log_softmax(allowed)), np.array(log_softmax(mx.concatenate(parts))))


def talker_hidden_states(talker: Talker, x: mx.array) -> mx.array:
    """Return the hidden states after the final norm, [1, positions, hidden], for embeddings of the same shape."""
    caches = [KVCache() for _ in talker.model.layers]
    parts: list[mx.array] = []
    for start in range(0, x.shape[1], PREFILL_STEP):
        part = talker.model.hidden_states(x[:, start : start + PREFILL_STEP], caches)
        mx.eval(part)
        parts.append(part)
    return mx.concatenate(parts, axis=1)


def predictor_logits(
    talker: Talker, hidden: mx.array, codes: mx.array, apply_layer: ApplyLayer = call_layer
) -> mx.array:
    """Return the logits of codebooks 1.., [frames, 15, codes].

    hidden: the talker's states before the frames [frames, hidden]. codes: of the frames [frames, 16]. apply_layer: see
    Transformer.run_layers.
    """
    predictor = talker.code_predictor
    tables = [talker.model.codec_embedding, *predictor.model.codec_embedding[:-1]]
    embeddings = mx.stack([table(codes[:, g]) for g, table in enumerate(tables)], axis=1)
    return predictor.teacher_forced(hidden, embeddings, apply_layer)


def log_softmax(logits: mx.array) -> mx.array:
    """Return float32 log-probabilities over the last axis."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
