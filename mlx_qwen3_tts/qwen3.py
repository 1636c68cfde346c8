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

    def fuse(self) -> None:
        """Make one matrix of q, k and v, and one norm of q's and k's: fewer, larger operations. Names on disk stay."""
        if not can_stack([self[name] for name in ("q_proj", "k_proj", "v_proj")]):
            return
        self.qkv_proj = stack_rows([self.pop(name) for name in ("q_proj", "k_proj", "v_proj")])
        # One row of weights for each head: all heads are normalized at once.
        q, k = self.pop("q_norm"), self.pop("k_norm")
        self.eps = q.eps
        self.qk_norm = mx.concatenate(
            [
                mx.broadcast_to(norm.weight, (count, self.head_dim))
                for norm, count in ((q, self.num_heads), (k, self.num_kv_heads))
            ]
        )[:, None]

    def _heads(self, x: mx.array, count: int) -> mx.array:
        """[batch, time, count * head_dim] -> [batch, count, time, head_dim]."""
        return x.reshape(*x.shape[:2], count, self.head_dim).swapaxes(1, 2)

    def _project(self, x: mx.array, offset: int) -> tuple[mx.array, mx.array, mx.array]:
        """Queries, keys and values [batch, heads, time, head_dim], the first two normalized and rotated."""
        if "qkv_proj" not in self:
            queries = self.q_norm(self._heads(self.q_proj(x), self.num_heads))
            keys = self.k_norm(self._heads(self.k_proj(x), self.num_kv_heads))
            return self._rope(queries, offset), self._rope(keys, offset), self._heads(self.v_proj(x), self.num_kv_heads)
        both = self.num_heads + self.num_kv_heads
        heads = self._heads(self.qkv_proj(x), both + self.num_kv_heads)
        rotated = self._rope(mx.fast.rms_norm(heads[:, :both], None, self.eps) * self.qk_norm, offset)
        return rotated[:, : self.num_heads], rotated[:, self.num_heads :], heads[:, both:]

    def __call__(self, x: mx.array, cache: KVCache) -> mx.array:
        batch, time, _ = x.shape
        queries, keys, values = self._project(x, cache.offset)
        keys, values = cache.update(keys, values)
        out = mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=self.head_dim**-0.5, mask="causal" if time > 1 else None
        )
        return self.o_proj(out.swapaxes(1, 2).reshape(batch, time, -1))


def can_stack(layers: list[nn.Linear | nn.QuantizedLinear]) -> bool:
    """Whether `stack_rows` can: the layers are all plain, or all quantized in the same way."""
    return (
        len(
            {
                (type(layer), *(getattr(layer, name, None) for name in ("bits", "group_size", "mode")))
                for layer in layers
            }
        )
        == 1
    )


def stack_rows(layers: list[nn.Linear | nn.QuantizedLinear]) -> nn.Linear | nn.QuantizedLinear:
    """One layer whose output is that of `layers`, side by side."""
    fused = layers[0]
    for name in ("weight", "scales", "biases"):  # of a quantized layer each row has its own
        if name in fused:
            fused[name] = mx.concatenate([layer[name] for layer in layers])
    return fused


class MLP(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def fuse(self) -> None:
        """Make one matrix of gate and up."""
        if not can_stack([self.gate_proj, self.up_proj]):
            return
        self.gate_up_proj = stack_rows([self.pop("gate_proj"), self.pop("up_proj")])

    def __call__(self, x: mx.array) -> mx.array:
        if "gate_up_proj" in self:
            gate, up = mx.split(self.gate_up_proj(x), 2, axis=-1)
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(nn.silu(gate) * up)


class DecoderLayer(nn.Module):
    """Attention and MLP, each normalized before and added after."""

    def __init__(self, config: TalkerConfig | CodePredictorConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def fuse(self) -> None:
        """Fewer, larger operations from here on, with the same results; see the parts."""
        self.self_attn.fuse()
        self.mlp.fuse()

    def __call__(self, x: mx.array, cache: KVCache) -> mx.array:
        """[batch, time, hidden] -> the same; the new positions are appended to `cache`."""
        x = x + self.self_attn(self.input_layernorm(x), cache)
        return x + self.mlp(self.post_attention_layernorm(x))
