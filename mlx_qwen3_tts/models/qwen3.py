"""The Qwen3 decoder layer, which the talker and the code predictor share.

    x ─ norm ─ attention (q and k normalized per head, RoPE, grouped queries) ─ + ─ norm ─ gated MLP ─ +

Layers take rows, [batch * time, hidden]; the rotation that all of them share knows the time. The talker's M-RoPE has
three rows of positions that are always equal in this model, which makes it plain RoPE. `fused.py` has the same layer
in fewer operations.
Source: Qwen3TTSTalkerDecoderLayer and Qwen3TTSDecoderLayer in modeling_qwen3_tts.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..config.model import CodePredictorConfig, TalkerConfig
from .cache import KVCache, StaticCache


class Rotation(NamedTuple):
    """What rotary embedding multiplies a head's two halves by, and the exchanged halves, at each position."""

    cos: mx.array  # float32 [time, 1, head_dim / 2]
    sin: mx.array  # float32 [time, 2, head_dim / 2], negative for the first half

    @classmethod
    def at(cls, offset: int | mx.array, time: int, dim: int, theta: float) -> "Rotation":
        """The positions offset .. offset + time - 1 of heads of width `dim`, in the official code's precision.

        offset: a number, or in a compiled function an array int32 [1].
        """
        frequencies = 1 / np.float32(theta) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
        if isinstance(offset, int):
            angles = np.arange(offset, offset + time, dtype=np.float32)[:, None, None] * frequencies
            cos, sin = np.cos(angles), np.sin(angles)
            return cls(mx.array(cos), mx.array(np.concatenate([-sin, sin], axis=1)))
        angles = (offset + mx.arange(time)).astype(mx.float32)[:, None, None] * mx.array(frequencies)
        sin = mx.sin(angles)
        return cls(mx.cos(angles), mx.concatenate([-sin, sin], axis=1))

    def __call__(self, x: mx.array) -> mx.array:
        """Rotate [batch, heads, time, head_dim]."""
        halves = x.reshape(*x.shape[:-1], 2, -1)
        return (halves * self.cos + halves[..., ::-1, :] * self.sin).reshape(x.shape).astype(x.dtype)


class Attention(nn.Module):
    """Causal self-attention over everything in the cache."""

    def __init__(self, config: TalkerConfig | CodePredictorConfig) -> None:
        super().__init__()
        width, dim = config.hidden_size, config.head_dim
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, dim
        self.q_proj = nn.Linear(width, self.num_heads * dim, bias=False)
        self.k_proj = nn.Linear(width, self.num_kv_heads * dim, bias=False)
        self.v_proj = nn.Linear(width, self.num_kv_heads * dim, bias=False)
        self.o_proj = nn.Linear(self.num_heads * dim, width, bias=False)
        self.q_norm = nn.RMSNorm(dim, config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(dim, config.rms_norm_eps)

    def __call__(self, x: mx.array, cache: KVCache | StaticCache, rotation: Rotation) -> mx.array:
        time = rotation.cos.shape[0]

        def heads(projected: mx.array) -> mx.array:
            return projected.reshape(-1, time, projected.shape[-1] // self.head_dim, self.head_dim).swapaxes(1, 2)

        queries = rotation(self.q_norm(heads(self.q_proj(x))))  # [batch, heads, time, head_dim]
        keys = rotation(self.k_norm(heads(self.k_proj(x))))
        keys, values, mask = cache.append(mx.concatenate([keys, heads(self.v_proj(x))], axis=1))
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.head_dim**-0.5, mask=mask)
        return self.o_proj(out.swapaxes(1, 2).reshape(x.shape[0], -1))


class MLP(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Attention and MLP, each normalized before and added after."""

    def __init__(self, config: TalkerConfig | CodePredictorConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def __call__(self, x: mx.array, cache: KVCache | StaticCache, rotation: Rotation) -> mx.array:
        """[batch * time, hidden] -> the same; the new positions are appended to `cache`."""
        x = x + self.self_attn(self.input_layernorm(x), cache, rotation)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """The layers and the final norm."""

    def __init__(self, config: TalkerConfig | CodePredictorConfig) -> None:
        super().__init__()
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._rope = (config.head_dim, config.rope_theta)

    def rotation(self, offset: int | mx.array, time: int) -> Rotation:
        """What all layers share at the positions offset .. offset + time - 1."""
        return Rotation.at(offset, time, *self._rope)

    def __call__(self, x: mx.array, caches: Sequence[KVCache | StaticCache]) -> mx.array:
        """Advance over embeddings [batch, time, hidden]; the last position's output, normalized, [batch, hidden]."""
        return self.norm(self._residual(x, caches)[:, -1])

    def every_position(self, x: mx.array, caches: Sequence[KVCache | StaticCache]) -> mx.array:
        """The same with the output of all positions, [batch, time, hidden]."""
        return self.norm(self._residual(x, caches))

    def _residual(self, x: mx.array, caches: Sequence[KVCache | StaticCache]) -> mx.array:
        batch, time, _ = x.shape
        rotation = self.rotation(caches[0].offset, time)
        rows = x.reshape(batch * time, -1)
        for layer, cache in zip(self.layers, caches, strict=True):
            rows = layer(rows, cache, rotation)
        return rows.reshape(batch, time, -1)
