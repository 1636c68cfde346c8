"""Gradient descent on a module: batches to weights, step by step.

    batches of a step ─ loss ─ gradients, added up (over processes, too) ─ clip ─ AdamW ─ weights
                          └─ Step ─► caller

A step depends on its number (random numbers, learning rate), on its batches, on the weights and on the optimizer's
state alone, so that a run that was interrupted goes on to the bit. All of it runs on the thread that made the module's
arrays.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from ..errors import TrainingError

# The arguments of a batch -> losses, of which the first one is minimized. All are shares of the step's losses.
Loss = Callable[..., tuple[mx.array, ...]]
Batches = Iterable[tuple[Any, ...]]  # the batches of a step, each as the arguments of the loss


@dataclass(frozen=True)
class DescentOptions:
    """AdamW, and its learning rate: it rises linearly, then it falls with the cosine."""

    steps: int
    learning_rate: float  # the highest
    warm_up: int  # steps in which it rises
    first_rate: float = 0.0
    last_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradients
    seed: int = 0  # seeds what is random in the loss

    def schedule(self) -> Callable[[mx.array], mx.array]:
        """Return the learning rate as a function of the number of steps done."""
        rise = optim.linear_schedule(self.first_rate, self.learning_rate, self.warm_up)
        fall = optim.cosine_decay(self.learning_rate, max(1, self.steps - self.warm_up), self.last_rate)
        return optim.join_schedules([rise, fall], [self.warm_up])


class Step(NamedTuple):
    """A step that has been done."""

    number: int  # from 1
    steps: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float  # since the beginning of this run
    seconds_left: float


class Descent:
    """Trains the trainable parameters of a module."""

    def __init__(self, module: nn.Module, loss: Loss, names: Sequence[str], options: DescentOptions) -> None:
        """names: of the losses that `loss` returns."""
        self.step = 0  # number of steps done
        self.steps = options.steps
        self._module = module
        self._gradient = nn.value_and_grad(module, loss)
        self._names = names
        self._options = options
        self._group = mx.distributed.init()
        self._optimizer = self._new_optimizer()

    def _new_optimizer(self) -> optim.Optimizer:
        options = self._options
        return optim.AdamW(options.schedule(), betas=list(options.betas), weight_decay=options.weight_decay)

    def run(self, batches: Callable[[int], Batches]) -> Iterator[Step]:
        """Take all steps that are left; yields after each.

        batches: given the number of steps done, returns the batches of the next one. Each process has its own; losses
        and gradients are sums over all batches of all processes.
        Raises TrainingError if a loss is not finite; the weights are then those before the step.
        """
        began = time.perf_counter()
        first = self.step
        while self.step < self.steps:
            losses = self._do_step(batches)
            seconds = time.perf_counter() - began
            yield Step(
                number=self.step,
                steps=self.steps,
                losses=losses,
                learning_rate=number(self._optimizer.learning_rate),
                seconds=seconds,
                seconds_left=seconds / (self.step - first) * (self.steps - self.step),
            )

    def _do_step(self, batches: Callable[[int], Batches]) -> dict[str, float]:
        """Take a step; return its losses."""
        options = self._options
        mx.random.seed((options.seed * 1_000_003 + self.step) % 2**32)
        sums, gradients = self._add_up(batches(self.step))
        losses = {name: number(value) for name, value in zip(self._names, sums, strict=True)}
        if not math.isfinite(losses[self._names[0]]):
            raise TrainingError(
                f"the loss of step {self.step + 1} is not finite: learning_rate is {options.learning_rate:g}, try a "
                "lower one, from the beginning",
                "learning_rate",
            )
        gradients, _ = optim.clip_grad_norm(gradients, options.clip)
        self._optimizer.update(self._module, gradients)
        mx.eval(self._module.trainable_parameters(), self._optimizer.state)
        self.step += 1
        return losses

    def _add_up(self, batches: Batches) -> tuple[tuple[mx.array, ...], dict[str, Any]]:
        """Return losses and gradients, float32, summed over all batches of all processes."""
        total: Any = None
        for batch in batches:
            part = tree_map(lambda one: one.astype(mx.float32), self._gradient(*batch))
            total = part if total is None else tree_map(mx.add, total, part)
            mx.eval(total)
        if total is None:  # only other processes have batches
            shapes = (tuple(mx.array(0.0) for _ in self._names), self._module.trainable_parameters())
            total = tree_map(lambda one: mx.zeros(one.shape), shapes)
        if self._group.size() > 1:
            total = tree_map(lambda one: mx.distributed.all_sum(one, group=self._group), total)
        return total

    def last_step(self) -> Step:
        """Return the last step that was done, without its losses and times, which a state does not have."""
        return Step(self.step, self.steps, {}, number(self._optimizer.learning_rate), 0.0, 0.0)

    def measure(self, batch: tuple[Any, ...]) -> tuple[float, float]:
        """Return the seconds that the gradients of a batch take, and an update; the results are dropped."""
        self._measure(batch)  # compiles the kernels
        seconds = self._measure(batch)
        mx.clear_cache()
        return seconds

    def _measure(self, batch: tuple[Any, ...]) -> tuple[float, float]:
        began = time.perf_counter()
        _, gradients = self._gradient(*batch)
        mx.eval(gradients)
        calculated = time.perf_counter()
        mx.eval(self._new_optimizer().apply_gradients(gradients, self._module.trainable_parameters()))
        updated = time.perf_counter()
        return calculated - began, updated - calculated

    @property
    def state(self) -> dict[str, Any]:
        """The weights that are trained and the optimizer's state: with `step`, what a run goes on from."""
        return {"weights": self._module.trainable_parameters(), "optimizer": self._optimizer.state}

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Go on from a state, after a number of steps."""
        self._module.update(state["weights"])
        self._optimizer.state = state["optimizer"]
        mx.eval(self.state)
        self.step = step


@contextmanager
def other_weights(module: nn.Module, weights: dict[str, Any]) -> Iterator[None]:
    """Context manager: a module computes with weights that are made from its own, which the gradients reach."""
    own = module.parameters()
    module.update(weights)
    try:
        yield
    finally:
        module.update(own)


def number(scalar: mx.array) -> float:
    """Return a scalar as a number."""
    return float(np.array(scalar))
