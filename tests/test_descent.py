"""Gradient descent: sums over batches, the learning rate, and what a loss that is not finite leaves."""

import itertools

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_qwen3_tts import TrainingError
from mlx_qwen3_tts.training.descent import Descent, DescentOptions, other_weights

OPTIONS = DescentOptions(steps=8, learning_rate=0.1, warm_up=2, first_rate=0.02, last_rate=0.01)
ROWS = mx.array(np.random.RandomState(0).randn(6, 3).astype(np.float32))


def linear() -> nn.Linear:
    mx.random.seed(1)
    return nn.Linear(3, 1)


def descent(module, options=OPTIONS) -> Descent:
    """Bring the outputs of a layer to 1; the losses are shares of the mean over all rows."""

    def loss(rows: mx.array) -> tuple[mx.array, mx.array]:
        error = mx.square(module(rows) - 1).sum() / len(ROWS)
        return error, rows.sum()

    return Descent(module, loss, ("error", "sum"), options)


def test_it_descends():
    """The rate rises to its peak and falls; each step says what it was."""
    steps = list(descent(linear()).run(lambda step: [(ROWS,)]))
    assert [step.number for step in steps] == list(range(1, 9))
    rates = [step.learning_rate for step in steps]
    np.testing.assert_allclose(rates[:3], [0.02, 0.06, 0.1], rtol=1e-6)
    assert all(np.diff(rates[2:]) < 0)
    assert 0.01 < rates[-1] < 0.02
    assert steps[-1].losses["error"] < 0.5 * steps[0].losses["error"]
    assert steps[0].losses["sum"] == pytest.approx(ROWS.sum().item())
    assert steps[0].seconds_left > 0 == steps[-1].seconds_left


def test_batches_of_a_step_add_up():
    modules = [linear(), linear()]
    cuts = [[(ROWS,)], [(ROWS[:1],), (ROWS[1:4],), (ROWS[4:],)]]
    whole, parts = (
        list(descent(module).run(lambda step, cut=cut: cut)) for module, cut in zip(modules, cuts, strict=True)
    )
    for one, other in zip(whole, parts, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
    np.testing.assert_allclose(modules[0].weight, modules[1].weight, rtol=1e-5)


def test_a_step_depends_on_its_number():
    """Batches are asked for by the number of steps done, and random numbers follow from it."""
    asked = []

    def noises(descent: Descent, count: int) -> list[float]:
        def batches(step: int) -> list[tuple[mx.array]]:
            asked.append(step)
            return [(mx.random.normal((1, 3)),)]

        steps = descent.run(batches)
        return [next(steps).losses["sum"] for _ in range(count)]

    whole = noises(descent(linear()), 4)
    second = descent(linear())
    second.restore(descent(linear()).state, 2)
    assert noises(second, 2) == whole[2:]
    assert len(set(whole)) == 4
    assert asked == [0, 1, 2, 3, 2, 3]


def test_a_loss_that_is_not_finite_changes_nothing():
    module = linear()
    before = np.array(module.weight)
    steps = descent(module).run(lambda step: [(ROWS * np.nan,)])
    with pytest.raises(TrainingError, match=r"the loss of step 1 is not finite: learning_rate is 0\.1, try a lower"):
        next(steps)
    np.testing.assert_array_equal(module.weight, before)


def test_gradients_are_clipped():
    """AdamW's moments show what it was given."""
    module = linear()
    trained = descent(module, DescentOptions(steps=2, learning_rate=0.1, warm_up=1, clip=1e-3))
    next(trained.run(lambda step: [(100 * ROWS,)]))
    moments = [np.array(trained.state["optimizer"][name]["m"]) for name in ("weight", "bias")]
    norm = np.sqrt(sum(np.square(one).sum() for one in moments)) / (1 - 0.9)
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_step_without_batches():
    """One process of several may have none; the others' are what is added to its zeros."""
    module = linear()
    before = np.array(module.weight)
    step = next(descent(module).run(lambda step: []))
    assert step.losses == {"error": 0.0, "sum": 0.0}
    np.testing.assert_allclose(module.weight, before * (1 - 0.02 * 0.01), rtol=1e-6)  # the decay alone


def test_the_moments_of_the_gradients():
    """They decay by 0.9 and 0.95."""
    module = linear()
    trained = descent(module)
    next(trained.run(lambda step: [(ROWS,)]))
    moments = trained.state["optimizer"]["weight"]
    np.testing.assert_allclose(moments["v"], 0.05 * np.square(np.array(moments["m"]) / 0.1), rtol=1e-5)


def test_the_time_that_is_left(monkeypatch):
    """By a clock that shows 10 s after each step, from the step at which this run began."""
    monkeypatch.setattr("time.perf_counter", itertools.count(0.0, 10.0).__next__)
    trained = descent(linear())
    trained.restore(trained.state, 2)
    steps = list(trained.run(lambda step: [(ROWS,)]))
    assert [step.seconds for step in steps] == [10, 20, 30, 40, 50, 60]
    assert [step.seconds_left for step in steps] == [50, 40, 30, 20, 10, 0]


def test_other_weights():
    """The module computes with them, gradients reach its own, and these are back afterwards."""
    module = linear()
    own = np.array(module.weight)

    def loss(rows: mx.array) -> mx.array:
        with other_weights(module, {"weight": 2 * module.weight}):
            return module(rows).sum()

    value, gradients = nn.value_and_grad(module, loss)(ROWS)
    np.testing.assert_allclose(value, (np.array(ROWS) @ (2 * own.T) + np.array(module.bias)).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradients["weight"][0], 2 * np.array(ROWS).sum(0), rtol=1e-5)
    np.testing.assert_array_equal(module.weight, own)
