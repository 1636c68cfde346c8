"""The Qwen3 decoder layer, which the talker and the code predictor share.

    x ─ norm ─ attention (q and k normalized per head, RoPE, grouped queries) ─ + ─ norm ─ gated MLP ─ +

The talker's M-RoPE has three rows of positions that are always equal in this model, which makes it plain RoPE.
Source: Qwen3TTSTalkerDecoderLayer and Qwen3TTSDecoderLayer in modeling_qwen3_tts.py.
"""

import mlx.core as mx
import mlx.nn as nn

from .cache import KVCache
from .config import CodePredictorConfig, TalkerConfig


class Attention(nn.Module):
    """Causal self-attention over everything in the cache."""

    def __init__(self, config: TalkerConfig | CodePredictorConfig) -> None:
        super().__init__()
        width, dim = config.hidden_size, config.head_dim
        self.num_heads, self.num_kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            dim,
        )
        self.rope_theta = config.rope_theta
        self.q_proj = nn.Linear(width, self.num_heads * dim, bias=False)
        self.k_proj = nn.Linear(width, self.num_kv_heads * dim, bias=False)
        self.v_proj = nn.Linear(width, self.num_kv_heads * dim, bias=False)
        self.o_proj = nn.Linear(self.num_heads * dim, width, bias=False)
        self.q_norm = nn.RMSNorm(dim, config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(dim, config.rms_norm_eps)

    def _rope(self, x: mx.array, offset: int) -> mx.array:
        return mx.fast.rope(x, self.head_dim, traditional=False, base=self.rope_theta, scale=1.0, offset=offset)

    def __call__(self, x: mx.array, cache: KVCache) -> mx.array:
        batch, time, _ = x.shape
        queries = self.q_norm(self.q_proj(x).reshape(batch, time, self.num_heads, self.head_dim)).swapaxes(1, 2)
        keys = self.k_norm(self.k_proj(x).reshape(batch, time, self.num_kv_heads, self.head_dim)).swapaxes(1, 2)
        values = self.v_proj(x).reshape(batch, time, self.num_kv_heads, self.head_dim).swapaxes(1, 2)
        queries, keys = self._rope(queries, cache.offset), self._rope(keys, cache.offset)
        keys, values = cache.update(keys, values)
        out = mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=self.head_dim**-0.5, mask="causal" if time > 1 else None
        )
        return self.o_proj(out.swapaxes(1, 2).reshape(batch, time, -1))


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

    def __call__(self, x: mx.array, cache: KVCache) -> mx.array:
        """[batch, time, hidden] -> the same; the new positions are appended to `cache`."""
        x = x + self.self_attn(self.input_layernorm(x), cache)
        return x + self.mlp(self.post_attention_layernorm(x))
