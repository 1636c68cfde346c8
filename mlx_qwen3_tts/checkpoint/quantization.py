"""Quantized layers of a checkpoint: the format, its description in config.json, and the modules for it.

    config.json `quantization` ─ read_quantization ─► Quantization ─ quantize_layers(network, names in the files)

The convention is that of mlx-lm and mlx-audio: `bits`, `group_size` and `mode` apply to every layer with `.scales` in
the files; an entry under a layer's path overrides them, or is false for a layer that is not quantized.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import mlx.nn as nn

from ..config.schema import quoted
from ..errors import CheckpointError

# The choices of MLX's affine mode.
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
# The modes of mx.quantize with their bits and group sizes.
MODES = {"affine": (BITS, GROUP_SIZES), "mxfp4": ((4,), (32,)), "nvfp4": ((4,), (16,)), "mxfp8": ((8,), (32,))}
SETTINGS = ("bits", "group_size", "mode")
KEY = "config.json.quantization"


class Affine(NamedTuple):
    """Storage of a matrix in the affine mode: `bits` per weight, one scale and bias per `group_size` weights."""

    bits: int
    group_size: int = 64

    def __str__(self) -> str:
        return f"{self.bits} bits, groups of {self.group_size}"


@dataclass(frozen=True)
class LayerQuantization:
    """Arguments of mx.quantize for one layer."""

    bits: int
    group_size: int
    mode: str


@dataclass(frozen=True)
class Quantization:
    """Default quantization parameters and overrides by layer path; None means unquantized."""

    default: LayerQuantization
    layers: dict[str, LayerQuantization | None]

    def of(self, path: str, names: Collection[str]) -> LayerQuantization | None:
        """Return the parameters of the layer at `path`, or None. names: the tensors in the files."""
        if path in self.layers:
            return self.layers[path]
        return self.default if f"{path}.scales" in names else None


def read_quantization(config: dict[str, Any]) -> Quantization | None:
    """Return the quantization that a config.json describes, or None.

    Raises CheckpointError for one that MLX does not support.
    """
    data = config.get("quantization", config.get("quantization_config"))
    if data is None:
        return None
    if not isinstance(data, dict) or "quant_method" in data:
        raise CheckpointError(f"{KEY} is not in MLX's format; this port reads what mlx-lm and mlx-audio write")
    default = _read_settings({name: data.get(name) for name in SETTINGS if name in data}, KEY, "affine")
    layers = {path: _read_layer(value, path, default) for path, value in data.items() if path not in SETTINGS}
    return Quantization(default, layers)


def _read_layer(value: Any, path: str, default: LayerQuantization) -> LayerQuantization | None:
    if isinstance(value, bool):
        return default if value else None
    if not isinstance(value, dict):
        raise CheckpointError(f"{KEY}.{path} is {quoted(value)}; it must be an object, true or false")
    return _read_settings(value, f"{KEY}.{path}", default.mode)


def _read_settings(data: dict[str, Any], key: str, default_mode: str) -> LayerQuantization:
    mode = data.get("mode", default_mode)
    if not isinstance(mode, str) or mode not in MODES:
        raise CheckpointError(f"{key}.mode is {quoted(mode)}; MLX has {', '.join(MODES)}")
    bits, group_sizes = MODES[mode]
    return LayerQuantization(
        bits=_read_choice(data.get("bits"), bits, f"{key}.bits", mode),
        group_size=_read_choice(data.get("group_size"), group_sizes, f"{key}.group_size", mode),
        mode=mode,
    )


def _read_choice(value: Any, choices: tuple[int, ...], key: str, mode: str) -> int:
    if type(value) is not int or value not in choices:  # True is not 1 here
        raise CheckpointError(f"{key} is {quoted(value)}; {mode} has {', '.join(map(str, choices))}")
    return value


def quantize_layers(network: nn.Module, names: Collection[str], quantization: Quantization) -> None:
    """Replace the layers of `network` that are quantized in the files by quantized ones, in place.

    names: the tensors in the files. The new layers have the right shapes and no values yet.
    Raises CheckpointError if a layer's width is not divisible by its group size.
    """

    def parameters(path: str, module: nn.Module) -> dict[str, Any] | bool:
        layer = quantization.of(path, names)
        if layer is None or not hasattr(module, "to_quantized"):
            return False
        width = module.weight.shape[-1]
        if width % layer.group_size:
            raise CheckpointError(f"{KEY}: groups of {layer.group_size} do not divide the width {width} of {path}")
        return asdict(layer)

    nn.quantize(network, class_predicate=parameters)
