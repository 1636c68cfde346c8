"""Recipes: named mixes of bits, one setting for each part of the model.

    network ─ part of each layer ─ recipe ─ plan {module path: Affine} ─ `quantization` of config.json

A part is a group of layers with the same function and the same sensitivity. Parts that a recipe does not name keep
their type: norms and biases, the speaker encoder, the codec, and the codec's embeddings. These contain the voices, and
are read one row at a time, so that fewer bits would save no time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import mlx.nn as nn

from ..checkpoint.quantization import BITS, GROUP_SIZES, Affine
from ..errors import ConversionError
from ..suggest import unknown

PARTS = {
    "text embedding": "talker.model.text_embedding",
    "text projection": "talker.text_projection.*",
    "codec embeddings": "talker.*codec_embedding*",
    "talker attention": "talker.model.layers.*.self_attn.*_proj",
    "talker MLP": "talker.model.layers.*.mlp.*",
    "talker head": "talker.codec_head",
    "code predictor attention": "talker.code_predictor.model.layers.*.self_attn.*_proj",
    "code predictor MLP": "talker.code_predictor.model.layers.*.mlp.*",
    "code predictor input": "talker.code_predictor.small_to_mtp_projection",
    "code predictor heads": "talker.code_predictor.lm_head.*",
    "speaker encoder": "speaker_encoder.*",
}
REST = "norms"
LINEAR = [name for name in PARTS if name not in ("text embedding", "codec embeddings", "speaker encoder")]


@dataclass(frozen=True)
class Recipe:
    """Quantization of each part; parts without an entry are not quantized.

    dtype: of the weights that are not quantized; None leaves it to the caller.
    """

    name: str
    description: str
    parts: dict[str, Affine]
    dtype: str | None = None


def check_affine(bits: int, group_size: int) -> None:
    """Raise ConversionError for bits or a group size that MLX does not have."""
    if bits not in BITS or isinstance(bits, bool):
        raise ConversionError(f"bits is {bits!r}; choose from {', '.join(map(str, BITS))}", "bits")
    if group_size not in GROUP_SIZES:
        message = f"group_size is {group_size!r}; choose from {', '.join(map(str, GROUP_SIZES))}"
        raise ConversionError(message, "group_size")


def uniform(bits: int, group_size: int = 64) -> Recipe:
    """Return the recipe with `bits` for all linear layers, and 8 for the text embedding. Raises ConversionError."""
    check_affine(bits, group_size)
    parts = dict.fromkeys(LINEAR, Affine(bits, group_size))
    parts["text embedding"] = Affine(8, group_size)  # read by rows: fewer bits save no time
    return Recipe(f"{bits}bit", f"all linear layers at {bits} bits, the text embedding at 8", parts)


# From the measurements of benchmarks/sensitivity.py and the experience of other projects; see BENCHMARKS.md.
MIXED_4 = uniform(4).parts | {
    "talker attention": Affine(6),
    "text projection": Affine(8),
    "talker head": Affine(8),
    "code predictor attention": Affine(8),
    "code predictor MLP": Affine(8),
    "code predictor input": Affine(8),
}
MIXED_4_DESCRIPTION = (
    "the talker's MLPs and the code predictor's heads at 4 bits, the talker's attention at 6; the code predictor's "
    "layers, the talker's head and the text's embedding and projection at 8"
)
RECIPES = {
    recipe.name: recipe
    for recipe in (uniform(8), uniform(6), Recipe("mixed-4", MIXED_4_DESCRIPTION, MIXED_4), uniform(4))
}
# What --recipe may name: the above, and one that quantizes nothing.
NAMED = {"bfloat16": Recipe("bfloat16", "all weights as bfloat16, nothing is quantized", {}, "bfloat16"), **RECIPES}


def find(name: str | None, bits: int | None, group_size: int | None) -> Recipe | None:
    """Return the recipe of a name or a number of bits, or None if neither is given.

    group_size: None keeps the recipe's own. Raises ConversionError.
    """
    if name is not None and bits is not None:
        raise ConversionError("recipe and bits exclude each other; leave one out", "recipe", "bits")
    if name is None and bits is None:
        if group_size is not None:
            message = "group_size has no effect without bits or recipe; leave it out"
            raise ConversionError(message, "group_size", "bits", "recipe")
        return None
    if bits is not None:
        return uniform(bits) if group_size is None else uniform(bits, group_size)
    if name is None or name not in NAMED:
        raise ConversionError(unknown("recipe", str(name), NAMED, f"choose from {', '.join(NAMED)}"))
    recipe = NAMED[name]
    if group_size is None:
        return recipe
    check_affine(4, group_size)
    if not recipe.parts:
        raise ConversionError(f"group_size has no effect with recipe={name!r}; leave it out", "group_size", "recipe")
    parts = {part: Affine(affine.bits, group_size) for part, affine in recipe.parts.items()}
    return Recipe(name, recipe.description, parts)


def part_of(name: str) -> str:
    """Return the part that a module or a tensor belongs to."""
    path = name.rsplit(".", 1)[0] if name.endswith((".weight", ".bias")) else name
    return next((part for part, pattern in PARTS.items() if fnmatchcase(path, pattern)), REST)


def plan(network: nn.Module, recipe: Recipe | None) -> dict[str, Affine]:
    """Return the quantization of each layer of `network` by its path.

    Raises ConversionError if a layer's width is not divisible by its group size.
    """
    layers: dict[str, Affine] = {}
    if recipe is None:
        return layers
    for path, module in network.named_modules():
        affine = recipe.parts.get(part_of(path))
        if affine is None or not isinstance(module, nn.Linear | nn.Embedding):
            continue
        width = module.weight.shape[-1]
        if width % affine.group_size:
            raise ConversionError(
                f"groups of {affine.group_size} do not divide the width {width} of {path}; choose another group_size",
                "group_size",
            )
        layers[path] = affine
    return layers


def config_entry(layers: Mapping[str, Affine]) -> dict[str, object]:
    """Return `quantization` of config.json as mlx-lm writes it: the most frequent setting, and the exceptions."""
    settings = list(layers.values())
    usual = max(settings, key=settings.count)
    exceptions = {path: affine._asdict() for path, affine in layers.items() if affine != usual}
    return {**usual._asdict(), "mode": "affine", **exceptions}
