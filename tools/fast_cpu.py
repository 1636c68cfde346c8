"""Fast forms of the codec's slow layers for training on a CPU: equal up to rounding, several times as fast.

    CausalConv1d   shifted copies side by side ─ one matrix product      (MLX's own gradient of a dilated one is a loop)
    SnakeBeta      sin^2 as half of 1 - cos, and the cosine a polynomial (MLX's own is a call per number)

On a GPU the modules do not change. On Linux MLX's wheel includes the reference BLAS; with OpenBLAS instead
(LD_PRELOAD=libopenblas.so.0), matrix products are about 20 times as fast.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from mlx_qwen3_tts.codec.decoder import SnakeBeta
from mlx_qwen3_tts.codec.layers import CausalConv1d, State

TURN = 6.283185307179586
# cos(2 pi r) and sin(2 pi r) / r in powers of r^2, for |r| <= 1/2.
COS = (1.0, -19.739208, 64.93939, -85.45681, 60.244641, -26.426256, 7.903536, -1.714390, 0.282006)
SIN = (6.2831853, -41.341702, 81.605249, -76.705859, 42.058693, -15.094642, 3.819952, -0.718122, 0.104229)


def _polynomial(x: mx.array, factors: tuple[float, ...]) -> mx.array:
    total = mx.full((1,), factors[-1])
    for factor in reversed(factors[:-1]):
        total = total * x + factor
    return total


def _reduce(x: mx.array) -> mx.array:
    """Return an angle in turns, reduced to -1/2 .. 1/2."""
    turns = x * (1 / TURN)
    return turns - mx.round(turns)


@mx.custom_function
def cosine(x: mx.array) -> mx.array:
    """mx.cos, within 1e-5."""
    turns = _reduce(x)
    return _polynomial(turns * turns, COS)


@cosine.vjp
def _cosine_gradient(x: mx.array, cotangent: mx.array, _output: mx.array) -> mx.array:
    turns = _reduce(x)
    return -cotangent * turns * _polynomial(turns * turns, SIN)


def _snake(self: SnakeBeta, x: mx.array, state: State = None) -> tuple[mx.array, State]:
    return x + (0.5 - 0.5 * cosine(2 * x * mx.exp(self.alpha))) * mx.exp(-self.beta), state


def _convolve(self: CausalConv1d, x: mx.array, _state: State = None) -> tuple[mx.array, State]:
    weight, time = self.conv.weight, x.shape[1]  # [out, kernel, in / groups]
    out, kernel, _ = weight.shape
    dilation = self.context // max(1, kernel - 1)
    x = mx.concatenate([mx.zeros((x.shape[0], self.context, x.shape[2])), x], axis=1)
    taps = [x[:, i * dilation : i * dilation + time] for i in range(kernel)]
    if self.conv.groups > 1:  # depthwise
        return sum(tap * weight[:, i, 0] for i, tap in enumerate(taps)) + self.conv.bias, None
    return mx.concatenate(taps, axis=-1) @ weight.reshape(out, -1).T + self.conv.bias, None


@contextmanager
def fast_cpu() -> Iterator[None]:
    """Context manager: whole signals (no state) use the fast forms if MLX runs on a CPU."""
    if mx.default_device().type != mx.cpu:
        yield
        return
    plain = SnakeBeta.__call__, CausalConv1d.__call__
    SnakeBeta.__call__, CausalConv1d.__call__ = _snake, _convolve
    try:
        yield
    finally:
        SnakeBeta.__call__, CausalConv1d.__call__ = plain
