"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685), with the layers and the file format of mlx-lm.

y = W x + scale * (x A) B       A [in, rank], B [rank, out]; W stays as it is, and may be quantized
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..errors import TrainingError
from ..models.network import Network

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PARTS = {"talker": "talker.model.layers.", "predictor": "talker.code_predictor.model.layers."}


@dataclass(frozen=True)
class LoraOptions:
    """Which layers get an adapter, and of what size."""

    rank: int = 16
    scale: float = 2.0  # the factor on the adapter's output; other packages write it as alpha / rank
    dropout: float = 0.0
    parts: Sequence[str] = ("talker", "predictor")
    projections: Sequence[str] = PROJECTIONS
    num_layers: int | None = None  # the last layers of each part; None takes all

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise TrainingError(f"lora must be a whole number above 0, not {self.rank}", "lora")
        if not 0 <= self.dropout < 1:
            raise TrainingError(f"lora_dropout must be a number from 0 to below 1, not {self.dropout}", "lora_dropout")
        if not 0 < self.scale < 1e6:
            raise TrainingError(f"lora_scale must be a number above 0, not {self.scale}", "lora_scale")
        if self.num_layers is not None and self.num_layers < 1:
            raise TrainingError(f"lora_layers must be a whole number above 0, not {self.num_layers}", "lora_layers")
        for name in self.parts:
            if name not in PARTS:
                raise TrainingError(f"unknown part {name!r}: choose from {', '.join(PARTS)}")
        for name in self.projections:
            if name not in PROJECTIONS:
                raise TrainingError(f"unknown projection {name!r}: choose from {', '.join(PROJECTIONS)}")


def lora_keys(network: Network, options: LoraOptions) -> list[str]:
    """Return the paths of the linear layers that get an adapter."""
    counts = {
        "talker": len(network.talker.model.layers),
        "predictor": len(network.talker.code_predictor.model.layers),
    }
    keys = []
    for path, module in network.named_modules():
        if not isinstance(module, nn.Linear | nn.QuantizedLinear):
            continue
        for part in options.parts:
            if not path.startswith(PARTS[part]) or path.rsplit(".", 1)[-1] not in options.projections:
                continue
            number = int(path.removeprefix(PARTS[part]).split(".")[0])
            if options.num_layers is None or number >= counts[part] - options.num_layers:
                keys.append(path)
    return sorted(keys)


def require_mlx_lm() -> None:
    """Raise TrainingError if mlx-lm, which brings the LoRA layers, is not installed."""
    if find_spec("mlx_lm") is None:
        raise TrainingError(
            "training with LoRA needs mlx-lm: install it with `pip install mlx-lm`, or this package with its extra "
            "`train`"
        )


def add_lora(network: Network, options: LoraOptions, seed: int = 0) -> dict[str, object]:
    """Freeze a network and add adapters, which are then its only trainable parameters. On the MLX thread.

    seed: of the initial matrices. Returns the `lora_parameters` of adapter_config.json. Raises TrainingError if mlx-lm
    is not installed.
    """
    require_mlx_lm()
    from mlx_lm.tuner.utils import linear_to_lora_layers

    parameters: dict[str, object] = {
        "rank": options.rank,
        "scale": options.scale,
        "dropout": options.dropout,
        "keys": lora_keys(network, options),
    }
    network.freeze()
    mx.random.seed(seed)
    linear_to_lora_layers(network, 0, parameters)
    return parameters


def lora_weights(network: Network) -> dict[str, mx.array]:
    """Return the adapters' matrices by name."""
    weights: dict[str, mx.array] = {}
    tree_flatten(network.trainable_parameters(), destination=weights)
    return weights
