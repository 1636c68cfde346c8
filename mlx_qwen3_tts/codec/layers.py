"""Streaming layers shared by the codec's decoder and encoder.

Every layer is a function of its input and its state and returns new ones:

    y, state = layer(x, state)          x: [batch, time, channels]

`state=None` is the start of the signal. Because a state is never changed in place, it can be kept, used twice or
dropped at will, and cutting a signal into chunks gives the same output as the whole:

    CausalConv1d            the last (kernel - stride) inputs
    CausalConvTranspose1d   the part of the last input's output that overlaps what comes next
    SlidingAttention        keys and values of the last (window - 1) positions, and the position reached

After the first call the states' shapes never change, so that a compiled function serves for each size of chunk. A
state is a copy of what it needs: a view would keep all of a chunk's intermediate results alive.

Once the weights are loaded, `fused` returns a layer with the same results in fewer or faster operations.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import mlx.core as mx
import mlx.nn as nn

from ..config.codec import CodecDecoderConfig, CodecEncoderConfig


class AttentionState(NamedTuple):
    """What a sliding attention layer keeps."""

    keys: mx.array  # [batch, heads, window - 1, head_dim]; those before the signal's start are zeros
    values: mx.array
    position: mx.array  # time steps seen so far, int32 [1]


# The state of a layer, or of several in a row: a tree that mx.eval and mx.compile understand.
State: TypeAlias = "mx.array | AttentionState | list[State] | None"


class Layer(Protocol):
    """What `run` takes."""

    def __call__(self, x: mx.array, state: State = None, /) -> tuple[mx.array, State]: ...


def run(layers: Sequence[Layer], x: mx.array, state: State) -> tuple[mx.array, State]:
    """Pass `x` through layers in turn; `state` is None or the list that the previous call returned."""
    before = state if isinstance(state, list) else [None] * len(layers)
    states: list[State] = []
    for layer, layer_state in zip(layers, before, strict=True):
        x, after = layer(x, layer_state)
        states.append(after)
    return x, states


class CausalConv1d(nn.Module):
    """A convolution that sees only the past, [batch, time, in] -> [batch, ceil(time / stride), out].

    The input is padded on the left by `kernel_effective - stride` steps, and on the right to a multiple of `stride`
    (which ends the signal: a state is valid only after multiples of `stride`). The padding is zero, or with `pad_edge`
    repeats the first or last step. Source: Qwen3TTSTokenizerV2CausalConvNet, MimiConv1d.
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
        self.stride = stride
        self.dilation = dilation
        self.groups = groups
        self.pad_edge = pad_edge
        self.context = (kernel_size - 1) * dilation + 1 - stride

    def fused(self) -> nn.Module:
        """Return a TapConv1d on the CPU, if this layer can be one, else itself."""
        has_taps = self.stride == self.groups == 1 and self.context > 0 and "bias" in self.conv
        return TapConv1d(self) if has_taps and mx.default_device().type == mx.cpu else self

    def _pad(self, edge: mx.array, count: int) -> mx.array:
        """`count` time steps of padding next to `edge` [batch, 1, channels]."""
        if not self.pad_edge:
            edge = mx.zeros_like(edge)
        return mx.repeat(edge, count, axis=1)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        if self.context == 0 and self.stride == 1:  # a kernel of 1 is a matrix product
            return mx.addmm(self.conv.bias, x, self.conv.weight.squeeze(1).T), None
        before = state if isinstance(state, mx.array) else self._pad(x[:, :1], self.context)
        missing = -x.shape[1] % self.stride
        x = mx.concatenate([before, x, self._pad(x[:, -1:], missing)], axis=1)
        return self.conv(x), mx.contiguous(x[:, x.shape[1] - self.context :])


class TapConv1d(nn.Module):
    """A CausalConv1d of stride 1 as a matrix product for each tap of the kernel.

    On the CPU MLX's convolution takes 2 to 5 times as long.
    """

    def __init__(self, layer: CausalConv1d) -> None:
        super().__init__()
        weight = layer.conv.weight  # [out, kernel, in]
        self.taps = [mx.contiguous(weight[:, i : i + 1].squeeze(1).T) for i in range(weight.shape[1])]  # each [in, out]
        self.bias = layer.conv.bias
        self.dilation = layer.dilation
        self.context = layer.context

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        time = x.shape[1]
        before = state if isinstance(state, mx.array) else mx.zeros((x.shape[0], self.context, x.shape[2]), x.dtype)
        x = mx.concatenate([before, x], axis=1)
        out = self.bias
        for i, tap in enumerate(self.taps):
            start = i * self.dilation
            out = mx.addmm(out, x[:, start : start + time], tap)
        return out, mx.contiguous(x[:, time:])


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

    def matrix(self) -> mx.array:
        """Return the weights as [in, kernel * out]."""
        out, kernel, width = self.conv.weight.shape
        return self.conv.weight.swapaxes(0, 1).reshape(kernel * out, width).T

    def fused(self) -> nn.Module:
        """Return the same layer with its weights laid out for the matrix product."""
        return FusedConvTranspose1d(self)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        return upsample(x, self.matrix(), self.conv.bias, self.stride, state)


class FusedConvTranspose1d(nn.Module):
    """A CausalConvTranspose1d whose weights are laid out for the matrix product."""

    def __init__(self, layer: CausalConvTranspose1d) -> None:
        super().__init__()
        self.weight = mx.contiguous(layer.matrix())  # [in, kernel * out]
        self.bias = layer.conv.bias
        self.stride = layer.stride

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        return upsample(x, self.weight, self.bias, self.stride, state)


def upsample(x: mx.array, matrix: mx.array, bias: mx.array, stride: int, state: State) -> tuple[mx.array, State]:
    """[batch, time, in] -> [batch, time * stride, out]; matrix: [in, kernel * out]."""
    batch, time, _ = x.shape
    out = (x @ matrix).reshape(batch, time, -1, len(bias))  # [batch, time, kernel, out]
    if out.shape[2] > stride:
        first = out[:, :, :stride]
        second = out[:, :, stride:]
        before = state if isinstance(state, mx.array) else mx.zeros_like(second[:, :1])
        out = first + mx.concatenate([before, second[:, :-1]], axis=1)
        state = mx.contiguous(second[:, -1:])
    return out.reshape(batch, time * stride, -1) + bias, state


class SlidingAttention(nn.Module):
    """Causal self-attention over the last `window` positions (all of them if `window` is None), with RoPE.

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
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = head_dim
        self.rope_theta = rope_theta
        self.window = window
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)

    def _mask(self, time: int, past: int, position: mx.array | int) -> mx.array:
        """Return [time, past + time], true for the keys that a query may see.

        They are not ahead of it, less than `window` back, and not before the start of the signal.
        past: keys in the state, of which the last min(past, position) are of the signal.
        """
        index = mx.arange(past + time)
        distance = mx.arange(past, past + time)[:, None] - index
        visible = (distance >= 0) & (index >= past - position)
        if self.window is not None:
            visible &= distance < self.window
        return visible

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        batch, time, _ = x.shape
        before = state if isinstance(state, AttentionState) else None
        position = before.position if before else 0

        def heads(projected: mx.array, count: int) -> mx.array:
            return projected.reshape(batch, time, count, self.head_dim).swapaxes(1, 2)  # [batch, heads, time, dim]

        def rope(x: mx.array) -> mx.array:
            return mx.fast.rope(x, self.head_dim, traditional=False, base=self.rope_theta, scale=1.0, offset=position)

        queries = rope(heads(self.q_proj(x), self.num_heads))
        keys = rope(heads(self.k_proj(x), self.num_kv_heads))
        values = heads(self.v_proj(x), self.num_kv_heads)
        if before:
            keys = mx.concatenate([before.keys, keys], axis=2)
            values = mx.concatenate([before.values, values], axis=2)
        mask = self._mask(time, keys.shape[2] - time, position)
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.head_dim**-0.5, mask=mask)
        out = self.o_proj(out.swapaxes(1, 2).reshape(batch, time, -1))
        if self.window is None:  # the encoder's, which takes a signal whole
            return out, None
        # An array and not a number, which would be part of a kernel's name: one more to compile for each size of chunk.
        steps = mx.arange(1, time + 1, dtype=mx.int32)[-1:]
        context = self.window - 1
        reached = before.position + steps if before else steps
        return out, AttentionState(last_steps(keys, context), last_steps(values, context), reached)


def last_steps(x: mx.array, count: int) -> mx.array:
    """Return the last `count` time steps of [batch, heads, time, head_dim], after zeros if there are fewer."""
    missing = count - x.shape[2]
    if missing > 0:
        return mx.pad(x, [(0, 0), (0, 0), (missing, 0), (0, 0)])
    return mx.contiguous(x[:, :, -missing:])


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
        width = config.hidden_size
        heads = config.num_attention_heads
        kv_heads = config.num_key_value_heads
        self.self_attn = SlidingAttention(width, heads, kv_heads, config.head_dim, config.rope_theta, window)
        self.mlp = mlp
        self.input_layernorm = norm(width)
        self.post_attention_layernorm = norm(width)
        self.self_attn_layer_scale = LayerScale(width)
        self.mlp_layer_scale = LayerScale(width)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        attended, state = self.self_attn(self.input_layernorm(x), state)
        x = x + self.self_attn_layer_scale(attended)
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x))), state
