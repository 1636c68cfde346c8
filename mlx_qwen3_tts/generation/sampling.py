"""From logits to codes, with the order and the semantics of the official run (transformers' logits processors).

    talker: float32 ─ repetition penalty ─ no end before frame 2 ─ control ids out ─ temperature ─ top-k ─ top-p ─ draw
    code predictor: float32 ─ temperature ─ top-k ─ top-p ─ draw

Greedy (do_sample=False) takes the largest logit after the penalties and leaves out temperature, top-k and top-p.
"""

from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import mlx.core as mx

from ..config.model import GenerationConfig, TalkerConfig
from ..errors import RequestError

OFFICIAL = GenerationConfig()  # the official code's own defaults
MIN_FRAMES = 2  # min_new_tokens of the official generate(), which is not configurable there either


@dataclass(frozen=True)
class Sampling:
    """Sampling options under generation_config.json's names; None means the checkpoint's own default.

    The subtalker is the code predictor. top_k=0 and top_p=1.0 switch those filters off.
    """

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    subtalker_dosample: bool | None = None
    subtalker_temperature: float | None = None
    subtalker_top_k: int | None = None
    subtalker_top_p: float | None = None

    def resolve(self, defaults: GenerationConfig) -> "Sampling":
        """The same options with every None replaced by the checkpoint's default.

        Raises RequestError for a value out of range, and for one that could have no effect because the draw it
        shapes is switched off.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {name: getattr(defaults, name) if value is None else value for name, value in given.items()}
        for switch, prefix in (("do_sample", ""), ("subtalker_dosample", "subtalker_")):
            for name in (f"{prefix}temperature", f"{prefix}top_k", f"{prefix}top_p"):
                if given[name] is not None and not values[switch]:
                    off = "off" if given[switch] is not None else "off by this checkpoint's default"
                    raise RequestError(
                        f"{name} has no effect while {switch} is {off}; switch it on, or leave {name} out"
                    )
        _check_ranges(values)
        # Numbers of other libraries become Python's own.
        return Sampling(**{name: type(getattr(OFFICIAL, name))(value) for name, value in values.items()})

    def check(self) -> None:
        """Raise RequestError for what no checkpoint could take: a value out of range, or one without effect."""
        self.resolve(OFFICIAL)

    def talker_filter(self, logits: mx.array) -> mx.array:
        """Temperature, top-k and top-p for codebook 0; nothing when greedy."""
        return warp(logits, self.temperature, self.top_k, self.top_p) if self.do_sample else logits

    def subtalker_filter(self, logits: mx.array) -> mx.array:
        """Temperature, top-k and top-p for codebooks 1..15; nothing when greedy."""
        if not self.subtalker_dosample:
            return logits
        return warp(logits, self.subtalker_temperature, self.subtalker_top_k, self.subtalker_top_p)


DEFAULTS = Sampling()


def _check_ranges(values: dict[str, Any]) -> None:
    """Raise RequestError for a value that its option cannot have."""
    for name, value in values.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if name.endswith(("do_sample", "dosample")):
            valid, rule = isinstance(value, bool), "true or false"
        elif name.endswith("top_k"):
            valid, rule = number and isinstance(value, Integral) and value >= 0, "a whole number, or 0 to switch it off"
        elif name.endswith("top_p"):
            valid, rule = number and 0 < value <= 1, "above 0 and at most 1, which switches it off"
        elif name.endswith("temperature"):
            # Below, float32 logits divided by it overflow: a draw would be of no distribution at all.
            valid = number and 0.001 <= value <= 1000
            rule = "from 0.001 to 1000 (for the most likely code every time, switch sampling off)"
        else:
            valid, rule = number and 0.001 <= value <= 1000, "from 0.001 to 1000 (1 switches it off)"
        if not valid:
            raise RequestError(f"{name} must be {rule}, not {value!r}")


def warp(logits: mx.array, temperature: float, top_k: int, top_p: float) -> mx.array:
    """Scale float32 logits [..., vocab] by temperature, and set those outside top-k and top-p to -inf.

    Source: TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper of transformers 4.57.3. Logits that tie
    with the k-th stay.
    """
    if temperature != 1:
        logits = logits / temperature
    if top_k:
        kth = max(logits.shape[-1] - top_k, 0)  # from below
        threshold = mx.partition(logits, kth, axis=-1)[..., kth : kth + 1]
        logits = mx.where(logits < threshold, -mx.inf, logits)
    if top_p < 1:
        order = mx.argsort(logits, axis=-1)
        ascending = mx.take_along_axis(logits, order, axis=-1)
        cumulative = mx.cumsum(mx.softmax(ascending, axis=-1), axis=-1)
        last = mx.arange(logits.shape[-1]) == logits.shape[-1] - 1  # the most likely one always stays
        kept = mx.where((cumulative <= 1 - top_p) & ~last, -mx.inf, ascending)
        logits = mx.put_along_axis(logits, order, kept, axis=-1)
    return logits


def talker_logits(
    logits: mx.array, seen: mx.array, may_end: mx.array, repetition_penalty: float, config: TalkerConfig
) -> mx.array:
    """What applies to codebook 0 before temperature, whether greedy or not.

    logits: [batch, vocab], of any float type. seen: bool [batch, vocab], true for every id generated so far.
    may_end: bool, false in the first MIN_FRAMES frames.
    Returns float32. Source: RepetitionPenaltyLogitsProcessor, MinNewTokensLengthLogitsProcessor and
    SuppressTokensLogitsProcessor of transformers 4.57.3 with the arguments of the official generate().
    """
    logits = logits.astype(mx.float32)
    penalized = mx.where(logits < 0, logits * repetition_penalty, logits / repetition_penalty)
    logits = mx.where(seen, penalized, logits)
    ids = mx.arange(config.vocab_size)
    is_end = ids == config.codec_eos_token_id
    # The end may be an ordinary code by its number; it is refused early all the same.
    allowed = mx.where(is_end, may_end, ids < config.num_codes)
    return mx.where(allowed, logits, -mx.inf)


def gumbel_noise(key: mx.array, shape: tuple[int, ...]) -> mx.array:
    """What `draw` adds to logits of that shape; one call makes the noise of many draws. key: of mx.random."""
    return mx.random.gumbel(shape, key=key)


def draw(logits: mx.array, noise: mx.array | None) -> mx.array:
    """One id [batch] from filtered float32 logits [batch, vocab]: a random one, or the likeliest without noise.

    The largest of the logits plus Gumbel noise is a draw from their softmax (Maddison et al. 2014, arXiv:1411.0030).
    """
    return mx.argmax(logits if noise is None else logits + noise, axis=-1).astype(mx.int32)
