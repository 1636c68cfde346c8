"""What a conversion does with each tensor, planned from headers before anything is read or written.

config.json, headers ─ recipe ─ Plan of the model, Plan of the speech tokenizer
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from ..checkpoint.adapter import Adapter, check_adapter
from ..checkpoint.load import SPEECH_TOKENIZER, read_codec_config, read_config
from ..checkpoint.quantization import Affine
from ..checkpoint.shards import TYPES, Tensor
from ..checkpoint.speakers import SPEAKER_ENCODER
from ..checkpoint.weights import check_tensors, merged, read_headers
from ..codec.codec import CodecNetwork
from ..config.schema import read_json
from ..errors import ConversionError
from ..models.network import Network
from . import recipes
from .recipes import Recipe

KINDS = {dtype: kind for kind, dtype in TYPES.items()}


class Plan(NamedTuple):
    """What happens to the weights of one directory."""

    folder: str  # inside the checkpoint: "" or SPEECH_TOKENIZER
    files: dict[Path, list[str]]  # the names of each file's tensors
    convolutions: dict[str, nn.Conv1d | nn.ConvTranspose1d]  # by path; their weights are not in MLX's layout yet
    layers: dict[str, Affine]  # by path; the layers to quantize
    dtype: mx.Dtype | None  # to cast to; None keeps the type
    outputs: dict[str, dict[str, Tensor]]  # by the name of a tensor that is read: the tensors that are written
    adapter: Adapter | None = None  # to merge into the tensors

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that are written."""
        return {name: tensor for outputs in self.outputs.values() for name, tensor in outputs.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that are written."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def plan_conversion(
    source: Path, recipe: Recipe | None, dtype: mx.Dtype | None, adapter: Adapter | None = None
) -> list[Plan]:
    """Return the plans of a checkpoint's model and of its speech tokenizer, which keeps its type.

    adapter: to merge into a Base model, whose speaker encoder is left out then.
    Raises ConversionError, and CheckpointError for an unusable source.
    """
    config = read_config(source)
    data = read_json(source / "config.json")
    if data.get("quantization") or data.get("quantization_config"):
        raise ConversionError(f"{source} is already quantized; convert the unquantized checkpoint")
    codec = CodecNetwork(read_codec_config(source))
    network = Network(config)
    if adapter is not None:
        check_adapter(network, config, adapter)
    return [
        _plan(source, "", network, recipes.plan(network, recipe), dtype, adapter),
        _plan(source, SPEECH_TOKENIZER, codec, {}, None),
    ]


def _plan(
    source: Path,
    folder: str,
    module: nn.Module,
    layers: dict[str, Affine],
    dtype: mx.Dtype | None,
    adapter: Adapter | None = None,
) -> Plan:
    directory = source / folder
    headers, layout = read_headers(directory)
    tensors = merged(headers)
    packed = next((name for name in sorted(tensors) if name.endswith(".scales")), None)
    if packed:
        raise ConversionError(f"{directory} is already quantized ({packed}); convert the unquantized checkpoint")
    check_tensors(directory, tensors, module, layout)
    convolutions = {}
    if layout == "pt":
        for path, part in module.named_modules():
            if isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
                convolutions[path] = part
                tensors[f"{path}.weight"] = Tensor(tuple(part.weight.shape), tensors[f"{path}.weight"].kind)
    outputs = {}
    for name, (shape, kind) in tensors.items():
        if adapter is not None and name.startswith(SPEAKER_ENCODER):
            continue
        if dtype is not None:
            kind = KINDS[dtype]
        outputs[name] = _outputs(name, Tensor(shape, kind), layers)
    files = {path: [name for name in header if name in outputs] for path, header in headers.items()}
    return Plan(folder, files, convolutions, layers, dtype, outputs, adapter)


def _outputs(name: str, tensor: Tensor, layers: dict[str, Affine]) -> dict[str, Tensor]:
    """Return the tensors that a tensor becomes, in the order of Quantized."""
    path = name.removesuffix(".weight")
    if path == name or path not in layers:
        return {name: tensor}
    rows, columns = tensor.shape
    bits, group_size = layers[path]
    packed = Tensor((rows, columns * bits // 32), "U32")
    groups = Tensor((rows, columns // group_size), tensor.kind)
    return {name: packed, f"{path}.scales": groups, f"{path}.biases": groups}


def check_space(target: Path, plans: list[Plan]) -> None:
    """Raise ConversionError if the disk has too little room for the weights."""
    needed = sum(plan.nbytes for plan in plans)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise ConversionError(
            f"{target.parent} has {free / 1e9:.1f} GB free, but the weights take {needed / 1e9:.1f} GB; free some space"
        )
