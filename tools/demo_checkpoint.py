"""Write a trained module as a file of the released layout.

parameters ─ stored: codebooks as sums and counts, convolutions in PyTorch's order ─ safetensors, format "pt"
"""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3_tts.checkpoint.weights import stored


def write_weights(module: nn.Module, path: Path, dtype: mx.Dtype) -> None:
    """Write the parameters of `module` as `dtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: mx.contiguous(value.astype(dtype)) for name, value in stored(module).items()}
    mx.save_safetensors(str(path), weights, {"format": "pt"})
