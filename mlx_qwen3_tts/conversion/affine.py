"""A matrix to MLX's affine format: groups of 32, 64 or 128 weights in a row share a scale and a bias.

    weight [rows, columns] ─ groups ─ starts (mx.quantize's own range, and tighter ones) ─ refine ─ the best ─ pack
                                                                 ▲           │
                                                                 └───────────┘

`mx.quantize` takes scale and bias from a group's smallest and largest weight, and rounds both to the weights' type
after it has chosen the integers. The format leaves both free: `search` fits them to the integers by weighted least
squares, rounds them, and chooses the integers anew, from several ranges; each group keeps the best that was seen,
mx.quantize's own among them. What is stored has the same format and speed.
"""

from typing import NamedTuple

import mlx.core as mx
import numpy as np

BITS, GROUP_SIZES = (2, 3, 4, 5, 6, 8), (32, 64, 128)  # of MLX's affine mode
BLOCK = 2**20  # weights that are searched at a time: bounds memory
# Where the search starts, as shares of the range that mx.quantize covers, and how often each start is refined. The
# fewer bits, the more it pays to clip what lies outside; at 8 bits the rounding of scale and bias matters most.
STARTS = {
    2: ((1.0, 0.85, 0.7, 0.6, 0.5, 0.4), 3),
    3: ((1.0, 0.92, 0.84, 0.76, 0.68, 0.6), 4),
    4: ((1.0, 0.95, 0.9, 0.85, 0.8, 0.75), 4),
    5: ((1.0, 0.96, 0.92, 0.88), 3),
    6: ((1.01, 1.0, 0.98, 0.96, 0.94), 2),
    8: ((0.985, 0.99, 0.995, 1.0, 1.005, 1.01), 1),
}


class Affine(NamedTuple):
    """How a matrix is stored: `bits` for a weight, a scale and a bias for `group_size` of them."""

    bits: int
    group_size: int = 64

    def __str__(self) -> str:
        return f"{self.bits} bits, groups of {self.group_size}"


class Quantized(NamedTuple):
    """A matrix in MLX's affine format."""

    weight: mx.array  # uint32 [rows, columns * bits / 32]
    scales: mx.array  # [rows, columns / group_size], of the source's type
    biases: mx.array  # the same


def plain(weight: mx.array, affine: Affine) -> Quantized:
    """What mx.quantize makes of `weight` [rows, columns]."""
    return Quantized(*mx.quantize(weight, group_size=affine.group_size, bits=affine.bits))


def search(weight: mx.array, affine: Affine, importance: mx.array | None = None) -> tuple[Quantized, float, float]:
    """Quantize `weight` [rows, columns] with searched scales and biases.

    importance: float [columns], how much an error in each column counts: the mean square of the layer's input there.
    None counts all alike.
    Returns the matrix, its sum of weighted squared errors, and that of `plain`, which is never smaller.
    """
    rows, columns = weight.shape
    importance = mx.ones(columns) if importance is None else importance.astype(mx.float32)
    importance = mx.maximum(importance, 1e-6 * importance.mean())  # a column that was never used still has a value
    importance = importance.reshape(columns // affine.group_size, affine.group_size)
    step, parts, errors = max(1, BLOCK // columns), [], []
    for start in range(0, rows, step):
        part, error = _search_block(weight[start : start + step], affine, importance)
        mx.eval(*part, error)
        parts.append(part)
        errors.append(error)
    error, usual = np.array(mx.stack(errors)).astype(float).sum(axis=0)
    return Quantized(*(mx.concatenate(list(arrays)) for arrays in zip(*parts, strict=True))), float(error), float(usual)


def _search_block(weight: mx.array, affine: Affine, importance: mx.array) -> tuple[Quantized, mx.array]:
    """Quantize a few rows; the second result is their error and that of `plain` [2]."""
    usual = plain(weight, affine)
    w = weight.astype(mx.float32).reshape(len(weight), -1, affine.group_size)
    most = mx.array(2.0**affine.bits - 1)
    scale0, bias0 = usual.scales.astype(mx.float32), usual.biases.astype(mx.float32)
    values = mx.dequantize(usual.weight, scale0, bias0, group_size=affine.group_size, bits=affine.bits)
    plain_error = (importance * mx.square(values.reshape(w.shape) - w)).sum()
    scale, bias = scale0[..., None], bias0[..., None]
    # The integers that fit the stored scale and bias: from here on the error is at most that of `plain`.
    best = (_integers(w, scale, bias, most), scale, bias)
    lowest = _error(w, importance, *best)
    starts, refinements = STARTS[affine.bits]
    for covered in starts:
        s, b = scale0[..., None] * covered, bias0[..., None] + scale0[..., None] * (0.5 * most * (1 - covered))
        for _ in range(refinements):
            q = _integers(w, s, b, most)
            s, b = _fit(w, importance, q, s)
            s, b = (part.astype(weight.dtype).astype(mx.float32) for part in (s, b))  # as they will be stored
        found = (_integers(w, s, b, most), s, b)
        error = _error(w, importance, *found)
        best = tuple(mx.where(error < lowest, new, old) for new, old in zip(found, best, strict=True))
        lowest = mx.minimum(error, lowest)
    words = pack(best[0].astype(mx.uint32).reshape(weight.shape), affine.bits)
    scales, biases = (part[..., 0].astype(weight.dtype) for part in best[1:])
    return Quantized(words, scales, biases), mx.stack([lowest.sum(), plain_error])


@mx.compile
def _integers(w: mx.array, scale: mx.array, bias: mx.array, most: mx.array) -> mx.array:
    """The integers that come nearest to the weights `w` [rows, groups, size]."""
    return mx.clip(mx.round((w - bias) / scale), 0, most)


@mx.compile
def _error(w: mx.array, h: mx.array, q: mx.array, scale: mx.array, bias: mx.array) -> mx.array:
    """Weighted squared error of each group [rows, groups, 1]."""
    return (h * mx.square(q * scale + bias - w)).sum(-1, keepdims=True)


@mx.compile
def _fit(w: mx.array, h: mx.array, q: mx.array, scale: mx.array) -> tuple[mx.array, mx.array]:
    """Scale and bias of the weighted least squares of `w` on the integers; `scale` where all of these are equal."""
    total = h.sum(-1, keepdims=True)
    mean_q, mean_w = (h * q).sum(-1, keepdims=True) / total, (h * w).sum(-1, keepdims=True) / total
    variance = (h * mx.square(q - mean_q)).sum(-1, keepdims=True)
    slope = (h * (q - mean_q) * (w - mean_w)).sum(-1, keepdims=True) / mx.maximum(variance, 1e-30)
    scale = mx.where((variance > 0) & (mx.abs(slope) > 1e-20), slope, scale)
    return scale, mean_w - scale * mean_q


def pack(values: mx.array, bits: int) -> mx.array:
    """uint32 [rows, columns], each below 2^bits -> [rows, columns * bits / 32]: a stream of bits, lowest first."""
    values = values.reshape(len(values), -1, 32)  # 32 values are `bits` words
    words = [mx.zeros(values.shape[:2], mx.uint32)] * bits
    for i in range(32):
        word, shift = divmod(i * bits, 32)
        words[word] = words[word] | (values[..., i] << shift)
        if shift + bits > 32:
            words[word + 1] = values[..., i] >> (32 - shift)
    return mx.stack(words, axis=-1).reshape(len(values), -1)
