"""The trainer: epochs over sequences, on the MLX thread.

    sequences ─ order of the epoch ─ micro-batches of each step ─ Descent ─ weights ─ evaluation ─ the best so far?
                                                                     └─ Progress ─► caller ◄───────────┘

A step's sequences depend on its number alone, so that a run that was interrupted goes on to the bit. Each process of
`mlx.launch` takes its share of each batch. Losses are means over all predictions of a step, however they are spread
over micro-batches and processes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from ..errors import TrainingError
from ..generation.engine import Engine
from ..models.cache import Cache
from ..models.network import Network
from ..models.qwen3 import RotaryEmbedding, call_layer
from .descent import Descent, DescentOptions, Step, number, other_weights
from .loss import Totals, TrainingBatch, TrainingSequence, collate, losses, mean_loss
from .run_state import read_facts, read_state, run_identity, write_run

FORWARD_SHARE = 1 / 3  # the forward pass's share of the time of a batch with its gradients
LOSSES = ("loss", "talker", "predictor")


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. Raises TrainingError for values out of range."""

    epochs: int = 10
    batch_size: int = 1  # sequences whose gradients are computed together
    accumulate: int = 4  # such batches in a step
    learning_rate: float = 1e-4
    warm_up: float = 0.05  # share of the steps in which the rate rises
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradients
    seed: int = 0
    low_memory: bool = False  # compute each layer twice in place of keeping what is inside it

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"seed must be a whole number from 0 to {2**32 - 1}, not {self.seed}", "seed")
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be a whole number above 0, not {getattr(self, name)}", name)
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise TrainingError(f"{name} must be a number above 0, not {value}", name)


@dataclass(frozen=True)
class Progress:
    """A step of training."""

    step: int  # from 1
    steps: int
    epoch: int  # from 1
    talker_loss: float  # cross-entropy of codebook 0 and the end, in nats
    predictor_loss: float  # cross-entropy of codebooks 1..15
    learning_rate: float
    seconds: float  # since the beginning of this run
    seconds_left: float
    validation: tuple[float, float] | None = None  # both losses on held-out sequences, at the end of an epoch
    epoch_loss: tuple[float, float] | None = None  # means of both losses over the steps of an epoch, at its end
    is_best: bool = False  # the validation loss, or without one the epoch's, is the lowest so far


class Trainer:
    """Trains the trainable parameters of a network. Load the model with `fused=False`."""

    def __init__(
        self, engine: Engine, train: Sequence[TrainingSequence], held_out: Sequence[TrainingSequence],
        options: TrainingOptions, dtype: mx.Dtype | None = None, description: str = "",
    ) -> None:  # fmt: skip
        """dtype: to compute in, while the weights and the optimizer's state stay float32; None takes the weights' own.
        description: of all else that a run depends on; only a run of the same description is resumed.

        Raises TrainingError without sequences.
        """
        if not train:
            raise TrainingError("there is nothing to train on: all clips were left out")
        self._engine = engine
        self._network: Network = engine.network
        self._train = list(train)
        self._held_out = list(held_out)
        self._options = options
        self._dtype = dtype
        self._end = engine.config.talker_config.codec_eos_token_id
        self._group = mx.distributed.init()
        per_step = options.batch_size * options.accumulate * self._group.size()
        self.steps_per_epoch = -(-len(self._train) // per_step)
        self.steps = self.steps_per_epoch * options.epochs
        self._descent = engine.worker.run(Descent, self._network, self._loss, LOSSES, self._descent_options())
        self._apply_layer = checkpointed_layer if options.low_memory else call_layer
        self._identity = run_identity(asdict(options), [*train, *held_out], self._group.size(), description)
        self.best = math.inf
        self._epoch_losses: list[tuple[float, float]] = []  # this epoch's steps, until its end is evaluated

    def _descent_options(self) -> DescentOptions:
        options = self._options
        warm = max(1, round(options.warm_up * self.steps))
        return DescentOptions(
            steps=self.steps,
            learning_rate=options.learning_rate,
            warm_up=warm,
            first_rate=options.learning_rate / warm,
            last_rate=0.01 * options.learning_rate,
            weight_decay=options.weight_decay,
            clip=options.clip,
            seed=options.seed,
        )

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self._descent.step

    @property
    def is_main(self) -> bool:
        """True in the process that writes files: the first one."""
        return self._group.rank() == 0

    def run(self) -> Iterator[Progress]:
        """Train to the end, from the step that was reached; yields after each step.

        Raises TrainingError if a loss is not finite.
        """
        run = self._engine.worker.run
        steps = self._steps()
        while (step := run(next, steps, None)) is not None:
            talker, predictor = self._epoch_losses[-1]
            validation = None
            epoch_loss = None
            is_best = False
            if step.number % self.steps_per_epoch == 0:
                validation = run(self.evaluate) if self._held_out else None
                epoch_loss = self._mean_of_epoch()
                is_best = self._note_epoch(validation or epoch_loss)
            yield Progress(
                step=step.number,
                steps=step.steps,
                epoch=1 + (step.number - 1) // self.steps_per_epoch,
                talker_loss=talker,
                predictor_loss=predictor,
                learning_rate=step.learning_rate,
                seconds=step.seconds,
                seconds_left=step.seconds_left,
                validation=validation,
                epoch_loss=epoch_loss,
                is_best=is_best,
            )

    def _steps(self) -> Iterator[Step]:
        """Take the steps that are left, and note the losses of each in the same job, whole if Ctrl-C comes meanwhile.

        The first one was taken before if Ctrl-C met the evaluation at the end of its epoch.
        """
        if self._epoch_losses and self.step % self.steps_per_epoch == 0:
            yield self._descent.last_step()
        for step in self._descent.run(self._batches):
            self._epoch_losses.append((step.losses["talker"], step.losses["predictor"]))
            yield step

    def _mean_of_epoch(self) -> tuple[float, float]:
        talker, predictor = np.mean(self._epoch_losses, axis=0)
        return float(talker), float(predictor)

    def _note_epoch(self, losses: tuple[float, float]) -> bool:
        reached = sum(losses)
        self._epoch_losses.clear()
        is_best = reached < self.best
        self.best = min(self.best, reached)
        return is_best

    def _sequences_of_step(self, step: int) -> list[TrainingSequence]:
        """Return all sequences of a step, of all processes. step: number of steps done before."""
        options = self._options
        epoch, number = divmod(step, self.steps_per_epoch)
        order = np.random.RandomState([options.seed, epoch]).permutation(len(self._train))
        per_step = options.batch_size * options.accumulate * self._group.size()
        return [self._train[i] for i in order[number * per_step : (number + 1) * per_step]]

    def _batches(self, step: int) -> Iterator[tuple[TrainingBatch, Totals]]:
        """Yield the batches of a step that are this process's own."""
        sequences = self._sequences_of_step(step)
        own = sequences[self._group.rank() :: self._group.size()]
        return self._collated(own, Totals.of(sequences))

    def _collated(
        self, sequences: Sequence[TrainingSequence], totals: Totals
    ) -> Iterator[tuple[TrainingBatch, Totals]]:
        size = self._options.batch_size
        for start in range(0, len(sequences), size):
            yield collate(sequences[start : start + size], self._end), totals

    def _loss(self, batch: TrainingBatch, totals: Totals) -> tuple[mx.array, ...]:
        """Return a batch's shares of LOSSES, which are means over `totals`."""
        weights = self._network.parameters()
        if self._dtype is not None:
            weights = tree_map(partial(cast, dtype=self._dtype), weights)
        with other_weights(self._network, weights):
            sums = losses(self._network.talker, batch, self._apply_layer)
        return mean_loss(sums, totals), sums.talker / totals.targets, sums.predictor / totals.residuals

    def evaluate(self) -> tuple[float, float]:
        """Return the losses of talker and predictor on the held-out sequences. On the MLX thread."""
        talker = 0.0
        predictor = 0.0
        self._network.eval()
        for batch, totals in self._collated(self._held_out, Totals.of(self._held_out)):
            _, talker_share, predictor_share = self._loss(batch, totals)
            talker += number(talker_share)
            predictor += number(predictor_share)
        self._network.train()
        return talker, predictor

    def estimate_seconds(self) -> float:
        """Return how long the rest of the run will take, by the time of one batch and of one update.

        Their results are dropped: the run is the same, to the bit, as without this call.
        """
        return self._engine.worker.run(self._estimate_seconds)

    def _estimate_seconds(self) -> float:
        sequences = self._sequences_of_step(self.step)[: self._options.batch_size]
        batch = next(self._collated(sequences, Totals.of(sequences)))
        seconds_of_batch, seconds_of_update = self._descent.measure(batch)
        positions = sum(map(len, self._train)) / self._group.size() + FORWARD_SHARE * sum(map(len, self._held_out))
        batches = positions / sum(map(len, sequences))  # in an epoch
        seconds = batches * seconds_of_batch + self.steps_per_epoch * seconds_of_update
        return seconds * (self.steps - self.step) / self.steps_per_epoch

    # Interruption

    def save_state(self, path: Path) -> None:
        """Write what `load_state` needs, all of it or nothing. Raises TrainingError if it cannot be written."""
        facts = {"step": self.step, "best": self.best, "run": self._identity, "losses": self._epoch_losses}
        try:
            self._engine.worker.run(lambda: write_run(path, self._descent.state, facts))
        except (OSError, RuntimeError) as error:  # the latter is MLX's
            reason = getattr(error, "strerror", None) or error
            raise TrainingError(
                f"cannot save the state of step {self.step} in {path} ({reason}): free some space; the last one that "
                "was saved is kept"
            ) from None

    def load_state(self, path: Path) -> None:
        """Go on where a run of the same data and options was interrupted. Raises TrainingError."""
        facts = read_facts(path, self._identity)
        self._engine.worker.run(lambda: self._descent.restore(read_state(path), facts["step"]))
        self.best = facts["best"]
        self._epoch_losses = [(talker, predictor) for talker, predictor in facts["losses"]]


def cast(parameter: mx.array, dtype: mx.Dtype) -> mx.array:
    """Return a parameter as `dtype`; packed integers stay as they are."""
    if not mx.issubdtype(parameter.dtype, mx.floating):
        return parameter
    return parameter.astype(dtype)


def checkpointed_layer(layer: nn.Module, x: mx.array, cache: Cache, rotation: RotaryEmbedding) -> mx.array:
    """Run a layer whose inner results are computed again for its gradients, in place of being kept."""

    def call(parameters: dict, x: mx.array) -> mx.array:
        layer.update(parameters)
        return layer(x, cache, rotation)

    return mx.checkpoint(call)(layer.trainable_parameters(), x)
