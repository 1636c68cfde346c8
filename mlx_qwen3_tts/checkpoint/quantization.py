"""Quantized layers of a checkpoint: what config.json says about them, and the modules that hold them.

    config.json `quantization` ─ read_quantization ─► Quantization ─ quantize_layers(network, names in the files)

The convention is mlx-lm's, which mlx-audio shares: `bits`, `group_size` and `mode` for all layers that have `.scales`
in the files, and under a layer's path what it has instead, or false.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn

from ..conversion.affine import BITS, GROUP_SIZES
from ..errors import CheckpointError

# The modes of mx.quantize, with the bits and group sizes that each has.
MODES = {"affine": (BITS, GROUP_SIZES), "mxfp4": ((4,), (32,)), "nvfp4": ((4,), (16,)), "mxfp8": ((8,), (32,))}


@dataclass(frozen=True)
class Quantization:
    """What layers have that are not named, and those that are: bits, group_size and mode, or None: not quantized."""

    default: dict[str, Any]
    layers: dict[str, dict[str, Any] | None]


def read_quantization(config: dict[str, Any]) -> Quantization | None:
    """The quantization that a config.json tells of. Raises CheckpointError for one that MLX does not have."""
    data = config.get("quantization", config.get("quantization_config"))
    if data is None:
        return None
    if not isinstance(data, dict) or "quant_method" in data:
        raise CheckpointError("config.json.quantization is not of MLX; this port reads what mlx-lm and mlx-audio write")
    default = _settings({k: v for k, v in data.items() if k in ("bits", "group_size", "mode")}, "", "affine")
    layers = {}
    for path, value in data.items():
        if path not in ("bits", "group_size", "mode"):
            layers[path] = _layer(value, path, default)
    return Quantization(default, layers)


def _layer(value: Any, path: str, default: dict[str, Any]) -> dict[str, Any] | None:
    if isinstance(value, bool):
        return default if value else None
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json.quantization.{path} is {str(value)[:60]!r}, which is no quantization")
    return _settings(value, f".{path}", default["mode"])


def _settings(data: dict[str, Any], where: str, mode: str) -> dict[str, Any]:
    """bits, group_size and mode, checked."""
    mode = data.get("mode", mode)
    known = MODES.get(mode) if isinstance(mode, str) else None
    if known is None:
        raise CheckpointError(f"config.json.quantization{where}.mode is {str(mode)[:60]!r}; MLX has {', '.join(MODES)}")
    for key, choices in zip(("bits", "group_size"), known, strict=True):
        value = data.get(key)
        if type(value) is not int or value not in choices:
            has = ", ".join(map(str, choices))
            raise CheckpointError(f"config.json.quantization{where}.{key} is {str(value)[:60]!r}; {mode} has {has}")
    return {"bits": data["bits"], "group_size": data["group_size"], "mode": mode}


def quantize_layers(network: nn.Module, names: Collection[str], quantization: Quantization) -> None:
    """Make those layers of `network` quantized ones that are so in files with tensors called `names`.

    Nothing is computed: the numbers are read later. Raises CheckpointError for a width that no group divides.
    """

    def settings(path: str, module: nn.Module) -> dict[str, Any] | bool:
        named = path in quantization.layers
        found = quantization.layers[path] if named else quantization.default
        if not hasattr(module, "to_quantized") or found is None or not (named or f"{path}.scales" in names):
            return False
        width = module.weight.shape[-1]
        if width % found["group_size"]:
            raise CheckpointError(
                f"config.json.quantization: groups of {found['group_size']} do not divide the width {width} of {path}"
            )
        return dict(found)

    nn.quantize(network, class_predicate=settings)
