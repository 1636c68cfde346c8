"""The compiled functions of a frame: everything that is computed between two looks at its codes.

    hidden, logits ─ frame: sampling, code predictor ─► codes, embedding ─ step: the talker ─► hidden, logits

Both take arrays alone, with a row for each request. Shapes change with the number of rows and with the capacity of the
KV cache only; what changes from frame to frame or from request to request is an input. Positions and masks are made on
the host, which knows them.
Source: Qwen3TTSTalkerForConditionalGeneration.forward under transformers' generate().
"""

from collections.abc import Callable, Sequence
from functools import reduce

import mlx.core as mx
import numpy as np

from ..models.cache import StepCache
from ..models.qwen3 import RotaryEmbedding
from ..models.talker import NO_CODE, Talker
from .sampling import FrameOptions, gumbel_noise, split_keys, talker_logits

MIN_FRAMES = 2  # min_new_tokens of the official generate(), which is not configurable there either
MAX_TRACES = 16  # traces of the frame function that are kept

Frame = tuple[mx.array, mx.array, mx.array, mx.array]
Step = tuple[mx.array, mx.array, list[mx.array]]


def frame_function(talker: Talker) -> Callable[..., Frame]:
    """Return a frame without the talker's step, as a function of arrays.

    (hidden [rows, hidden], logits [rows, vocab], seen [rows, vocab], keys [rows, 2], may_end [rows, 1], options)
    -> (codes int32 [rows, 16], embedding [rows, hidden], seen, keys)

    A row whose logits are not finite gets NO_CODE throughout.
    """
    config = talker.config
    # Made here: in the compiled function each would be one more kernel a frame.
    ids = mx.array(np.arange(config.vocab_size, dtype=np.int32))
    groups = mx.array(np.arange(config.num_code_groups, dtype=np.int32))

    def frame(
        hidden: mx.array,
        logits: mx.array,
        seen: mx.array,
        keys: mx.array,
        may_end: mx.array,
        options: FrameOptions,
    ) -> Frame:
        keys, now = split_keys(keys)
        noise = gumbel_noise(now, (config.num_code_groups, config.vocab_size))
        allowed = talker_logits(logits, seen, may_end, options.repetition_penalty, config)
        code0 = options.talker.draw(options.talker.filter(allowed), noise[:, 0])
        chosen = mx.take_along_axis(allowed, code0[:, None], axis=-1)
        predictor_logits = []

        def choose(g: int, logits: mx.array) -> mx.array:
            predictor_logits.append(logits)
            filtered = options.subtalker.filter(logits.astype(mx.float32))
            return options.subtalker.draw(filtered, noise[:, g + 1, : logits.shape[-1]])

        residual, embedding = talker.code_predictor(hidden, talker.model.codec_embedding(code0), choose)
        # As sums of small arrays, which mx.compile joins into a few operations; a concatenation is one for each input.
        codes = sum_by_pairs([mx.where(groups == g, code[:, None], 0) for g, code in enumerate([code0, *residual])])
        total = mx.sum(sum_by_pairs(predictor_logits).astype(mx.float32), axis=-1, keepdims=True)
        codes = mx.where(mx.isfinite(total + chosen), codes.astype(mx.int32), NO_CODE)
        return codes, embedding, seen | (ids == code0[:, None]), keys

    return frame


def sum_by_pairs(arrays: Sequence[mx.array]) -> mx.array:
    """Add arrays in a tree of pairs: mx.compile joins no chain that is deeper than 11 operations."""
    while len(arrays) > 1:
        arrays = [reduce(mx.add, arrays[i : i + 2]) for i in range(0, len(arrays), 2)]
    return arrays[0]


def step_function(talker: Talker) -> Callable[..., Step]:
    """Return the talker's next step as a function of arrays.

    (embedding [rows, hidden], text [rows, hidden], buffers of all layers, positions [rows], cos, sin, mask)
    -> (hidden, logits, buffers)
    """

    def step(
        embedding: mx.array,
        text: mx.array,
        buffers: list[mx.array],
        positions: mx.array,
        cos: mx.array,
        sin: mx.array,
        mask: mx.array,
    ) -> Step:
        rows = embedding.shape[0]
        if rows > 1:  # attention would copy the mask in each layer
            mask = mx.contiguous(mx.broadcast_to(mask, (rows, talker.config.num_attention_heads, 1, mask.shape[-1])))
        caches = [StepCache(buffer, positions, mask) for buffer in buffers]
        hidden, logits = talker((embedding + text)[:, None], caches, RotaryEmbedding(cos, sin))
        return hidden, logits, [cache.buffer for cache in caches]

    return step


class FrameFunctions:
    """The compiled functions of one talker."""

    def __init__(self, talker: Talker, compiled: bool = True) -> None:
        """compiled: False runs the same functions as they are, for comparison."""
        self.talker = talker
        self._compile = mx.compile if compiled else lambda function: function
        self._step = self._compile(step_function(talker))
        self._text = self._compile(lambda ids: talker.embed_text(ids))
        self._pad: mx.array | None = None
        self._frame: Callable[..., Frame] = self._compile(frame_function(talker))
        self._traces: set[tuple] = set()

    def frame(
        self,
        hidden: mx.array,
        logits: mx.array,
        seen: mx.array,
        keys: mx.array,
        may_end: mx.array,
        options: FrameOptions,
    ) -> Frame:
        """Sample the codes of a frame; see `frame_function`."""
        # A compiled function keeps a trace for each combination of filters (those that are numbers or None).
        trace = (len(keys), *(str(part) for draw in options[1:] for part in draw if not isinstance(part, mx.array)))
        self._traces.add(trace)
        if len(self._traces) > MAX_TRACES:
            self._frame = self._compile(frame_function(self.talker))
            self._traces = {trace}
        return self._frame(hidden, logits, seen, keys, may_end, options)

    def embed_text(self, ids: Sequence[int], pad_id: int) -> mx.array:
        """Embed the text that a frame is fed, one id for each row, [rows, hidden].

        In the default layout all of them are padding, whose embedding is kept.
        """
        if self._pad is None:
            self._pad = self.talker.embed_text(mx.array([pad_id]))
        is_pad = np.array([id_ == pad_id for id_ in ids])
        if is_pad.all():
            return mx.broadcast_to(self._pad, (len(ids), self._pad.shape[-1]))
        found = self._text(mx.array(list(ids)))
        return mx.where(mx.array(is_pad)[:, None], self._pad, found) if is_pad.any() else found

    def step(self, embedding: mx.array, text: mx.array, buffers: list[mx.array], positions: np.ndarray) -> Step:
        """Advance the talker by one position in each row.

        embedding, text: of the frame and of what it is fed [rows, hidden]. buffers: of all layers, see models/cache.py.
        positions: the number of positions before the new one in each row, int [rows]; a row looks at these and at the
        new one. Returns hidden [rows, hidden], logits [rows, vocab] and the new buffers.
        """
        rotation = self.talker.model.rotary_embedding(positions[:, None])
        mask = np.arange(buffers[0].shape[3]) <= positions[:, None]
        return self._step(
            embedding, text, buffers, mx.array(positions.astype(np.int32)), *rotation, mx.array(mask[:, None, None])
        )
