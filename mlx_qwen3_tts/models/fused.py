"""The decoder layer of qwen3.py in eleven operations, for speed: the results are the same.

    x ─ norm ─ qkv_proj ─ norm of all heads ─ their weights and the rotation ─ one write into the cache ─ attention
       ─ o_proj, added to x ─ norm ─ gate_up_proj ─ SiLU and product ─ down_proj, added to x

What a step costs on a GPU beside reading the weights is the number of operations that it launches. A layer is fused
once, after its weights are loaded, so that the checkpoint's names stay; elementwise chains are joined by mx.compile.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .cache import KVCache, StaticCache
from .qwen3 import DecoderLayer, Rotation, Transformer


def fuse(model: Transformer) -> None:
    """Replace the layers of a loaded model by fused ones, in place; those stay whose matrices differ in kind."""
    for i, layer in enumerate(model.layers):
        if can_fuse(layer):
            model.layers[i] = FusedLayer(layer)


def can_fuse(layer: DecoderLayer) -> bool:
    """Whether the matrices that become one are all plain, or all quantized in the same way."""
    attention, mlp = layer.self_attn, layer.mlp
    stacks = (attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)
    return all(len({_kind(part) for part in parts}) == 1 for parts in stacks)


def _kind(layer: nn.Module) -> tuple:
    return type(layer), *(getattr(layer, name, None) for name in ("bits", "group_size", "mode"))


class FusedLayer(nn.Module):
    """Takes the place of the DecoderLayer that it is made of, whose weights it takes over."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim, self.num_heads, kv_heads = attention.head_dim, attention.num_heads, attention.num_kv_heads
        self.qkv_proj = stack_rows([attention.pop(name) for name in ("q_proj", "k_proj", "v_proj")])
        self.gate_up_proj = stack_rows([mlp.pop(name) for name in ("gate_proj", "up_proj")])
        self.o_proj, self.down_proj = attention.o_proj, mlp.down_proj
        self.input_layernorm, self.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm
        self.eps = attention.q_norm.eps
        # Per head, as halves: what a normalized head is multiplied by, and the head as it is (values are not touched).
        q, k = (norm.weight.astype(mx.float32).reshape(1, 2, -1) for norm in (attention.q_norm, attention.k_norm))
        counts = (self.num_heads, kv_heads, kv_heads)
        weights = mx.concatenate(
            [mx.repeat(part, count, axis=0) for part, count in zip((q, k, mx.zeros_like(k)), counts, strict=True)]
        )
        self.head_weights = weights[:, None]  # [heads, 1, 2, head_dim / 2]
        self.exchanged_weights = mx.contiguous(weights[:, None, ::-1])
        self.is_value = mx.array(np.repeat(np.float32([0, 0, 1]), counts))[:, None, None, None]

    def _to_heads(self, rows: mx.array, time: int) -> mx.array:
        """[batch * time, heads * head_dim] -> [batch, heads, time, head_dim]."""
        if time == 1:
            return rows.reshape(rows.shape[0], -1, 1, self.head_dim)
        return rows.reshape(rows.shape[0] // time, time, -1, self.head_dim).swapaxes(1, 2)

    def _normalize_and_rotate(self, heads: mx.array, rotation: Rotation) -> mx.array:
        """[batch, heads, time, head_dim] of queries, keys and values: the first two normalized and rotated."""
        shape = (*heads.shape[:-1], 2, self.head_dim // 2)
        normalized = mx.fast.rms_norm(heads, None, self.eps).reshape(shape).astype(mx.float32)
        exchanged = normalized[..., ::-1, :] * self.exchanged_weights
        rotated = normalized * self.head_weights * rotation.cos + exchanged * rotation.sin
        values = heads.reshape(shape).astype(mx.float32) * self.is_value
        return (rotated + values).astype(heads.dtype).reshape(heads.shape)

    def __call__(self, x: mx.array, cache: KVCache | StaticCache, rotation: Rotation) -> mx.array:
        """[batch * time, hidden] -> the same; the new positions are appended to `cache`."""
        time = rotation.cos.shape[0]
        heads = self._to_heads(self.qkv_proj(self.input_layernorm(x)), time)
        queries, new = mx.split(self._normalize_and_rotate(heads, rotation), [self.num_heads], axis=1)
        keys, values, mask = cache.append(new)
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.head_dim**-0.5, mask=mask)
        x = add_projected(x, self.o_proj, (out if time == 1 else out.swapaxes(1, 2)).reshape(x.shape[0], -1))
        gate, up = mx.split(self.gate_up_proj(self.post_attention_layernorm(x)), 2, axis=-1)
        return add_projected(x, self.down_proj, nn.silu(gate) * up)


def stack_rows(layers: list[nn.Module]) -> nn.Module:
    """One layer whose output is that of `layers`, linear and without bias, side by side."""
    fused = layers[0]
    for name in fused.parameters():  # of a quantized layer also its scales and biases, which have the rows as well
        fused[name] = mx.concatenate([layer[name] for layer in layers])
    return fused


def add_projected(x: mx.array, layer: nn.Module, y: mx.array) -> mx.array:
    """x + layer(y), as one operation where there is one."""
    return mx.addmm(x, y, layer.weight.T) if type(layer) is nn.Linear else x + layer(y)
