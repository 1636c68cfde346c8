"""The frame loop: the one place where speech is generated.

    prompt ─ talker ─┬─ logits ─ code 0 ─┐
                ▲    └─ hidden ──────────┴─ code predictor ─ codes 1..15 ─► frame
                └──────── embedding of the frame + its text ◄─┘

The frame is one compiled function, sampling included, and the talker's next step is queued before its codes are read:
the host waits for the device once a frame, and the device never for the host. Only where the text of the next frame is
still being written, the frame is given out first.
Source: Qwen3TTSTalkerForConditionalGeneration.forward under transformers' generate().
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from .cache import KVCache
from .errors import GenerationError
from .prompt import Prompt
from .sampling import MIN_FRAMES, Sampling, draw, talker_logits
from .talker import Talker

PREFILL_STEP = 512  # positions of a prompt at a time: bounds the memory of attention, and lets Ctrl-C be heard

KEPT_FUNCTIONS = 8  # compiled frame functions of one model; each is for one set of sampling options

FrameFunction = Callable[..., tuple[mx.array, mx.array, mx.array, mx.array]]


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


def frame_function(talker: Talker, sampling: Sampling) -> FrameFunction:
    """All of a frame but the talker's step, as a function of arrays alone: sampling codebook 0, and the code predictor.

    (hidden, logits, seen, key, may_end) -> (codes [1, 16], embedding [1, 1, hidden], seen, key)
    """
    config = talker.config
    ids = mx.arange(config.vocab_size)

    def frame(
        hidden: mx.array, logits: mx.array, seen: mx.array, key: mx.array, may_end: mx.array
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        key, *keys = mx.random.split(key, config.num_code_groups + 1)
        allowed = talker_logits(logits, seen, may_end, sampling.repetition_penalty, config)
        code0 = draw(sampling.talker_filter(allowed), keys[0] if sampling.do_sample else None)  # [1]

        def choose(g: int, logits: mx.array) -> mx.array:
            filtered = sampling.subtalker_filter(logits.astype(mx.float32))
            return draw(filtered, keys[g + 1] if sampling.subtalker_dosample else None)

        embedding0 = talker.model.codec_embedding(code0)[:, None]  # [1, 1, hidden]
        residual, embedding = talker.code_predictor(hidden, embedding0, choose)
        codes = mx.concatenate([code0[:, None], residual], axis=1)
        return codes, embedding, seen | (ids == code0[:, None]), key

    return frame


class FrameFunctions:
    """The compiled frame functions of one talker, one for each set of sampling options in use."""

    def __init__(self, talker: Talker, compiled: bool = True) -> None:
        """compiled: False runs the same functions as they are, for comparison."""
        self._talker, self._compiled = talker, compiled
        self._functions: dict[tuple, FrameFunction] = {}

    def get(self, sampling: Sampling) -> FrameFunction:
        """The function for `sampling`, made once. A few are kept."""
        key = (sampling, self._talker.config.codec_eos_token_id)
        if key not in self._functions:
            if len(self._functions) >= KEPT_FUNCTIONS:
                self._functions.pop(next(iter(self._functions)))
            plain = frame_function(self._talker, sampling)
            self._functions[key] = mx.compile(plain) if self._compiled else plain
        return self._functions[key]


def generate_frames(
    talker: Talker, frame_of: FrameFunction, prompt: Prompt, start: Start, seed: int, max_frames: int
) -> Iterator[np.ndarray]:
    """Yield the codes of one frame after the other, int32 [16], until the model ends or `max_frames` are out.

    frame_of: of FrameFunctions. start: what `prefill` returned for the prompt; its caches are used up.
    seed: fixes every draw of this request and of no other. Raises GenerationError.
    """
    hidden, logits, caches = start
    seen = mx.zeros((1, talker.config.vocab_size), dtype=mx.bool_)
    key = mx.random.key(seed)
    for frame in range(max_frames):
        codes, embedding, seen, key = frame_of(hidden, logits, seen, key, mx.array(frame >= MIN_FRAMES))
        more = frame + 1 < max_frames
        queued = more and prompt.text.ready
        if queued:  # the next step is under way before anything of this frame is looked at
            hidden, logits = talker(embedding + talker.embed_text(prompt.text.take(1)), caches)
            mx.async_eval(codes, hidden, logits, seen, key)
        row = np.array(codes[0], dtype=np.int32)
        if row[0] == talker.config.codec_eos_token_id:
            return
        if not 0 <= row[0] < talker.config.num_codes:  # no id is likelier than -inf: the logits were no numbers
            raise GenerationError(
                "the talker's logits are not finite: the checkpoint is damaged, or its numbers are too large for "
                "float16 (dtype='bfloat16', --dtype bfloat16)"
            )
        yield row
        if more and not queued:
            hidden, logits = talker(embedding + talker.embed_text(prompt.text.take(1)), caches)
