"""Weight files: the tensors that a checkpoint must hold, and their conversion to parameters.

    model.safetensors | shards of an index ─ headers checked ─ sanitize ─ parameters, read from disk when first used
    parameters ─ stored ─ tensors of a PyTorch file

Attribute paths are the checkpoint's keys, so there is no table of names. There are two exceptions, chosen by the type
of the module at a path: the layout of convolutions (metadata `format`: "pt" in a PyTorch file, "mlx" in an MLX file),
and codebooks, which are stored as sums and counts. Loading is strict: a missing, unexpected, mis-shaped or mistyped
tensor raises an error that quotes its name in the file.
"""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from ..codec.quantizer import Codebook
from ..config.schema import read_json, require_file
from ..errors import CheckpointError
from .quantization import Quantization, quantize_layers
from .shards import Tensor

LAYOUTS = ("pt", "mlx")
FLOATS = ("F32", "BF16", "F16")
PACKED = {mx.uint32: "U32", mx.uint8: "U8"}  # types of a quantized layer's packed weights and scales


def named_parameters(module: nn.Module) -> dict[str, mx.array]:
    """Return the parameters of a module by name."""
    parameters: dict[str, mx.array] = {}
    tree_flatten(module.parameters(), destination=parameters)
    return parameters


def read_tensors(path: Path) -> dict[str, mx.array]:
    """Return the tensors of a safetensors file, which are read when first used."""
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    return tensors


def stored_shapes(module: nn.Module, layout: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes by name of the tensors that a file of `layout` ("pt" or "mlx") holds for `module`."""
    shapes = {name: tuple(parameter.shape) for name, parameter in named_parameters(module).items()}
    for path, part in module.named_modules():
        name = f"{path}.weight"
        if isinstance(part, Codebook):
            size, dim = shapes.pop(name)
            shape_by_rank: dict[int, tuple[int, ...]] = {2: (size, dim), 1: (size,), 0: (1,)}
            shapes |= {key: shape_by_rank[rank] for key, rank in Codebook.stored(path).items()}
        elif layout == "pt" and isinstance(part, nn.Conv1d):
            out, kernel, width = shapes[name]
            shapes[name] = (out, width, kernel)
        elif layout == "pt" and isinstance(part, nn.ConvTranspose1d):
            out, kernel, width = shapes[name]
            shapes[name] = (width, out, kernel)
    return shapes


def sanitize(weights: dict[str, mx.array], module: nn.Module, layout: str) -> dict[str, mx.array]:
    """Return the parameters of `module` from the tensors of files of `layout`, which must be checked."""
    weights = dict(weights)
    for path, part in module.named_modules():
        name = f"{path}.weight"
        if isinstance(part, Codebook):
            Codebook.sanitize(weights, path)
        elif layout == "pt" and isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
            weights[name] = mlx_layout(weights[name], part)
    return weights


def mlx_layout(weight: mx.array, part: nn.Conv1d | nn.ConvTranspose1d) -> mx.array:
    """Transpose a convolution's weight from PyTorch's [out, in, kernel] or [in, out, kernel] to [out, kernel, in]."""
    # Contiguous, because Metal's convolution would copy a view at each call.
    axes = (0, 2, 1) if isinstance(part, nn.Conv1d) else (1, 2, 0)
    return mx.contiguous(weight.transpose(*axes))


def stored(module: nn.Module) -> dict[str, mx.array]:
    """Return the tensors that a file of the layout "pt" holds for `module`: the inverse of `sanitize`.

    A codebook's table is stored as its sums, with counts of 1.
    """
    weights = named_parameters(module)
    for path, part in module.named_modules():
        name = f"{path}.weight"
        if isinstance(part, Codebook):
            table = weights.pop(name)
            ones = mx.ones(len(table))
            by_rank = {2: table, 1: ones, 0: ones[:1]}
            weights |= {key: by_rank[rank] for key, rank in Codebook.stored(path).items()}
        elif isinstance(part, nn.Conv1d):
            weights[name] = weights[name].transpose(0, 2, 1)  # [out, kernel, in] -> [out, in, kernel]
        elif isinstance(part, nn.ConvTranspose1d):
            weights[name] = weights[name].transpose(2, 0, 1)  # [out, kernel, in] -> [in, out, kernel]
    return weights


def weight_files(directory: Path) -> list[Path]:
    """Return model.safetensors, or the shards that its index names. Raises CheckpointError if neither is usable."""
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise CheckpointError(f"{single} is missing: download the whole checkpoint again")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no usable weight_map")
    names = weight_map.values()
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} has no usable weight_map: its files must be next to it")
    return [directory / name for name in sorted(set(names))]


def read_header(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors that a safetensors file declares, and its layout. Raises CheckpointError."""
    require_file(path)
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header against the file's length
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {name: Tensor(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            layout = (file.metadata() or {}).get("format", "pt")  # transformers also takes no format for PyTorch
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: download the whole checkpoint again") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): download it again") from None
    if layout not in LAYOUTS:
        raise CheckpointError(f"{path} has the format {layout!r} in its metadata; this port reads {', '.join(LAYOUTS)}")
    return tensors, layout


def check_tensors(directory: Path, tensors: dict[str, Tensor], module: nn.Module, layout: str) -> None:
    """Raise CheckpointError unless `tensors`, from `read_header`, are those of `module`."""
    expected = stored_shapes(module, layout)
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"{directory}: the tensor {missing[0]} is missing ({len(missing)} in all)")
    if extra:
        raise CheckpointError(f"{directory}: unknown tensor {extra[0]} ({len(extra)} in all)")
    packed = {name: PACKED[p.dtype] for name, p in named_parameters(module).items() if p.dtype in PACKED}
    for name, (shape, kind) in tensors.items():
        if shape != expected[name]:
            raise CheckpointError(
                f"{directory}: the tensor {name} has shape {list(shape)}, but config.json requires "
                f"{list(expected[name])}"
            )
        kinds = (packed[name],) if name in packed else FLOATS
        if kind not in kinds:
            raise CheckpointError(f"{directory}: the tensor {name} is of type {kind}; it must be {' or '.join(kinds)}")


def read_headers(directory: Path) -> tuple[dict[Path, dict[str, Tensor]], str]:
    """Return the tensors that each weight file of a directory declares, and their layout. Raises CheckpointError."""
    headers = {}
    layouts = set()
    for path in weight_files(directory):
        headers[path], layout = read_header(path)
        layouts.add(layout)
    if len(layouts) > 1:
        raise CheckpointError(f"{directory}: its files have different formats ({', '.join(sorted(layouts))})")
    return headers, layouts.pop()


def merged(headers: dict[Path, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of all files."""
    return {name: tensor for header in headers.values() for name, tensor in header.items()}


def load_weights(
    module: nn.Module, directory: Path, dtype: mx.Dtype | None = None, quantization: Quantization | None = None
) -> None:
    """Load a directory's safetensors into `module`, strictly; the tensors are read from disk when first used.

    dtype: the type to cast floats to; None keeps the file's. quantization: from config.json; layers that are quantized
    in the files become quantized layers of `module`. Raises CheckpointError.
    """
    headers, layout = read_headers(directory)
    tensors = merged(headers)
    if quantization:
        quantize_layers(module, tensors, quantization)
    check_tensors(directory, tensors, module, layout)
    weights: dict[str, mx.array] = {}
    for path in headers:
        weights |= read_tensors(path)
    weights = sanitize(weights, module, layout)
    if dtype is not None:
        floats = {name: weight for name, weight in weights.items() if mx.issubdtype(weight.dtype, mx.floating)}
        weights |= {name: weight.astype(dtype) for name, weight in floats.items()}
    module.load_weights(list(weights.items()))
    module.eval()
