"""The frame loop: the one place where speech is generated.

    prompt ─ talker ─┬─ logits ─ code 0 ─┐
                ▲    └─ hidden ──────────┴─ code predictor ─ codes 1..15 ─► frame
                └──────── embedding of the frame + its text ◄─┘

Each frame is one evaluation: the frame's codes and the talker's step onto the next.
Source: Qwen3TTSTalkerForConditionalGeneration.forward under transformers' generate().
"""

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from .cache import KVCache
from .prompt import Prompt
from .sampling import Sampling, draw, talker_logits
from .talker import Talker


def generate_frames(
    talker: Talker, prompt: Prompt, sampling: Sampling, seed: int, max_frames: int
) -> Iterator[np.ndarray]:
    """Yield the codes of one frame after the other, int32 [16], until the model ends or `max_frames` are out.

    sampling: resolved, without None. seed: fixes every draw of this request and of no other.
    """
    config = talker.config
    caches = [KVCache() for _ in talker.model.layers]
    seen = mx.zeros((1, config.vocab_size), dtype=mx.bool_)
    ids = mx.arange(config.vocab_size)
    key = mx.random.key(seed)
    hidden, logits = talker(prompt.embeddings, caches)
    for frame in range(max_frames):
        key, *keys = mx.random.split(key, config.num_code_groups + 1)
        allowed = talker_logits(logits, seen, frame, sampling.repetition_penalty, config)
        code0 = draw(sampling.talker_filter(allowed), keys[0] if sampling.do_sample else None)  # [1]
        seen = seen | (ids == code0[:, None])

        def choose(g: int, logits: mx.array, keys: list[mx.array] = keys) -> mx.array:
            filtered = sampling.subtalker_filter(logits.astype(mx.float32))
            return draw(filtered, keys[g + 1] if sampling.subtalker_dosample else None)

        embedding0 = talker.model.codec_embedding(code0)[:, None]  # [1, 1, hidden]
        residual, embedding = talker.code_predictor(hidden, embedding0, choose)
        codes = mx.concatenate([code0[:, None], residual], axis=1)  # [1, 16]
        hidden, logits = talker(embedding0 + embedding + prompt.text_at(frame), caches)
        mx.eval(codes, hidden, logits, seen, key)
        if code0.item() == config.codec_eos_token_id:
            return
        yield np.array(codes[0], dtype=np.int32)
