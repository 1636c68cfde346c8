"""The Qwen3 decoder layer, which the talker and the code predictor share.

    x ─ norm ─ attention (q and k normalized per head, RoPE, grouped queries) ─ + ─ norm ─ gated MLP ─ +

Layers take rows, [batch * time, hidden]; the rotation that all of them share knows the time. The talker's M-RoPE has
three rows of positions that are always equal in this model, which makes it plain RoPE. `fused.py` has the same layer
in fewer operations.
Source: Qwen3TTSTalkerDecoderLayer and Qwen3TTSDecoderLayer in modeling_qwen3_tts.py.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..config.model import CodePredictorConfig, TalkerConfig
from .cache import Cache, KVCache, NoCache, StepCache


class RotaryEmbedding(NamedTuple):
    """What rotary embedding multiplies a head's two halves by, and the exchanged halves, at each position.

    The arrays are made on the host, in the official code's precision.
    """

    cos: mx.array  # float32 [(rows, 1,) time, 1, head_dim / 2]
    sin: mx.array  # float32 [(rows, 1,) time, 2, head_dim / 2], negative for the first half

    @classmethod
    def at(cls, positions: np.ndarray, dim: int, theta: float) -> "RotaryEmbedding":
        """Return the factors of heads of width `dim`.

        positions: int [time], the same for all rows, or [rows, time].
        """
        frequencies = 1 / np.float32(theta) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
        angles = positions.astype(np.float32)[..., None, None] * frequencies
        if positions.ndim == 2:
            angles = angles[:, None]  # the same for all heads
        cos = np.cos(angles)
        sin = np.sin(angles)
        return cls(mx.array(cos), mx.array(np.concatenate([-sin, sin], axis=-2)))

    @property
    def time(self) -> int:
        """Number of positions in each row."""
        return self.cos.shape[-3]

    def __call__(self, x: mx.array) -> mx.array:
        """Rotate [rows, heads, time, head_dim]."""
        halves = x.reshape(*x.shape[:-1], 2, -1)
        return (halves * self.cos + halves[..., ::-1, :] * self.sin).reshape(x.shape).astype(x.dtype)


class Attention(nn.Module):
    """Causal self-attention over everything in the cache."""

    def __init__(self, config: TalkerConfig | CodePredictorConfig) -> None:
        super().__init__()
        width = config.hidden_size
        dim = config.head_dim
        self.num_heads = config.num_attention_heads
        self.num_kv_heads = config.num_key_value_heads
        self.head_dim = dim
        self.q_proj = nn.Linear(width, self.num_heads * dim, bias=False)
        self.k_proj = nn.Linear(width, self.num_kv_heads * dim, bias=False)
        self.v_proj = nn.Linear(width, self.num_kv_heads * dim, bias=False)
        self.o_proj = nn.Linear(self.num_heads * dim, width, bias=False)
        self.q_norm = nn.RMSNorm(dim, config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(dim, config.rms_norm_eps)

    def __call__(self, x: mx.array, cache: Cache, rotation: RotaryEmbedding) -> mx.array:
        time = rotation.time

        def heads(projected: mx.array) -> mx.array:
            return projected.reshape(-1, time, projected.shape[-1] // self.head_dim, self.head_dim).swapaxes(1, 2)

        queries = rotation(self.q_norm(heads(self.q_proj(x))))  # [batch, heads, time, head_dim]
        keys = rotation(self.k_norm(heads(self.k_proj(x))))
        keys, values, mask = cache.update_and_fetch(mx.concatenate([keys, heads(self.v_proj(x))], axis=1))
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.head_dim**-0.5, mask=mask)
        return self.o_proj(out.swapaxes(1, 2).reshape(x.shape[0], -1))


def silu(x: mx.array) -> mx.array:
    """Return x * sigmoid(x), computed in float32 and rounded once, as PyTorch does.

    Metal's sigmoid of bfloat16 rounds after each of its steps.
    """
    return nn.silu(x.astype(mx.float32)).astype(x.dtype)


class MLP(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Attention and MLP, each normalized before and added after."""

    def __init__(self, config: TalkerConfig | CodePredictorConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def __call__(self, x: mx.array, cache: Cache, rotation: RotaryEmbedding) -> mx.array:
        """[batch * time, hidden] -> the same; the new positions are appended to `cache`."""
        x = x + self.self_attn(self.input_layernorm(x), cache, rotation)
        return x + self.mlp(self.post_attention_layernorm(x))


def positions_seen(cache: Cache) -> int:
    """Return the number of positions before the next one. Raises TypeError if the cache does not know it."""
    if isinstance(cache, StepCache):
        raise TypeError("a StepCache does not know its position: give the rotation")
    return cache.offset


# A layer, its input, its cache and the rotation -> its output.
ApplyLayer = Callable[[nn.Module, mx.array, Cache, RotaryEmbedding], mx.array]


def call_layer(layer: nn.Module, x: mx.array, cache: Cache, rotation: RotaryEmbedding) -> mx.array:
    """Return the output of a layer."""
    return layer(x, cache, rotation)


class Transformer(nn.Module):
    """The layers and the final norm."""

    def __init__(self, config: TalkerConfig | CodePredictorConfig) -> None:
        super().__init__()
        self.layers: list[nn.Module] = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._rope = (config.head_dim, config.rope_theta)

    def rotary_embedding(self, positions: np.ndarray) -> RotaryEmbedding:
        """Return what all layers share at these positions; see RotaryEmbedding.at."""
        return RotaryEmbedding.at(positions, *self._rope)

    def __call__(self, x: mx.array, caches: Sequence[Cache], rotation: RotaryEmbedding | None = None) -> mx.array:
        """Advance over embeddings; return the normalized output of the last position.

        x: [rows, time, hidden]. rotation: of a step whose positions the caches do not know; None takes those after
        the caches' own, which are KVCaches then. Returns [rows, hidden].
        """
        return self.norm(self.run_layers(x, caches, rotation)[:, -1])

    def hidden_states(
        self, x: mx.array, caches: Sequence[KVCache] | None = None, apply_layer: ApplyLayer = call_layer
    ) -> mx.array:
        """Advance over embeddings; return the normalized output of all positions, [rows, time, hidden].

        caches: None if `x` holds whole sequences. apply_layer: see run_layers.
        """
        return self.norm(self.run_layers(x, caches, apply_layer=apply_layer))

    def run_layers(
        self,
        x: mx.array,
        caches: Sequence[Cache] | None = None,
        rotation: RotaryEmbedding | None = None,
        after_layer: Callable[[int, mx.array], None] | None = None,
        apply_layer: ApplyLayer = call_layer,
    ) -> mx.array:
        """Run the layers without the final norm, [rows, time, hidden] -> the same.

        after_layer: given the number of a layer and the residual stream [rows * time, hidden] after it. apply_layer:
        called in place of each layer, with the layer before its arguments.
        """
        rows, time, _ = x.shape
        if caches is None:
            caches = [NoCache() for _ in self.layers]
        if rotation is None:
            rotation = self.rotary_embedding(np.arange(time) + positions_seen(caches[0]))
        flat = x.reshape(rows * time, -1)
        for number, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            flat = apply_layer(layer, flat, cache, rotation)
            if after_layer is not None:
                after_layer(number, flat)
        return flat.reshape(rows, time, -1)
