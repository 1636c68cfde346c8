"""Quantization of a matrix in MLX's affine format, with a search for better scales and biases.

    weight [rows, columns] ─ groups ─ starts (mx.quantize's own range, and tighter ones) ─ refine ─ best ─ pack
                                                                 ▲           │
                                                                 └───────────┘

32, 64 or 128 weights of a row share a scale and a bias. `mx.quantize` derives both from a group's smallest and largest
weight, and rounds them to the weights' type after it has chosen the integers. The format allows any scale and bias, so
`search` fits them to the integers by weighted least squares, rounds them, and chooses the integers again, from several
starting ranges. Each group keeps the best result, with that of mx.quantize among the candidates. The stored format is
the same, and so is its speed.
"""

from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..checkpoint.quantization import Affine

BLOCK_SIZE = 2**20  # weights searched at a time: bounds the memory
# By bits: the starting ranges of the search, as shares of mx.quantize's range, and the refinements of each. The fewer
# the bits, the more a clipped range gains; at 8 bits the rounding of scale and bias matters most.
STARTS = {
    2: ((1.0, 0.85, 0.7, 0.6, 0.5, 0.4), 3),
    3: ((1.0, 0.92, 0.84, 0.76, 0.68, 0.6), 4),
    4: ((1.0, 0.95, 0.9, 0.85, 0.8, 0.75), 4),
    5: ((1.0, 0.96, 0.92, 0.88), 3),
    6: ((1.01, 1.0, 0.98, 0.96, 0.94), 2),
    8: ((0.985, 0.99, 0.995, 1.0, 1.005, 1.01), 1),
}


class Quantized(NamedTuple):
    """A matrix in MLX's affine format."""

    weight: mx.array  # uint32 [rows, columns * bits / 32]
    scales: mx.array  # [rows, columns / group_size], in the source's type
    biases: mx.array  # [rows, columns / group_size], in the source's type


class SearchResult(NamedTuple):
    """A quantized matrix with its sum of weighted squared errors, and that of mx.quantize, which is never smaller."""

    matrix: Quantized
    error: float
    plain_error: float


class Candidate(NamedTuple):
    """Groups [rows, groups, size] as integers with a scale and a bias [rows, groups, 1], all in float32."""

    integers: mx.array
    scale: mx.array
    bias: mx.array


def plain(weight: mx.array, affine: Affine) -> Quantized:
    """Quantize `weight` [rows, columns] by mx.quantize."""
    return Quantized(*mx.quantize(weight, group_size=affine.group_size, bits=affine.bits))


def search(weight: mx.array, affine: Affine, importance: mx.array | None = None) -> SearchResult:
    """Quantize `weight` [rows, columns] with searched scales and biases.

    importance: float [columns], the weight of an error in each column: the mean square of the layer's input there. None
    weights all columns equally.
    """
    rows, columns = weight.shape
    importance = mx.ones(columns) if importance is None else importance.astype(mx.float32)
    importance = mx.maximum(importance, 1e-6 * importance.mean())  # an unused column still needs defined values
    importance = importance.reshape(columns // affine.group_size, affine.group_size)
    block_rows = max(1, BLOCK_SIZE // columns)
    parts = []
    errors = []
    for start in range(0, rows, block_rows):
        part, error = _search_block(weight[start : start + block_rows], affine, importance)
        mx.eval(*part, error)
        parts.append(part)
        errors.append(error)
    matrix = Quantized(*(mx.concatenate(list(arrays)) for arrays in zip(*parts, strict=True)))
    error, plain_error = np.array(mx.stack(errors)).astype(float).sum(axis=0)
    return SearchResult(matrix, float(error), float(plain_error))


def _search_block(weight: mx.array, affine: Affine, importance: mx.array) -> tuple[Quantized, mx.array]:
    """Quantize some rows. The second result holds their error and that of mx.quantize [2]."""
    usual = plain(weight, affine)
    scales = usual.scales.astype(mx.float32)
    biases = usual.biases.astype(mx.float32)
    groups = weight.astype(mx.float32).reshape(len(weight), -1, affine.group_size)
    values = mx.dequantize(usual.weight, scales, biases, group_size=affine.group_size, bits=affine.bits)
    plain_error = (importance * mx.square(values.reshape(groups.shape) - groups)).sum()

    max_integer = mx.array(2.0**affine.bits - 1)
    scale = scales[..., None]
    bias = biases[..., None]
    # With the integers that fit the rounded scale and bias, the error is at most that of mx.quantize.
    best = Candidate(_integers(groups, scale, bias, max_integer), scale, bias)
    lowest = _error(groups, importance, *best)
    starts, refinements = STARTS[affine.bits]
    for share in starts:
        start_bias = bias + scale * (0.5 * max_integer * (1 - share))
        found = _refine(groups, importance, scale * share, start_bias, max_integer, refinements, weight.dtype)
        error = _error(groups, importance, *found)
        better = error < lowest
        best = Candidate(*(mx.where(better, new, old) for new, old in zip(found, best, strict=True)))
        lowest = mx.minimum(error, lowest)

    words = pack(best.integers.astype(mx.uint32).reshape(weight.shape), affine.bits)
    matrix = Quantized(words, best.scale[..., 0].astype(weight.dtype), best.bias[..., 0].astype(weight.dtype))
    return matrix, mx.stack([lowest.sum(), plain_error])


def _refine(
    groups: mx.array,
    importance: mx.array,
    scale: mx.array,
    bias: mx.array,
    max_integer: mx.array,
    refinements: int,
    dtype: mx.Dtype,
) -> Candidate:
    """Choose integers and fit scale and bias to them in turn. dtype: the type that scale and bias are stored in."""
    for _ in range(refinements):
        integers = _integers(groups, scale, bias, max_integer)
        scale, bias = _fit(groups, importance, integers, scale)
        scale = scale.astype(dtype).astype(mx.float32)
        bias = bias.astype(dtype).astype(mx.float32)
    return Candidate(_integers(groups, scale, bias, max_integer), scale, bias)


@mx.compile
def _integers(w: mx.array, scale: mx.array, bias: mx.array, max_integer: mx.array) -> mx.array:
    """Return the integers nearest to the weights `w` [rows, groups, size]."""
    return mx.clip(mx.round((w - bias) / scale), 0, max_integer)


@mx.compile
def _error(w: mx.array, h: mx.array, q: mx.array, scale: mx.array, bias: mx.array) -> mx.array:
    """Return the squared error of each group, weighted by `h`: [rows, groups, 1]."""
    return (h * mx.square(q * scale + bias - w)).sum(-1, keepdims=True)


@mx.compile
def _fit(w: mx.array, h: mx.array, q: mx.array, scale: mx.array) -> tuple[mx.array, mx.array]:
    """Fit scale and bias by weighted least squares of `w` on the integers `q`; `scale` stays if these are all equal."""
    total = h.sum(-1, keepdims=True)
    mean_q = (h * q).sum(-1, keepdims=True) / total
    mean_w = (h * w).sum(-1, keepdims=True) / total
    variance = (h * mx.square(q - mean_q)).sum(-1, keepdims=True)
    slope = (h * (q - mean_q) * (w - mean_w)).sum(-1, keepdims=True) / mx.maximum(variance, 1e-30)
    scale = mx.where((variance > 0) & (mx.abs(slope) > 1e-20), slope, scale)
    return scale, mean_w - scale * mean_q


def pack(values: mx.array, bits: int) -> mx.array:
    """Pack uint32 [rows, columns], each below 2^bits, to [rows, columns * bits / 32]: a bit stream, lowest first."""
    values = values.reshape(len(values), -1, 32)  # 32 values take `bits` words
    words = [mx.zeros(values.shape[:2], mx.uint32)] * bits
    for i in range(32):
        word, shift = divmod(i * bits, 32)
        words[word] = words[word] | (values[..., i] << shift)
        if shift + bits > 32:
            words[word + 1] = values[..., i] >> (32 - shift)
    return mx.stack(words, axis=-1).reshape(len(values), -1)
