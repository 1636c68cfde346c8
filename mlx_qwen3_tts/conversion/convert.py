"""A checkpoint to another of other types: unquantized MLX weights, or quantized by a recipe.

    source ─ headers ─ recipe ─ plan ─┬─ one tensor after the other: read, cast, quantize, write ─┐
                                      └─ tokenizer, configurations: copied ───────────────────────┴─ rename

Nothing is loaded whole. All checks come before the first byte is written, everything goes into a directory beside the
target which takes its name when it is complete, and config.json, without which nothing loads, is written last. The
speech tokenizer keeps its type; convolutions are stored in MLX's layout.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from tqdm import tqdm

from .. import __version__
from ..checkpoint.load import DTYPES, FORMAT, read_config
from ..checkpoint.shards import TYPES, ShardWriter, Tensor
from ..checkpoint.weights import check_tensors, mlx_layout, read_headers
from ..codec.codec import Codec
from ..config.codec import CodecConfig
from ..config.schema import from_dict, read_json
from ..errors import ConversionError
from ..files import check_target, written_whole
from ..hub import FILES, resolve
from ..models.network import Network
from . import recipes
from .affine import Affine, Quantized, plain, search
from .recipes import Recipe, part_of

SHARD_SIZE = 5_000_000_000  # bytes; the hub's own convention
SPEECH = "speech_tokenizer"
COPIED = [
    "generation_config.json", "tokenizer_config.json", "vocab.json", "merges.txt", "preprocessor_config.json",
    f"{SPEECH}/config.json", f"{SPEECH}/configuration.json", f"{SPEECH}/preprocessor_config.json",
]  # fmt: skip
KINDS = {dtype: kind for kind, dtype in TYPES.items()}
SCALES = ("search", "plain")

Importance = dict[str, mx.array]  # by a layer's path: the mean square of its input, float32 [columns]


class PartSummary(NamedTuple):
    """What became of one part of the model."""

    name: str
    stored: str  # "4 bits, groups of 64", "bfloat16"
    before: int  # bytes
    after: int
    gain: float | None  # squared error of the weights against that of mx.quantize; None where it was not searched


class Conversion(NamedTuple):
    """What `convert` did."""

    path: Path
    recipe: Recipe | None
    before: int  # bytes of weights, the speech tokenizer's among them
    after: int
    parts: list[PartSummary]


class Plan(NamedTuple):
    """What is done with one directory's weights."""

    place: str  # below the checkpoint: "" or SPEECH
    files: dict[Path, list[str]]  # the names of each file's tensors
    convolutions: dict[str, nn.Module]  # by path; those whose weights are turned into MLX's layout
    layers: dict[str, Affine]  # those that are quantized
    dtype: mx.Dtype | None
    outputs: dict[str, dict[str, Tensor]]  # for each tensor that is read those that are written


def convert(
    model: str | Path,
    out: str | Path,
    recipe: str | None = None,
    bits: int | None = None,
    group_size: int | None = None,
    dtype: str | None = None,
    scales: str | None = None,
    importance: Callable[[Path], Importance] | None = None,
    force: bool = False,
    shard_size: int = SHARD_SIZE,
    progress: bool = False,
    revision: str | None = None,
) -> Conversion:
    """Write a converted copy of a checkpoint, which loads wherever a model is named.

    model: a directory or hub id, not quantized. out: the directory to write.
    recipe: a name of recipes.RECIPES; bits: the same number for all linear layers (2, 3, 4, 5, 6 or 8); with neither
    the weights are not quantized. group_size: 32, 64 or 128 weights for each scale; None takes the recipe's.
    dtype: "float32", "bfloat16" or "float16" for everything but the speech tokenizer; None keeps the source's types.
    scales: "search" for the scales and biases of quantize.search, "plain" for those of mx.quantize; None
    takes the first.
    importance: given the source's directory, how much each input of each layer counts (see calibrate.py).
    force: replace the checkpoint at `out`. shard_size: bytes in a file, above which there are several and an index.
    progress: show progress on stderr where that is a terminal. revision: as in Qwen3TTS.from_pretrained.
    Raises ConversionError, and what `from_pretrained` raises; then nothing is left behind and nothing is lost.
    """
    chosen = recipes.find(recipe, bits, group_size)
    if dtype is not None and dtype not in DTYPES:
        raise ConversionError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    if scales is not None and chosen is None:
        raise ConversionError("scales are of quantized weights: they need a recipe or bits")
    scales = SCALES[0] if scales is None else scales
    if scales not in SCALES:
        raise ConversionError(f"unknown scales {scales!r}; choose from {', '.join(SCALES)}")
    if shard_size < 1:
        raise ConversionError(f"shard_size is {shard_size} bytes; it must be above 0")
    if importance and (chosen is None or scales != "search"):
        raise ConversionError(
            "a calibration text serves the search for scales: it needs a recipe or bits, and no plain"
        )
    target = check_target(out, force, {"config.json", "README.md", *COPIED})
    with resolve(model, progress, [*FILES, *COPIED], revision) as source:
        if target.exists() and os.path.samefile(source, target):
            raise ConversionError(f"{out} is the source itself; name another directory")
        if source.resolve() in target.parents or target in source.resolve().parents:
            raise ConversionError(f"{out} and the source are inside each other; name another directory")
        plans = plan_conversion(source, chosen, DTYPES[dtype] if dtype else None)
        check_space(target, plans)
        weigh = importance(source) if importance else {}
        about = {"recipe": chosen and chosen.name, "scales": scales if chosen else None, "calibrated": bool(weigh)}
        with written_whole(target) as directory:
            _copy_files(source, directory)
            quantizer = _quantizer(scales, weigh)
            parts = _write_weights(plans, directory, quantizer, shard_size, progress)
            write_config(source, directory, plans[0].layers, about)
    before, after = (sum(getattr(part, side) for part in parts) for side in ("before", "after"))
    return Conversion(target, chosen, before, after, parts)


def plan_conversion(source: Path, recipe: Recipe | None, dtype: mx.Dtype | None) -> list[Plan]:
    """What is done with the weights of a checkpoint and of its speech tokenizer. Raises ConversionError."""
    config = read_config(source)
    data = read_json(source / "config.json")
    if data.get("quantization") or data.get("quantization_config"):
        raise ConversionError(f"{source} is already quantized; convert the checkpoint that it was made from")
    codec_config = from_dict(CodecConfig, read_json(source / SPEECH / "config.json"), f"{SPEECH}/config.json")
    network = Network(config)
    layers = recipes.plan(network, recipe)
    return [_plan(source, "", network, layers, dtype), _plan(source, SPEECH, Codec(codec_config), {}, None)]


def _plan(source: Path, place: str, module: nn.Module, layers: dict[str, Affine], dtype: mx.Dtype | None) -> Plan:
    directory = source / place
    headers, layout = read_headers(directory)
    tensors = {name: what for header in headers.values() for name, what in header.items()}
    packed = next((name for name in sorted(tensors) if name.endswith(".scales")), None)
    if packed:
        raise ConversionError(f"{directory} is already quantized ({packed}); convert what it was made from")
    check_tensors(directory, tensors, module, layout)
    shapes = {}  # in MLX's layout
    convolutions = {}
    for path, part in module.named_modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
            shapes[f"{path}.weight"] = tuple(part.weight.shape)
            convolutions |= {path: part} if layout == "pt" else {}
    outputs = {
        name: _outputs(name, shapes.get(name, shape), KINDS[dtype] if dtype else kind, layers)
        for name, (shape, kind) in tensors.items()
    }
    return Plan(place, {path: list(h) for path, h in headers.items()}, convolutions, layers, dtype, outputs)


def _outputs(name: str, shape: tuple[int, ...], kind: str, layers: dict[str, Affine]) -> dict[str, Tensor]:
    """The tensors that one tensor becomes, in the order of Quantized."""
    path = name.removesuffix(".weight")
    if path == name or path not in layers:
        return {name: Tensor(shape, kind)}
    (rows, columns), (bits, group_size) = shape, layers[path]
    groups = Tensor((rows, columns // group_size), kind)
    return {name: Tensor((rows, columns * bits // 32), "U32"), f"{path}.scales": groups, f"{path}.biases": groups}


def check_space(target: Path, plans: list[Plan]) -> None:
    """Raise ConversionError where the disk has less room than the weights will take."""
    needed = sum(tensor.nbytes for plan in plans for made in plan.outputs.values() for tensor in made.values())
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise ConversionError(
            f"{target.parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are to be written"
        )


def _copy_files(source: Path, directory: Path) -> None:
    (directory / SPEECH).mkdir()
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


def write_config(source: Path, directory: Path, layers: dict[str, Affine], about: dict[str, object]) -> None:
    """config.json: the source's, what is quantized how, and the version of the format."""
    config = read_json(source / "config.json")
    if layers:
        config["quantization"] = recipes.entry(layers)
    config["mlx_qwen3_tts"] = {"format": FORMAT, "version": __version__, **about}
    with (directory / "config.json").open("x", encoding="utf-8") as file:
        json.dump(config, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())


Quantizer = Callable[[str, mx.array, Affine], tuple[Quantized, float, float]]


def _quantizer(scales: str, importance: Importance) -> Quantizer:
    """(path, weight, affine) -> the matrix, its error and that of mx.quantize; errors of 0 where none is measured."""
    if scales == "plain":
        return lambda _, weight, affine: (plain(weight, affine), 0.0, 0.0)
    return lambda path, weight, affine: search(weight, affine, importance.get(path))


def _write_weights(
    plans: list[Plan], directory: Path, quantizer: Quantizer, shard_size: int, progress: bool
) -> list[PartSummary]:
    """Write all weights, tensor by tensor."""
    totals: dict[str, _Totals] = {name: _Totals() for name in (*recipes.PARTS, recipes.REST, "speech tokenizer")}
    size = sum(tensor.nbytes for plan in plans for made in plan.outputs.values() for tensor in made.values())
    with tqdm(total=size, unit="B", unit_scale=True, leave=False, disable=None if progress else True) as bar:
        for plan in plans:
            tensors = {name: tensor for made in plan.outputs.values() for name, tensor in made.items()}
            with ShardWriter(directory / plan.place, tensors, shard_size) as writer:
                for name, tensor in _read(plan):
                    part = totals["speech tokenizer" if plan.place else part_of(name)]
                    _convert_tensor(plan, name, tensor, quantizer, writer, part)
                    bar.update(sum(made.nbytes for made in plan.outputs[name].values()))
                    del tensor
                    mx.clear_cache()  # a buffer of one size seldom serves a tensor of another
    return [total.summary(name) for name, total in totals.items() if total.before]


def _read(plan: Plan) -> Iterator[tuple[str, mx.array]]:
    """One tensor after the other, in MLX's layout; each is on disk until it is used."""
    for file, names in plan.files.items():
        lazy = mx.load(str(file))
        for name in names:
            part = plan.convolutions.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
            tensor = lazy.pop(name)
            yield name, tensor if part is None else mlx_layout(tensor, part)
            del tensor


def _convert_tensor(
    plan: Plan, name: str, tensor: mx.array, quantizer: Quantizer, writer: ShardWriter, total: "_Totals"
) -> None:
    """Cast one tensor, quantize it where the plan says so, write it, and count it."""
    made, path = plan.outputs[name], name.removesuffix(".weight")
    total.before += tensor.nbytes
    total.after += sum(part.nbytes for part in made.values())
    tensor = tensor if plan.dtype is None else tensor.astype(plan.dtype)
    if len(made) == 1:
        if plan.dtype is not None and plan.dtype == mx.float16:
            check_finite(name, tensor)
        if path != name:
            total.stored.add(str(tensor.dtype).removeprefix("mlx.core."))
        writer.write(name, tensor)
        return
    check_finite(name, tensor)
    matrix, error, plain_error = quantizer(path, tensor, plan.layers[path])
    total.stored.add(str(plan.layers[path]))
    total.error, total.plain_error = total.error + error, total.plain_error + plain_error
    for part, array in zip(made, matrix, strict=True):
        writer.write(part, array)


def check_finite(name: str, tensor: mx.array) -> None:
    """Raise ConversionError for infinity and what is no number."""
    if not mx.isfinite(tensor).all().item():
        raise ConversionError(
            f"the tensor {name} holds numbers that are not finite, or too large for the type asked for: fetch the "
            "checkpoint again, or choose another dtype"
        )


@dataclass
class _Totals:
    """What is counted of one part."""

    stored: set[str] = field(default_factory=set)
    before: int = 0
    after: int = 0
    error: float = 0.0
    plain_error: float = 0.0

    def summary(self, name: str) -> PartSummary:
        gain = self.error / self.plain_error if self.plain_error else None
        return PartSummary(name, ", ".join(sorted(self.stored)), self.before, self.after, gain)
