"""How much memory a training takes, from the shapes of its parameters and of its longest batch."""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
from mlx.utils import tree_flatten

from ..config.model import CodePredictorConfig, TalkerConfig
from ..models.network import Network
from ..models.talker import Talker
from .loss import MULTIPLE, TrainingSequence, padded
from .trainer import TrainingOptions

FLOAT32 = 4  # bytes


class MemoryEstimate(NamedTuple):
    """Bytes."""

    weights: int  # all of them
    training: int  # gradients and the optimizer's two moments, of what is trained
    activations: int  # results that the gradients of the longest batch need

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.training + self.activations


def estimate_memory(
    network: Network, sequences: Sequence[TrainingSequence], options: TrainingOptions
) -> MemoryEstimate:
    """Estimate the peak memory of a training."""
    weights = _bytes(network.parameters())
    trained = sum(array.size for array in _arrays(network.trainable_parameters()))
    longest = sorted(sequences, key=len)[-options.batch_size :]
    time = padded(max(map(len, longest)))
    frames = sum(len(one) - one.start for one in longest)
    size = network.talker.dtype.size
    inner = _layer_floats(network.talker, time * len(longest))
    groups = network.talker.config.num_code_groups
    predictor = network.talker.config.code_predictor_config
    inner += padded(frames) * groups * predictor.num_hidden_layers * _floats_per_position(predictor)
    if options.low_memory:
        inner //= MULTIPLE // 2
    heads = time * len(longest) * network.talker.config.vocab_size + padded(frames) * groups * predictor.vocab_size
    return MemoryEstimate(weights, trained * 3 * FLOAT32, inner * size + 3 * heads * FLOAT32)


def _layer_floats(talker: Talker, positions: int) -> int:
    return positions * talker.config.num_hidden_layers * _floats_per_position(talker.config)


def _floats_per_position(config: TalkerConfig | CodePredictorConfig) -> int:
    """Return the numbers that a layer keeps for each position: its inputs, heads and the inner width of its MLP."""
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    return 6 * config.hidden_size + 4 * heads * config.head_dim + 4 * config.intermediate_size


def _arrays(tree: object) -> list[mx.array]:
    arrays: dict[str, mx.array] = {}
    tree_flatten(tree, destination=arrays)
    return list(arrays.values())


def _bytes(tree: object) -> int:
    return sum(array.nbytes for array in _arrays(tree))
