"""Weight files: what a checkpoint's safetensors must hold, and how they become parameters.

    model.safetensors | shards of an index ─ headers checked ─ sanitize ─ parameters, still on disk until used

Attribute paths are the checkpoint's keys, so there is no table of names. There are two exceptions, chosen by the type
of the module at a path: the layout of convolutions (a PyTorch file says so in its metadata: `format` "pt"; an MLX file
says "mlx"), and codebooks, which a file holds as sums and counts. Everything is strict: a tensor that is missing, left
over, of another shape or of a kind that weights do not have is an error that names it as the file does.
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

LAYOUTS = ("pt", "mlx")
FLOATS = ("F32", "BF16", "F16")
PACKED = {mx.uint32: "U32", mx.uint8: "U8"}  # types that quantized layers have besides


def stored_shapes(module: nn.Module, layout: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a file of `layout` ("pt" or "mlx") holds for `module`."""
    shapes = {name: parameter.shape for name, parameter in tree_flatten(module.parameters())}
    for path, part in module.named_modules():
        name = f"{path}.weight"
        if isinstance(part, Codebook):
            size, dim = shapes.pop(name)
            shapes |= {key: {2: (size, dim), 1: (size,), 0: (1,)}[rank] for key, rank in Codebook.stored(path).items()}
        elif layout == "pt" and isinstance(part, nn.Conv1d):
            out, kernel, width = shapes[name]
            shapes[name] = (out, width, kernel)
        elif layout == "pt" and isinstance(part, nn.ConvTranspose1d):
            out, kernel, width = shapes[name]
            shapes[name] = (width, out, kernel)
    return shapes


def sanitize(weights: dict[str, mx.array], module: nn.Module, layout: str) -> dict[str, mx.array]:
    """The tensors of files of `layout`, already checked, as parameters of `module`."""
    weights = dict(weights)
    for path, part in module.named_modules():
        name = f"{path}.weight"
        if isinstance(part, Codebook):
            Codebook.sanitize(weights, path)
        elif layout == "pt" and isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
            weights[name] = mlx_layout(weights[name], part)
    return weights


def mlx_layout(weight: mx.array, part: nn.Conv1d | nn.ConvTranspose1d) -> mx.array:
    """PyTorch's weight of a convolution -> [out, kernel, in]."""
    if isinstance(part, nn.Conv1d):
        return weight.moveaxis(1, 2)  # from [out, in, kernel]
    return weight.transpose(1, 2, 0)  # from [in, out, kernel]


def weight_files(directory: Path) -> list[Path]:
    """model.safetensors, or the shards that its index names. Raises CheckpointError where there is neither."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise CheckpointError(f"{single} is missing: fetch the whole checkpoint again")
    names = read_json(index).get("weight_map")
    usable = isinstance(names, dict) and names
    if not usable or not all(isinstance(name, str) and Path(name).name == name for name in names.values()):
        raise CheckpointError(f"{index} has no usable weight_map")
    return [directory / name for name in sorted(set(names.values()))]


def read_header(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], str]], str]:
    """Shape and type of each tensor in a safetensors file, and the file's layout. Raises CheckpointError."""
    require_file(path)
    try:
        with safe_open(path, framework="numpy") as file:  # holds the header against the file's length
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            layout = (file.metadata() or {}).get("format", "pt")  # transformers, too, takes no word for PyTorch
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: fetch the whole checkpoint again") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): fetch it again") from None
    if layout not in LAYOUTS:
        raise CheckpointError(f"{path} has the format {layout!r} in its metadata; this port reads {', '.join(LAYOUTS)}")
    return tensors, layout


def check_tensors(
    directory: Path, tensors: dict[str, tuple[tuple[int, ...], str]], module: nn.Module, layout: str
) -> None:
    """Raise CheckpointError unless `tensors` (as of `read_header`) are those of `module`."""
    expected = stored_shapes(module, layout)
    packed = {name: PACKED[p.dtype] for name, p in tree_flatten(module.parameters()) if p.dtype in PACKED}
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"{directory}: the tensor {missing[0]} is missing ({len(missing)} in all)")
    if extra:
        raise CheckpointError(f"{directory}: unknown tensor {extra[0]} ({len(extra)} in all)")
    for name, (shape, kind) in tensors.items():
        if shape != expected[name]:
            found, wanted = list(shape), list(expected[name])
            raise CheckpointError(f"{directory}: the tensor {name} has shape {found}, config.json asks for {wanted}")
        kinds = (packed[name],) if name in packed else FLOATS
        if kind not in kinds:
            raise CheckpointError(f"{directory}: the tensor {name} is of type {kind}; it can be {', '.join(kinds)}")


def read_headers(directory: Path) -> tuple[dict[Path, dict[str, tuple[tuple[int, ...], str]]], str]:
    """The tensors in each weight file of a directory, as of `read_header`, and their layout. Raises CheckpointError."""
    files = weight_files(directory)
    headers = [read_header(path) for path in files]
    layouts = {layout for _, layout in headers}
    if len(layouts) > 1:
        raise CheckpointError(f"{directory}: its files are of different formats ({', '.join(sorted(layouts))})")
    return {path: tensors for path, (tensors, _) in zip(files, headers, strict=True)}, layouts.pop()


def load_weights(
    module: nn.Module, directory: Path, dtype: mx.Dtype | None = None, quantization: Quantization | None = None
) -> None:
    """Load a directory's safetensors into `module`, strictly; the tensors stay on disk until they are used.

    dtype: what floats are converted to; None keeps the file's. quantization: of config.json; layers of `module` that
    are quantized in the files become quantized layers. Raises CheckpointError.
    """
    headers, layout = read_headers(directory)
    tensors = {name: what for header in headers.values() for name, what in header.items()}
    if quantization:
        quantize_layers(module, tensors, quantization)
    check_tensors(directory, tensors, module, layout)
    weights: dict[str, mx.array] = {}
    for path in headers:
        weights |= mx.load(str(path))
    weights = sanitize(weights, module, layout)
    if dtype is not None:
        floats = {name: w for name, w in weights.items() if mx.issubdtype(w.dtype, mx.floating)}
        weights |= {name: tensor.astype(dtype) for name, tensor in floats.items()}
    module.load_weights(list(weights.items()))
    module.eval()
