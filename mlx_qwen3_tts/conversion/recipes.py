"""What is stored with how many bits: recipes, which are named mixes.

    network ─ part of each layer ─ recipe ─ plan {module path: Affine} ─ `quantization` of config.json

A part is a group of layers that do the same and are equally sensitive. Whatever a recipe does not name keeps its type:
norms and biases always, the codec's embeddings (they are read one row at a time, so that bits saved there save no time,
and the voices are among them), the speaker encoder and the codec.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import mlx.nn as nn

from ..errors import ConversionError
from .affine import BITS, GROUP_SIZES, Affine

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
    """How each part is quantized; parts that are not named are not."""

    name: str
    about: str
    parts: Mapping[str, Affine]


def _check(bits: int, group_size: int) -> None:
    if bits not in BITS or isinstance(bits, bool):
        raise ConversionError(f"MLX has no weights of {bits} bits; choose from {', '.join(map(str, BITS))}")
    if group_size not in GROUP_SIZES:
        raise ConversionError(f"MLX has no groups of {group_size}; choose from {', '.join(map(str, GROUP_SIZES))}")


def uniform(bits: int, group_size: int = 64) -> Recipe:
    """All linear layers with the same number of bits, the text embedding with 8."""
    _check(bits, group_size)
    parts = dict.fromkeys(LINEAR, Affine(bits, group_size)) | {
        "text embedding": Affine(8, group_size)
    }  # read by rows: fewer save no time
    return Recipe(f"{bits}bit", f"all linear layers at {bits} bits, the text embedding at 8", parts)


# By what benchmarks/sensitivity.py measures and what other projects found; see BENCHMARKS.md.
MIXED_4 = uniform(4).parts | {
    "talker attention": Affine(6),
    "text projection": Affine(8),
    "talker head": Affine(8),
    "code predictor attention": Affine(8),
    "code predictor MLP": Affine(8),
    "code predictor input": Affine(8),
}
RECIPES = {
    recipe.name: recipe
    for recipe in (
        uniform(8),
        uniform(6),
        Recipe(
            "mixed-4",
            "the talker's MLPs and the code predictor's heads at 4 bits, the talker's attention at 6; the code "
            "predictor's layers, the talker's head and the text's way in at 8",
            MIXED_4,
        ),
        uniform(4),
    )
}  # fmt: skip


def find(name: str | None, bits: int | None, group_size: int | None) -> Recipe | None:
    """The recipe that is asked for by name or by bits; None where neither is given. Raises ConversionError."""
    if name is not None and bits is not None:
        raise ConversionError("a recipe and a number of bits exclude each other: leave one out")
    if name is None and bits is None:
        if group_size is not None:
            raise ConversionError("a group size needs a number of bits or a recipe")
        return None
    if name is None:
        return uniform(bits, 64 if group_size is None else group_size)
    if name not in RECIPES:
        raise ConversionError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if group_size is None:
        return recipe
    _check(4, group_size)
    return Recipe(name, recipe.about, {part: Affine(a.bits, group_size) for part, a in recipe.parts.items()})


def part_of(name: str) -> str:
    """The part that a module or a tensor belongs to."""
    path = name.rsplit(".", 1)[0] if name.endswith((".weight", ".bias")) else name
    return next((part for part, pattern in PARTS.items() if fnmatchcase(path, pattern)), REST)


def plan(network: nn.Module, recipe: Recipe | None) -> dict[str, Affine]:
    """How each layer of `network` is quantized, by its path. Raises ConversionError where a group divides no width."""
    result = {}
    for path, module in network.named_modules():
        affine = recipe and recipe.parts.get(part_of(path))
        if affine is None or not isinstance(module, nn.Linear | nn.Embedding):
            continue
        width = module.weight.shape[-1]
        if width % affine.group_size:
            raise ConversionError(
                f"groups of {affine.group_size} do not divide the width {width} of {path}; choose another group size"
            )
        result[path] = affine
    return result


def entry(layers: Mapping[str, Affine]) -> dict[str, object]:
    """The `quantization` of config.json, as mlx-lm writes it: what most layers have, and those that have another."""
    kinds = list(layers.values())
    usual = max(kinds, key=kinds.count)
    others = {path: affine._asdict() for path, affine in layers.items() if affine != usual}
    return {**usual._asdict(), "mode": "affine", **others}
