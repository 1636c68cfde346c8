"""Recipes at released sizes, and the README's table of them."""

import re
from math import prod
from pathlib import Path

import pytest

from mlx_qwen3_tts.checkpoint.quantization import Affine
from mlx_qwen3_tts.config.model import ModelConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.conversion.recipes import PARTS, RECIPES, config_entry, find, part_of, plan
from mlx_qwen3_tts.models.network import Network
from tests.support import released

README = Path(__file__).parents[1] / "README.md"


def network(name: str) -> Network:
    return Network(from_dict(ModelConfig, released.config(name), "config.json"))


def stored_bytes(name: str, shape: tuple[int, ...], size: int, layers: dict[str, Affine]) -> int:
    """Return the bytes of the tensor `name`. size: of one item that is not quantized. layers: from `plan`."""
    count, affine = prod(shape), layers.get(name.removesuffix(".weight"))
    if affine is None or not name.endswith(".weight"):
        return count * size
    return count * affine.bits // 8 + 2 * size * count // affine.group_size


def gigabytes(name: str, recipe: str | None) -> float:
    """Return the size of a released model's weights under a recipe, with the codec's, from the shapes alone."""
    layers = plan(network(name), RECIPES.get(recipe))
    size = sum(stored_bytes(tensor, shape, 2, layers) for tensor, shape in released.tensors(name).items())
    return (size + sum(stored_bytes(tensor, shape, 4, {}) for tensor, shape in released.codec_tensors().items())) / 1e9


def test_readme_sizes():
    """Every figure of the table, for every recipe."""
    rows = re.findall(r"^\| `?([\w-]+)`? \|[^|]*\|(.*)\|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    table = {
        name: [cell.strip() for cell in cells.split("|")] for name, cells in rows if name in {*RECIPES, "bfloat16"}
    }
    assert table.keys() == {*RECIPES, "bfloat16"}
    for recipe, cells in table.items():
        assert cells == [f"{gigabytes(name, recipe):.2f}" for name in released.MODELS], recipe


def test_every_tensor_has_a_part():
    """Every part has tensors, and only norms belong to no part."""
    names = released.tensors("1.7B-Base")
    assert {part_of(name) for name in names} == {*PARTS, "norms"}
    assert all("norm" in name for name in names if part_of(name) == "norms")
    assert part_of("talker.model.layers.27.self_attn.q_proj.weight") == "talker attention"
    assert part_of("talker.code_predictor.model.layers.0.self_attn.q_proj") == "code predictor attention"
    assert part_of("talker.code_predictor.model.codec_embedding.14.weight") == "codec embeddings"
    assert part_of("talker.model.codec_embedding.weight") == "codec embeddings"
    assert part_of("talker.text_projection.linear_fc1.bias") == "text projection"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["0.6B-Base", "1.7B-VoiceDesign"])
def test_plan_of_released_models(name, recipe):
    """Layers that are fused at load time have the same bits; embeddings and the speaker encoder are as planned."""
    model = network(name)
    layers = plan(model, RECIPES[recipe])
    for path in layers:
        for one, others in (("q_proj", ("k_proj", "v_proj")), ("gate_proj", ("up_proj",))):
            if path.endswith(one):
                assert all(layers[path.replace(one, other)] == layers[path] for other in others)
    assert layers["talker.model.text_embedding"].bits == 8
    assert not any("codec_embedding" in path or "speaker_encoder" in path for path in layers)
    linear = 28 * 7 + 5 * 7 + 15 + 2 + 1 + (name.startswith("1.7B"))
    assert len(layers) == linear + 1
    data = config_entry(layers)
    for path, affine in layers.items():
        settings = data.get(path, data)
        assert Affine(settings["bits"], settings["group_size"]) == affine


def test_mixed_4_keeps_the_code_predictor():
    parts = RECIPES["mixed-4"].parts
    assert parts["code predictor attention"].bits == parts["code predictor MLP"].bits == 8
    assert parts["code predictor heads"].bits == parts["talker MLP"].bits == 4
    assert parts["talker attention"].bits == 6


def test_group_size_of_a_recipe():
    found = find("mixed-4", None, 32)
    assert {affine.group_size for affine in found.parts.values()} == {32}
    assert found.parts["talker MLP"].bits == 4
    assert find(None, None, None) is None


def test_the_entry_of_a_config_is_the_most_frequent_setting_with_its_exceptions():
    """As mlx-lm writes it, and reads it."""
    layers = {"a": Affine(8), "b": Affine(4, 32), "c": Affine(4, 32), "d": Affine(8, 32)}
    assert config_entry(layers) == {
        "bits": 4, "group_size": 32, "mode": "affine",
        "a": {"bits": 8, "group_size": 64}, "d": {"bits": 8, "group_size": 32},
    }  # fmt: skip
