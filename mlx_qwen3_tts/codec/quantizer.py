"""Codes to embeddings: the decoder's split residual vector quantizer.

    codes [batch, frames, 16] ─ codebook 0      ─ rvq_first table         ─ output_proj ─┐
                              └ codebooks 1..15 ─ rvq_rest tables, summed ─ output_proj ─┴ + ─ [batch, frames, width]

Keys: decoder.quantizer.rvq_{first,rest}.{input_proj,output_proj,vq.layers.N._codebook}. A file holds a codebook as
running sums and counts; `Codebook.sanitize` divides them once. input_proj serves only the encoder that the codec was
trained with and is loaded, never used.
Source: SplitResidualVectorQuantizer in modeling_qwen3_tts_tokenizer_v2.py.
"""

from functools import reduce

import mlx.core as mx
import mlx.nn as nn

MIN_CLUSTER_USAGE = 1e-5  # the official clamp of the count that a codebook's sum is divided by


class Codebook(nn.Module):
    """A table of `size` vectors of width `dim`."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.weight = mx.zeros((size, dim))

    @staticmethod
    def stored(path: str) -> dict[str, int]:
        """The tensors that a file holds for the codebook at `path`, sums first, then counts, with their ranks.

        The decoder's are called `_codebook` (a name that MLX does not count among parameters). The encoder's have a
        flag as well, which inference does not need.
        """
        if path.startswith("decoder."):
            path = path.removesuffix("codebook") + "_codebook"
            return {f"{path}.embedding_sum": 2, f"{path}.cluster_usage": 1}
        return {f"{path}.embed_sum": 2, f"{path}.cluster_usage": 1, f"{path}.initialized": 0}

    @classmethod
    def sanitize(cls, weights: dict[str, mx.array], path: str) -> None:
        """Replace the sums [size, dim] and counts [size] in `weights` by the table that they stand for."""
        sums, counts, *rest = cls.stored(path)
        if sums in weights and counts in weights:
            weights[f"{path}.weight"] = weights.pop(sums) / mx.maximum(weights.pop(counts), MIN_CLUSTER_USAGE)[:, None]
        for name in rest:
            weights.pop(name, None)

    def __call__(self, codes: mx.array) -> mx.array:
        return self.weight[codes]


class VectorQuantization(nn.Module):
    """One codebook under the name that the checkpoint gives it (`layers.N._codebook`, less the underscore)."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.codebook = Codebook(size, dim)


class ResidualVectorQuantization(nn.Module):
    """The codebooks of one group; their vectors add up."""

    def __init__(self, num_quantizers: int, size: int, dim: int) -> None:
        super().__init__()
        self.layers = [VectorQuantization(size, dim) for _ in range(num_quantizers)]

    def __call__(self, codes: mx.array) -> mx.array:
        """[batch, frames, num_quantizers] -> [batch, frames, dim]."""
        return reduce(mx.add, [layer.codebook(codes[..., i]) for i, layer in enumerate(self.layers)])


class ResidualVectorQuantizer(nn.Module):
    """A group of codebooks and the projections between their width and the codec's."""

    def __init__(self, num_quantizers: int, size: int, dim: int, width: int) -> None:
        super().__init__()
        self.input_proj = nn.Conv1d(width, dim, 1, bias=False)
        self.output_proj = nn.Conv1d(dim, width, 1, bias=False)
        self.vq = ResidualVectorQuantization(num_quantizers, size, dim)

    def __call__(self, codes: mx.array) -> mx.array:
        """[batch, frames, num_quantizers] -> [batch, frames, width]."""
        return self.vq(codes) @ self.output_proj.weight[:, 0, :].T


class SplitResidualVectorQuantizer(nn.Module):
    """Codebook 0 (semantic) and codebooks 1.. (acoustic), each group with a projection of its own."""

    def __init__(self, num_quantizers: int, size: int, width: int) -> None:
        super().__init__()
        self.rvq_first = ResidualVectorQuantizer(1, size, width // 2, width)
        self.rvq_rest = ResidualVectorQuantizer(num_quantizers - 1, size, width // 2, width)

    def __call__(self, codes: mx.array) -> mx.array:
        """[batch, frames, num_quantizers] -> [batch, frames, width]."""
        return self.rvq_first(codes[..., :1]) + self.rvq_rest(codes[..., 1:])
