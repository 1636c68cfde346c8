"""Write a trained module as a file of the released layout: the inverse of mlx_qwen3_tts.checkpoint.weights.

parameters ─ codebooks as sums and counts ─ convolutions in PyTorch's order ─ safetensors, format "pt"
"""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_qwen3_tts.codec.quantizer import Codebook


def stored(module: nn.Module) -> dict[str, mx.array]:
    """Return the tensors of `module` as in a released file."""
    weights = dict(tree_flatten(module.parameters()))
    for path, part in module.named_modules():
        name = f"{path}.weight"
        if isinstance(part, Codebook):
            table = weights.pop(name)
            ones = mx.ones(len(table))
            by_rank = {2: table, 1: ones, 0: ones[:1]}
            weights |= {key: by_rank[rank] for key, rank in Codebook.stored(path).items()}
        elif isinstance(part, nn.Conv1d):
            weights[name] = weights[name].moveaxis(1, 2)  # [out, kernel, in] -> [out, in, kernel]
        elif isinstance(part, nn.ConvTranspose1d):
            weights[name] = weights[name].transpose(2, 0, 1)  # [out, kernel, in] -> [in, out, kernel]
    return weights


def write_weights(module: nn.Module, path: Path, dtype: mx.Dtype) -> None:
    """Write the parameters of `module` as `dtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: mx.contiguous(value.astype(dtype)) for name, value in stored(module).items()}
    mx.save_safetensors(str(path), weights, {"format": "pt"})
