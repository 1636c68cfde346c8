"""Streaming layers shared by the codec's decoder and encoder.

Every layer is a function of its input and its state and returns both anew:

    y, state = layer(x, state)          x: [batch, time, channels]

`state=None` is the start of the signal. Because a state is never changed in place, it can be kept, used twice or
dropped at will, and cutting a signal into chunks gives the same output as the whole:

    CausalConv1d            the last (kernel - stride) inputs
    CausalConvTranspose1d   the part of the last input's output that overlaps what comes next
    SlidingAttention        keys and values of the last (window - 1) positions, and the position reached

After the first call the states' shapes never change, so that a compiled function serves for each size of chunk.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from ..config.codec import CodecDecoderConfig, CodecEncoderConfig

State = Any  # None, an array, or a nested list of states: a tree that mx.eval and mx.compile understand


def run(layers: Sequence[Any], x: mx.array, state: State) -> tuple[mx.array, list[State]]:
    """Pass `x` through stateful `layers` in turn; `state` is None or the list that the previous call returned."""
    states = []
    for layer, layer_state in zip(layers, state or [None] * len(layers), strict=True):
        x, layer_state = layer(x, layer_state)
        states.append(layer_state)
    return x, states


class CausalConv1d(nn.Module):
    """A convolution that sees only the past, [batch, time, in] -> [batch, ceil(time / stride), out].

    `kernel_effective - stride` steps stand before the signal and, where the time is no multiple of `stride`, as many
    as it lacks behind it (which ends the signal: a state is good only after multiples of `stride`). They are zeros,
    or repeat the signal's end with `pad_edge`. Source: Qwen3TTSTokenizerV2CausalConvNet, MimiConv1d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        pad_edge: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)
        self.stride, self.dilation, self.pad_edge = stride, dilation, pad_edge
        self.context = (kernel_size - 1) * dilation + 1 - stride
        self._has_taps = stride == groups == 1 and self.context > 0 and bias

    def fuse(self) -> None:
        """On the CPU, make a matrix product of each tap: MLX's convolution there takes 2 to 5 times as long."""
        if self._has_taps and mx.default_device().type == mx.cpu:
            conv = self.pop("conv")
            self.taps, self.bias = mx.contiguous(conv.weight.transpose(1, 2, 0)), conv.bias  # [kernel, in, out], [out]

    def _convolve(self, x: mx.array) -> mx.array:
        if "taps" not in self:
            return self.conv(x)
        time, out = x.shape[1] - self.context, self.bias
        for i in range(self.taps.shape[0]):
            start = i * self.dilation
            out = mx.addmm(out, x[:, start : start + time], self.taps[i])
        return out

    def _pad(self, edge: mx.array, count: int) -> mx.array:
        """`count` time steps of padding beside `edge` [batch, 1, channels]."""
        return mx.repeat(edge if self.pad_edge else mx.zeros_like(edge), count, axis=1)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        if self.context == 0 and self.stride == 1:
            return mx.addmm(self.conv.bias, x, self.conv.weight[:, 0, :].T), None  # a kernel of 1 is a matrix product
        before = self._pad(x[:, :1], self.context) if state is None else state
        missing = -x.shape[1] % self.stride
        x = mx.concatenate([before, x, self._pad(x[:, -1:], missing)], axis=1)
        return self._convolve(x), x[:, x.shape[1] - self.context :]


class CausalConvTranspose1d(nn.Module):
    """Upsampling by `stride` with a kernel of `stride` or `2 * stride`, trimmed on the right only.

    Source: Qwen3TTSTokenizerV2CausalTransConvNet. Computed as one matrix product and an overlap-add: input t gives
    `kernel` outputs, of which the second half is added to the first half of input t + 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        if kernel_size not in (stride, 2 * stride):
            raise ValueError(f"kernel_size must be stride or twice stride, not {kernel_size} for {stride}")
        self.conv = nn.ConvTranspose1d(in_channels, out_channels, kernel_size, stride)
        self.stride = stride
        self.overlaps = kernel_size == 2 * stride

    def fuse(self) -> None:
        """Lay the weights out for the matrix product, once they are loaded."""
        self.kernel = mx.contiguous(self._matrix())
        self.bias = self.conv.bias
        self.pop("conv")

    def _matrix(self) -> mx.array:
        """[in, kernel * out]"""
        out, kernel, width = self.conv.weight.shape
        return self.conv.weight.swapaxes(0, 1).reshape(kernel * out, width).T

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        batch, time, _ = x.shape
        fused = "kernel" in self
        bias = self.bias if fused else self.conv.bias
        out = x @ (self.kernel if fused else self._matrix())
        out = out.reshape(batch, time, -1, len(bias))  # [batch, time, kernel, out]
        if self.overlaps:
            first, second = out[:, :, : self.stride], out[:, :, self.stride :]
            if state is None:
                state = mx.zeros_like(second[:, :1])
            out = first + mx.concatenate([state, second[:, :-1]], axis=1)
            state = second[:, -1:]
        return out.reshape(batch, time * self.stride, -1) + bias, state


class AttentionState(NamedTuple):
    """What a sliding attention layer keeps."""

    keys: mx.array  # [batch, heads, window - 1, head_dim]; those before the signal's start are zeros
    values: mx.array
    position: mx.array  # time steps seen so far, int32 [1]


class SlidingAttention(nn.Module):
    """Causal self-attention over the last `window` positions (all of them where `window` is None), with RoPE.

    Source: Qwen3TTSTokenizerV2DecoderAttention, MimiAttention.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        rope_theta: float,
        window: int | None,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.rope_theta, self.window = rope_theta, window
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)

    def _mask(self, time: int, past: int, position: mx.array | int) -> mx.array:
        """[time, past + time], true where a query may look: not ahead, less than `window` back, not before the start.

        past: keys in the state, of which the last min(past, position) are of the signal.
        """
        index = mx.arange(past + time)
        distance = mx.arange(past, past + time)[:, None] - index
        visible = (distance >= 0) & (index >= past - position)
        return visible if self.window is None else visible & (distance < self.window)

    def __call__(self, x: mx.array, state: AttentionState | None = None) -> tuple[mx.array, AttentionState | None]:
        batch, time, _ = x.shape
        position = state.position if state else 0

        def heads(projected: mx.array, count: int) -> mx.array:
            return projected.reshape(batch, time, count, self.head_dim).swapaxes(1, 2)  # [batch, heads, time, dim]

        def rope(x: mx.array) -> mx.array:
            return mx.fast.rope(x, self.head_dim, traditional=False, base=self.rope_theta, scale=1.0, offset=position)

        queries = rope(heads(self.q_proj(x), self.num_heads))
        keys = rope(heads(self.k_proj(x), self.num_kv_heads))
        values = heads(self.v_proj(x), self.num_kv_heads)
        if state:
            keys = mx.concatenate([state.keys, keys], axis=2)
            values = mx.concatenate([state.values, values], axis=2)
        mask = self._mask(time, keys.shape[2] - time, position)
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.head_dim**-0.5, mask=mask)
        out = self.o_proj(out.swapaxes(1, 2).reshape(batch, time, -1))
        if self.window is None:  # the encoder's, which takes a signal whole
            return out, None
        kept = (self._last(part, self.window - 1) for part in (keys, values))
        return out, AttentionState(*kept, mx.array([0], dtype=mx.int32) + position + time)

    @staticmethod
    def _last(x: mx.array, count: int) -> mx.array:
        """The last `count` time steps of [batch, heads, time, head_dim], with zeros before where there are fewer."""
        missing = count - x.shape[2]
        return x[:, :, -missing:] if missing < 0 else mx.pad(x, [(0, 0), (0, 0), (missing, 0), (0, 0)])


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch. Source: Qwen3TTSTokenizerV2DecoderLayerScale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = mx.ones(channels)

    def __call__(self, x: mx.array) -> mx.array:
        return self.scale * x


class TransformerLayer(nn.Module):
    """norm ─ attention ─ scale ─ + ─ norm ─ MLP ─ scale ─ +

    Source: Qwen3TTSTokenizerV2DecoderTransformerLayer and MimiTransformerLayer, which differ in norm, MLP and window.
    """

    def __init__(
        self,
        config: CodecDecoderConfig | CodecEncoderConfig,
        norm: Callable[[int], nn.Module],
        mlp: nn.Module,
        window: int | None,
    ) -> None:
        super().__init__()
        width, heads, kv_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.self_attn = SlidingAttention(width, heads, kv_heads, config.head_dim, config.rope_theta, window)
        self.mlp = mlp
        self.input_layernorm, self.post_attention_layernorm = norm(width), norm(width)
        self.self_attn_layer_scale, self.mlp_layer_scale = LayerScale(width), LayerScale(width)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        attended, state = self.self_attn(self.input_layernorm(x), state)
        x = x + self.self_attn_layer_scale(attended)
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x))), state
