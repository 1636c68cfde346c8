"""How much memory a training takes, from the shapes of its parameters and of its longest batch."""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
from mlx.utils import tree_flatten

from ..config.model import CodePredictorConfig, TalkerConfig
from ..models.network import Network
from .loss import TrainingSequence, padded
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
    trainable = _arrays(network.trainable_parameters())
    trained = sum(array.size for array in trainable)
    longest = sorted(sequences, key=len)[-options.batch_size :]
    time = padded(max(map(len, longest)))
    frames = sum(len(one) - one.start for one in longest)
    talker = network.talker.config
    predictor = talker.code_predictor_config
    positions: list[tuple[TalkerConfig | CodePredictorConfig, int]] = [
        (talker, time * len(longest)),
        (predictor, padded(frames) * talker.num_code_groups),
    ]
    layers = [count * _floats_per_position(config) for config, count in positions]  # floats of one layer of each kind
    inner = sum(config.num_hidden_layers * one for (config, _), one in zip(positions, layers, strict=True))
    if options.low_memory:  # the inputs of all layers, and one layer with its gradients
        inputs = sum(config.num_hidden_layers * config.hidden_size * count for config, count in positions)
        inner = min(inner, inputs + 3 * max(layers))
    heads = time * len(longest) * talker.vocab_size
    heads += padded(frames) * talker.num_code_groups * predictor.vocab_size
    # An adapter is float32 whatever the weights are, and keeps its layer's input in that type.
    kept = max([network.talker.dtype.size, *(array.dtype.size for array in trainable)])
    activations = inner * kept + 3 * heads * FLOAT32
    return MemoryEstimate(weights, trained * 3 * FLOAT32, activations)


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
