"""From logits to codes, with the order and the semantics of the official run (transformers' logits processors).

    talker: float32 ─ repetition penalty ─ no end before frame 2 ─ control ids out ─ temperature ─ top-k ─ top-p ─ draw
    code predictor: float32 ─ temperature ─ top-k ─ top-p ─ draw

Greedy (do_sample=False) takes the largest logit after the penalties and leaves out temperature, top-k and top-p.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..config.model import GenerationConfig, TalkerConfig


class DrawOptions(NamedTuple):
    """How one codebook is drawn, for each row: arrays [rows, 1] for a compiled function.

    They are inputs and not constants, so that other values need no other function and no other kernel. Two filters
    are left out if no row needs them, and top-k, which almost every request leaves at the same number, is a number
    then: a view in place of a gather.
    """

    sample: mx.array  # bool; false takes the largest logit
    temperature: mx.array  # float32
    top_k: mx.array | int  # int32, at most the vocabulary; a number if it is the same in all rows
    top_p: mx.array | None  # float32; None switches the filter off for all rows

    @classmethod
    def of(cls, rows: Sequence[GenerationConfig], vocab_size: int, do_sample: str, prefix: str) -> "DrawOptions":
        """Return the options of resolved `rows`, whose fields are called `do_sample` and `prefix` + "temperature" etc.

        A greedy row has temperature 1 and no filter, so that its logits keep their order exactly.
        """
        sample = [getattr(row, do_sample) for row in rows]

        def values(name: str, unused: float) -> list[float]:
            return [getattr(row, prefix + name) if on else unused for row, on in zip(rows, sample, strict=True)]

        top_k = [int(min(k or vocab_size, vocab_size)) for k in values("top_k", vocab_size)]
        top_p = values("top_p", 1.0)
        shared_top_k = top_k[0] if len(set(top_k)) == 1 else _column(top_k, mx.int32)
        limits = None if set(top_p) == {1.0} else _column(top_p, mx.float32)
        return cls(
            sample=_column(sample, mx.bool_),
            temperature=_column(values("temperature", 1.0), mx.float32),
            top_k=shared_top_k,
            top_p=limits,
        )

    def filter(self, logits: mx.array) -> mx.array:
        """Scale float32 logits [rows, vocab] by temperature, and set those outside top-k and top-p to -inf.

        Logits that tie with the k-th stay. Source: TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper of
        transformers 4.57.3.
        """
        vocab_size = logits.shape[-1]
        logits = logits / self.temperature
        if isinstance(self.top_k, mx.array):
            threshold = mx.take_along_axis(mx.sort(logits, axis=-1), vocab_size - self.top_k, axis=-1)
            logits = mx.where(logits < threshold, -mx.inf, logits)
        elif self.top_k < vocab_size:
            kth = vocab_size - self.top_k  # from below
            threshold = mx.partition(logits, kth, axis=-1)[..., kth : kth + 1]
            logits = mx.where(logits < threshold, -mx.inf, logits)
        if self.top_p is not None:
            order = mx.argsort(logits, axis=-1)
            ascending = mx.take_along_axis(logits, order, axis=-1)
            cumulative = mx.cumsum(mx.softmax(ascending, axis=-1), axis=-1)
            last = mx.arange(vocab_size) == vocab_size - 1  # the most likely one always stays
            kept = mx.where((cumulative <= 1 - self.top_p) & ~last, -mx.inf, ascending)
            kept = mx.where(self.top_p < 1, kept, ascending)
            logits = mx.put_along_axis(logits, order, kept, axis=-1)
        return logits

    def draw(self, logits: mx.array, noise: mx.array) -> mx.array:
        """Draw one id for each row, uint32 [rows], from filtered float32 logits [rows, vocab].

        The largest of the logits plus Gumbel noise is a draw from their softmax (Maddison et al. 2014,
        arXiv:1411.0030).
        """
        return mx.argmax(logits + mx.where(self.sample, noise, 0), axis=-1)


class FrameOptions(NamedTuple):
    """The sampling options of a frame, for each row."""

    repetition_penalty: mx.array  # float32 [rows, 1]
    talker: DrawOptions
    subtalker: DrawOptions

    @classmethod
    def of(cls, rows: Sequence[GenerationConfig], config: TalkerConfig) -> "FrameOptions":
        """Return the options of resolved `rows` as arrays."""
        codes = config.code_predictor_config.vocab_size
        return cls(
            repetition_penalty=_column([row.repetition_penalty for row in rows], mx.float32),
            talker=DrawOptions.of(rows, config.vocab_size, "do_sample", ""),
            subtalker=DrawOptions.of(rows, codes, "subtalker_dosample", "subtalker_"),
        )


def _column(values: Sequence[float], dtype: mx.Dtype) -> mx.array:
    return mx.array(list(values), dtype)[:, None]


def talker_logits(
    logits: mx.array, seen: mx.array, may_end: mx.array, repetition_penalty: mx.array | float, config: TalkerConfig
) -> mx.array:
    """Apply what concerns codebook 0 before temperature, whether a row is greedy or not.

    logits: [rows, vocab], of any float type. seen: bool [rows, vocab], true for every id generated so far.
    may_end: bool [rows, 1], false in the first MIN_FRAMES frames. repetition_penalty: [rows, 1].
    Returns float32. Source: RepetitionPenaltyLogitsProcessor, MinNewTokensLengthLogitsProcessor and
    SuppressTokensLogitsProcessor of transformers 4.57.3 with the arguments of the official generate().
    """
    logits = logits.astype(mx.float32)
    penalized = mx.where(logits < 0, logits * repetition_penalty, logits / repetition_penalty)
    logits = mx.where(seen, penalized, logits)
    ids = mx.array(np.arange(config.vocab_size, dtype=np.int32))  # on the host: mx.arange is a kernel
    is_end = ids == config.codec_eos_token_id
    # The end may be an ordinary code by its number; it is refused early all the same.
    allowed = mx.where(is_end, may_end, ids < config.num_codes)
    return mx.where(allowed, logits, -mx.inf)


def gumbel_noise(keys: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Return the noise that draws add to logits, [rows, *shape]; keys: one of mx.random for each row, [rows, 2]."""
    return mx.vmap(lambda key: mx.random.gumbel(shape, key=key))(keys)


def split_keys(keys: mx.array) -> tuple[mx.array, mx.array]:
    """Return the next keys and those to use now, both [rows, 2]."""
    both = mx.vmap(lambda key: mx.random.split(key))(keys)
    return both[:, 0], both[:, 1]
