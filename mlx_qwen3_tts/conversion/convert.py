"""Conversion of a checkpoint: to other types, or quantized by a recipe, with or without an adapter.

    source ─ headers ─ recipe ─ plan ─┬─ tensor by tensor: read, merge, cast, quantize, write ─┐
                                      └─ tokenizer, configurations: copied ────────────────────┴─ rename

No file is loaded as a whole. All checks precede the first write, everything is written to a hidden directory that is
renamed to the target at the end, and config.json, without which nothing loads, is written last. The speech tokenizer
keeps its type; convolutions are stored in MLX's layout.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
from tqdm import tqdm

from .. import __version__
from ..checkpoint.adapter import adapter_path, read_adapter
from ..checkpoint.load import CHECKPOINT_FORMAT, DTYPES, SPEECH_TOKENIZER
from ..checkpoint.quantization import Affine
from ..checkpoint.shards import ShardWriter
from ..checkpoint.speakers import custom_voice_json
from ..checkpoint.weights import mlx_layout, read_tensors
from ..config.schema import read_json
from ..errors import ConversionError
from ..hub import resolve
from ..mlx_thread import Worker
from . import recipes
from .affine import SearchResult, plain, search
from .plan import Plan, check_space, plan_conversion
from .recipes import Recipe, part_of
from .target import COPIED_FILES, SOURCE_FILES, check_apart, check_target, new_directory

SHARD_SIZE = 5_000_000_000  # bytes; the hub's own convention
SCALES = ("search", "plain")
CODEC_PART = "speech tokenizer"

Importance = dict[str, mx.array]  # by a layer's path: the mean square of its input, float32 [columns]


@dataclass(frozen=True)
class ConversionOptions:
    """What becomes of the weights; see `convert`. Raises ConversionError for invalid options."""

    recipe: str | None = None
    bits: int | None = None
    group_size: int | None = None
    dtype: str | None = None
    scales: str | None = None
    importance: Callable[[Path], Importance] | None = None
    shard_size: int = SHARD_SIZE

    def __post_init__(self) -> None:
        is_quantized = self.chosen_recipe is not None
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConversionError(f"unknown dtype {self.dtype!r}; choose from {', '.join(DTYPES)}")
        if self.dtype is not None and self.dtype != self.stored_dtype:
            message = f"recipe={self.recipe!r} and dtype={self.dtype!r} exclude each other; leave one out"
            raise ConversionError(message, "recipe", "dtype")
        if self.scales is not None and self.scales not in SCALES:
            raise ConversionError(f"unknown scales {self.scales!r}; choose from {', '.join(SCALES)}")
        if self.scales is not None and not is_quantized:
            message = "scales has no effect without recipe or bits; leave it out"
            raise ConversionError(message, "scales", "recipe", "bits")
        if self.importance is not None and not (is_quantized and self.searches):
            message = "calibration requires recipe or bits, and scales='search'"
            raise ConversionError(message, "recipe", "bits", "scales")
        if self.shard_size < 1:
            raise ConversionError(f"shard_size is {self.shard_size} bytes; it must be above 0", "shard_size")

    @property
    def chosen_recipe(self) -> Recipe | None:
        """The recipe of `recipe` or `bits`; None if the weights are not quantized."""
        recipe = recipes.find(self.recipe, self.bits, self.group_size)
        if recipe is None or not recipe.parts:
            return None
        return recipe

    @property
    def stored_dtype(self) -> str | None:
        """The type of the recipe, if it has one, or of `dtype`."""
        recipe = recipes.find(self.recipe, self.bits, self.group_size)
        own = None if recipe is None else recipe.dtype
        return own or self.dtype

    @property
    def mlx_dtype(self) -> mx.Dtype | None:
        """The type to cast to; None keeps the source's."""
        return None if self.stored_dtype is None else DTYPES[self.stored_dtype]

    def measure_importance(self, source: Path) -> Importance:
        """Return the importance of the inputs of each layer; empty without calibration."""
        if self.importance is None:
            return {}
        return self.importance(source)

    @property
    def searches(self) -> bool:
        """True if scales and biases are searched, which is the default."""
        return self.scales in (None, "search")


class PartSummary(NamedTuple):
    """Summary of one converted part."""

    name: str
    stored: str  # "4 bits, groups of 64", "bfloat16"
    before: int  # bytes
    after: int
    gain: float | None  # squared error of the weights relative to mx.quantize's; None if scales were not searched


class Conversion(NamedTuple):
    """The result of `convert`."""

    path: Path
    recipe: Recipe | None
    before: int  # bytes of weights, including the speech tokenizer's
    after: int
    parts: list[PartSummary]


def convert(
    model: str | Path,
    out: str | Path,
    *,
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
    adapter: str | Path | None = None,
) -> Conversion:
    """Write a converted copy of a checkpoint, which loads like any other.

    model: a directory or hub id, not quantized. out: the directory to write.
    recipe: a name in recipes.NAMED. bits: the same number of bits for all linear layers: 2, 3, 4, 5, 6 or 8. If both
    are None, the weights are not quantized. group_size: weights per scale: 32, 64 or 128; None takes the recipe's.
    dtype: "float32", "bfloat16" or "float16", for everything but the speech tokenizer; None keeps the source's types.
    scales: "search" for the scales and biases of affine.search (None means this), "plain" for those of mx.quantize.
    importance: a function from the source's directory to the mean squared input of each layer; see calibrate.py.
    force: replace the checkpoint at `out`. shard_size: bytes per weight file; more weights give several and an index.
    progress: show progress on stderr if that is a terminal. revision, adapter: as in Qwen3TTS.from_pretrained.
    Raises ConversionError, and the errors of `from_pretrained`; then nothing is left behind and nothing is lost.
    """
    options = ConversionOptions(recipe, bits, group_size, dtype, scales, importance, shard_size)
    worker = Worker()
    target = check_target(out, force)
    path = adapter_path(adapter)
    merged = None if path is None else read_adapter(path)
    with resolve(model, progress, SOURCE_FILES, revision) as source:
        check_apart(source, target)
        plans = worker.run(plan_conversion, source, options.chosen_recipe, options.mlx_dtype, merged)
        check_space(target, plans)
        quantizer = Quantizer(options.searches, options.measure_importance(source))
        with new_directory(target) as directory:
            copy_files(source, directory)
            parts = write_weights(plans, directory, quantizer, options.shard_size, worker, progress)
            write_config(source, directory, plans[0], format_entry(options, quantizer))
    before = sum(part.before for part in parts)
    after = sum(part.after for part in parts)
    return Conversion(target, options.chosen_recipe, before, after, parts)


def copy_files(source: Path, directory: Path) -> None:
    """Copy the files that conversion does not change, as far as the source has them."""
    (directory / SPEECH_TOKENIZER).mkdir()
    for name in COPIED_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


@dataclass(frozen=True)
class Quantizer:
    """Quantizes matrices, with searched scales and biases or with those of mx.quantize."""

    searches: bool
    importance: Importance

    def quantize(self, path: str, weight: mx.array, affine: Affine) -> SearchResult:
        """Quantize the weight of the layer at `path`; both errors are 0 without a search."""
        if self.searches:
            return search(weight, affine, self.importance.get(path))
        return SearchResult(plain(weight, affine), 0.0, 0.0)


@dataclass
class PartTotals:
    """Sums over the tensors of one part."""

    stored: set[str] = field(default_factory=set)
    before: int = 0
    after: int = 0
    error: float = 0.0
    plain_error: float = 0.0

    def summary(self, name: str) -> PartSummary:
        """Return the sums of the part `name` as a result."""
        gain = self.error / self.plain_error if self.plain_error else None
        return PartSummary(name, ", ".join(sorted(self.stored)), self.before, self.after, gain)


def write_weights(
    plans: list[Plan], directory: Path, quantizer: Quantizer, shard_size: int, worker: Worker, progress: bool
) -> list[PartSummary]:
    """Convert and write all weights, tensor by tensor."""
    totals = {name: PartTotals() for name in (*recipes.PARTS, recipes.REST, CODEC_PART)}
    size = sum(plan.nbytes for plan in plans)
    disable = None if progress else True  # None shows the bar on a terminal only
    with tqdm(total=size, unit="B", unit_scale=True, leave=False, disable=disable) as bar:
        for plan in plans:
            with ShardWriter(directory / plan.folder, plan.tensors, shard_size) as writer:
                converter = TensorConverter(plan, quantizer, writer, totals)
                for file, names in plan.files.items():
                    tensors = worker.run(read_tensors, file)
                    for name in names:
                        worker.run(converter.convert, name, tensors)
                        bar.update(sum(output.nbytes for output in plan.outputs[name].values()))
    return [total.summary(name) for name, total in totals.items() if total.before]


class TensorConverter:
    """Casts, quantizes and writes the tensors of one plan, and adds up the sizes and errors."""

    def __init__(self, plan: Plan, quantizer: Quantizer, writer: ShardWriter, totals: dict[str, PartTotals]) -> None:
        self._plan = plan
        self._quantizer = quantizer
        self._writer = writer
        self._totals = totals

    def convert(self, name: str, tensors: dict[str, mx.array]) -> None:
        """Take the tensor `name` out of `tensors` and write what it becomes. Raises ConversionError and OSError."""
        try:
            self._convert(name, tensors.pop(name))
        finally:
            mx.clear_cache()  # a buffer of one size seldom fits a tensor of another

    def _convert(self, name: str, tensor: mx.array) -> None:
        plan = self._plan
        path = name.removesuffix(".weight")
        is_weight = path != name
        totals = self._totals[CODEC_PART if plan.folder else part_of(name)]
        totals.before += tensor.nbytes
        totals.after += sum(output.nbytes for output in plan.outputs[name].values())
        if is_weight and path in plan.convolutions:
            tensor = mlx_layout(tensor, plan.convolutions[path])
        if plan.adapter is not None:
            tensor = plan.adapter.merged(name, tensor, plan.dtype)
        if plan.dtype is not None:
            tensor = tensor.astype(plan.dtype)
        if is_weight and path in plan.layers:
            self._write_quantized(name, path, tensor, totals)
            return
        if tensor.dtype == mx.float16 and plan.dtype is not None:
            check_finite(name, tensor)
        if is_weight:
            totals.stored.add(str(tensor.dtype).removeprefix("mlx.core."))
        self._writer.write(name, tensor)

    def _write_quantized(self, name: str, path: str, weight: mx.array, totals: PartTotals) -> None:
        affine = self._plan.layers[path]
        check_finite(name, weight)
        result = self._quantizer.quantize(path, weight, affine)
        totals.stored.add(str(affine))
        totals.error += result.error
        totals.plain_error += result.plain_error
        for output, array in zip(self._plan.outputs[name], result.matrix, strict=True):
            self._writer.write(output, array)


def check_finite(name: str, tensor: mx.array) -> None:
    """Raise ConversionError for a tensor with NaN or infinity."""
    if not mx.isfinite(tensor).all().item():
        raise ConversionError(
            f"the tensor {name} has values that are not finite, or too large for the requested type: download the "
            "checkpoint again, or choose another dtype",
            "dtype",
        )


def format_entry(options: ConversionOptions, quantizer: Quantizer) -> dict[str, object]:
    """Return `mlx_qwen3_tts` of config.json: the format, and how the weights were converted."""
    entry: dict[str, object] = {"format": CHECKPOINT_FORMAT, "version": __version__}
    recipe = options.chosen_recipe
    if recipe is None:
        return entry | {"recipe": None, "scales": None, "calibrated": False}
    scales = "search" if options.searches else "plain"
    return entry | {"recipe": recipe.name, "scales": scales, "calibrated": bool(quantizer.importance)}


def write_config(source: Path, directory: Path, plan: Plan, entry: dict[str, object]) -> None:
    """Write config.json: the source's, with the adapter's speakers, the quantization and `entry`."""
    config = read_json(source / "config.json")
    if plan.adapter is not None:
        config = custom_voice_json(config, plan.adapter.speakers)
    if plan.layers:
        config["quantization"] = recipes.config_entry(plan.layers)
    config["mlx_qwen3_tts"] = entry
    with (directory / "config.json").open("x", encoding="utf-8") as file:
        json.dump(config, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
