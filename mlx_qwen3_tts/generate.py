"""The frame loop: the one place where speech is generated.

    prompt ─ talker ─┬─ logits ─ code 0 ─┐
                ▲    └─ hidden ──────────┴─ code predictor ─ codes 1..15 ─► frame
                └──────── embedding of the frame + its text ◄─┘

A frame is out before the text of the next is asked for: where that is still being written, the speech waits.
Source: Qwen3TTSTalkerForConditionalGeneration.forward under transformers' generate().
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from .cache import KVCache
from .errors import GenerationError
from .prompt import Prompt
from .sampling import Sampling, draw, talker_logits
from .talker import Talker

PREFILL_STEP = 512  # positions of a prompt at a time: bounds the memory of attention, and lets Ctrl-C be heard


class Start(NamedTuple):
    """The talker after the prompt."""

    hidden: mx.array  # [1, 1, hidden], after the final norm
    logits: mx.array  # [1, vocab] of the first frame's codebook 0
    caches: list[KVCache]


def prefill(talker: Talker, prompt: Prompt) -> Start:
    """Run the prompt through the talker."""
    caches = [KVCache() for _ in talker.model.layers]
    for start in range(0, prompt.embeddings.shape[1], PREFILL_STEP):
        hidden, logits = talker(prompt.embeddings[:, start : start + PREFILL_STEP], caches)
        mx.eval(hidden, logits)
    return Start(hidden, logits, caches)


def generate_frames(
    talker: Talker, prompt: Prompt, start: Start, sampling: Sampling, seed: int, max_frames: int
) -> Iterator[np.ndarray]:
    """Yield the codes of one frame after the other, int32 [16], until the model ends or `max_frames` are out.

    start: what `prefill` returned for the prompt; its caches are used up. sampling: resolved, without None.
    seed: fixes every draw of this request and of no other. Raises GenerationError.
    """
    config = talker.config
    hidden, logits, caches = start
    seen = mx.zeros((1, config.vocab_size), dtype=mx.bool_)
    ids = mx.arange(config.vocab_size)
    key = mx.random.key(seed)
    for frame in range(max_frames):
        key, *keys = mx.random.split(key, config.num_code_groups + 1)
        allowed = talker_logits(logits, seen, frame, sampling.repetition_penalty, config)
        code0 = draw(sampling.talker_filter(allowed), keys[0] if sampling.do_sample else None)  # [1]
        seen = seen | (ids == code0[:, None])

        def choose(g: int, logits: mx.array, keys: list[mx.array] = keys) -> mx.array:
            filtered = sampling.subtalker_filter(logits.astype(mx.float32))
            return draw(filtered, keys[g + 1] if sampling.subtalker_dosample else None)

        embedding0 = talker.model.codec_embedding(code0)[:, None]  # [1, 1, hidden]
        residual, total = talker.code_predictor(hidden, embedding0, choose)
        codes = mx.concatenate([code0[:, None], residual], axis=1)  # [1, 16]
        mx.eval(codes, total, seen, key)
        first = code0.item()
        if first == config.codec_eos_token_id:
            return
        if not 0 <= first < config.num_codes:  # no id is likelier than -inf: the logits were no numbers
            raise GenerationError(
                "the talker's logits are not finite: the checkpoint is damaged, or its numbers are too large for "
                "float16 (dtype='bfloat16', --dtype bfloat16)"
            )
        yield np.array(codes[0], dtype=np.int32)
        if frame + 1 < max_frames:
            hidden, logits = talker(total + talker.embed_text(prompt.text.take(1)), caches)
