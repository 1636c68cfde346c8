"""The decoder layer of qwen3.py in eleven operations, for speed: the results are the same.

    x ─ norm ─ qkv_proj ─ norm of all heads ─ their weights and the rotation ─ one write into the cache ─ attention
       ─ o_proj, added to x ─ norm ─ gate_up_proj ─ SiLU and product ─ down_proj, added to x

On a GPU the cost of a step, apart from reading the weights, is the number of operations that it launches. A layer is
fused once, after its weights are loaded, so that the checkpoint's names stay; mx.compile joins elementwise chains.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .cache import Cache
from .qwen3 import DecoderLayer, RotaryEmbedding, Transformer, silu


def fuse(model: Transformer) -> None:
    """Fuse the QKV and gate/up projections of a loaded model in place.

    Layers whose projections have different types or quantization settings stay unfused.
    """
    for i, layer in enumerate(model.layers):
        if isinstance(layer, DecoderLayer) and can_fuse(layer):
            model.layers[i] = FusedLayer(layer)


def can_fuse(layer: DecoderLayer) -> bool:
    """Return whether the matrices to be stacked are all unquantized, or all quantized with the same settings."""
    attention = layer.self_attn
    mlp = layer.mlp
    stacks = (attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)
    return all(len({_kind(part) for part in parts}) == 1 for parts in stacks)


def _kind(layer: nn.Module) -> tuple:
    return type(layer), *(getattr(layer, name, None) for name in ("bits", "group_size", "mode"))


class FusedLayer(nn.Module):
    """A DecoderLayer in fewer operations. It takes over the weights of the layer that it is made from."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        attention = layer.self_attn
        mlp = layer.mlp
        self.head_dim = attention.head_dim
        self.num_heads = attention.num_heads
        kv_heads = attention.num_kv_heads
        self.qkv_proj = stack_rows([attention.pop(name) for name in ("q_proj", "k_proj", "v_proj")])
        self.gate_up_proj = stack_rows([mlp.pop(name) for name in ("gate_proj", "up_proj")])
        self.o_proj = attention.o_proj
        self.down_proj = mlp.down_proj
        self.input_layernorm = layer.input_layernorm
        self.post_attention_layernorm = layer.post_attention_layernorm
        self.eps = attention.q_norm.eps
        # Per head, as halves: the factors of a normalized head, which are 0 for values; and 1 for values, which pass as
        # they are.
        q, k = (norm.weight.astype(mx.float32).reshape(1, 2, -1) for norm in (attention.q_norm, attention.k_norm))
        counts = (self.num_heads, kv_heads, kv_heads)
        weights = mx.concatenate(
            [mx.repeat(part, count, axis=0) for part, count in zip((q, k, mx.zeros_like(k)), counts, strict=True)]
        )
        self.head_weights = weights[:, None]  # [heads, 1, 2, head_dim / 2]
        self.exchanged_weights = mx.contiguous(weights[:, None, ::-1])
        is_value = np.array([0, 0, 1], dtype=np.float32)
        self.is_value = mx.array(np.repeat(is_value, counts))[:, None, None, None]

    def _to_heads(self, rows: mx.array, time: int) -> mx.array:
        """[batch * time, heads * head_dim] -> [batch, heads, time, head_dim]."""
        if time == 1:
            return rows.reshape(rows.shape[0], -1, 1, self.head_dim)
        return rows.reshape(rows.shape[0] // time, time, -1, self.head_dim).swapaxes(1, 2)

    def _normalize_and_rotate(self, heads: mx.array, rotation: RotaryEmbedding) -> mx.array:
        """[batch, heads, time, head_dim] of queries, keys and values: the first two normalized and rotated."""
        shape = (*heads.shape[:-1], 2, self.head_dim // 2)
        normalized = mx.fast.rms_norm(heads, None, self.eps).reshape(shape)
        # The halves are exchanged before the cast: a cast with two users, one of them a view, would not be fused.
        exchanged = normalized[..., ::-1, :].astype(mx.float32) * self.exchanged_weights
        rotated = normalized.astype(mx.float32) * self.head_weights * rotation.cos + exchanged * rotation.sin
        values = heads.reshape(shape).astype(mx.float32) * self.is_value
        return (rotated + values).astype(heads.dtype).reshape(heads.shape)

    def __call__(self, x: mx.array, cache: Cache, rotation: RotaryEmbedding) -> mx.array:
        """[batch * time, hidden] -> the same; the new positions are appended to `cache`."""
        time = rotation.time
        heads = self._to_heads(self.qkv_proj(self.input_layernorm(x)), time)
        queries, new = mx.split(self._normalize_and_rotate(heads, rotation), [self.num_heads], axis=1)
        keys, values, mask = cache.update_and_fetch(new)
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.head_dim**-0.5, mask=mask)
        if time > 1:
            out = out.swapaxes(1, 2)
        x = add_projected(x, self.o_proj, out.reshape(x.shape[0], -1))
        gate, up = mx.split(self.gate_up_proj(self.post_attention_layernorm(x)), 2, axis=-1)
        return add_projected(x, self.down_proj, silu(gate) * up)


def stack_rows(layers: list[nn.Module]) -> nn.Module:
    """Return one linear layer whose output is the concatenation of the outputs of `layers`, which have no bias."""
    fused = layers[0]
    for name in fused.parameters():  # a quantized layer also has scales and biases, with a row for each of its rows
        fused[name] = mx.concatenate([layer[name] for layer in layers])
    return fused


def add_projected(x: mx.array, layer: nn.Module, y: mx.array) -> mx.array:
    """Return x + layer(y), in one operation if the layer is not quantized."""
    return mx.addmm(x, y, layer.weight.T) if type(layer) is nn.Linear else x + layer(y)
