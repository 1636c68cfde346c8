"""Training: it learns, goes on after an interruption to the bit, and gives the same in several processes."""

import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_qwen3_tts import Qwen3TTS, Sampling, TrainingError, VoiceClonePrompt
from mlx_qwen3_tts.generation.engine import Engine
from mlx_qwen3_tts.generation.frames import FrameFunctions
from mlx_qwen3_tts.models.qwen3 import call_layer
from mlx_qwen3_tts.training.lora import LoraOptions, add_lora, lora_keys, lora_weights
from mlx_qwen3_tts.training.loss import collate, losses
from mlx_qwen3_tts.training.memory import estimate_memory
from mlx_qwen3_tts.training.trainer import Trainer, TrainingOptions, checkpointed_layer
from tests.support import training
from tests.support.process import ROOT

GREEDY = Sampling(do_sample=False, subtalker_dosample=False, repetition_penalty=1.0)
SHORT = TrainingOptions(epochs=3, batch_size=2, accumulate=1, learning_rate=1e-3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return training.write_base(tmp_path_factory.mktemp("training") / "base")


def repeats(engine, sequences) -> list[bool]:
    """Whether greedy generation gives the codes of each sequence and ends after them."""
    engine.functions = FrameFunctions(engine.talker, compiled=False)
    engine.prefixes = None
    tts = Qwen3TTS("trained", engine)
    voice = VoiceClonePrompt(speaker_embedding=training.voice_of(engine))
    engine.network.eval()
    found = []
    for text, one in zip(training.TEXTS, sequences, strict=False):
        result = tts.synthesize(text, voice=voice, sampling=GREEDY, max_frames=12, stop_runaway=False)
        found.append(np.array_equal(result.codes, one.codes[one.start :]) and result.finish_reason == "stop")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_it_learns_to_repeat(directory, kind):
    """Until greedy generation gives each clip's codes exactly: the loss has generation's own alignment."""
    engine = training.load(directory)
    sequences = training.sequences(engine, 3)
    options = TrainingOptions(epochs=40, batch_size=3, accumulate=1, learning_rate=1e-2)
    if kind == "lora":
        engine.worker.run(add_lora, engine.network, LoraOptions(rank=16, scale=4.0))
        options = replace(options, epochs=70)
    assert repeats(engine, sequences) == [False] * 3
    engine.network.train()
    trainer = Trainer(engine, sequences, [], options)
    progress = list(trainer.run())
    assert repeats(engine, sequences) == [True] * 3
    assert progress[-1].talker_loss < 0.05 < progress[0].talker_loss


def weights_of(engine) -> dict[str, np.ndarray]:
    return engine.worker.run(
        lambda: {name: np.array(array) for name, array in tree_flatten(engine.network.trainable_parameters())}
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_an_interrupted_run_goes_on_to_the_bit(directory, tmp_path, kind):
    def trainer() -> tuple[Trainer, object]:
        engine = training.load(directory)
        if kind == "lora":
            engine.worker.run(add_lora, engine.network, LoraOptions(rank=4, dropout=0.2))
        return Trainer(engine, training.sequences(engine, 5), training.sequences(engine, 2), SHORT), engine

    whole, engine = trainer()
    expected = list(whole.run())
    first, _ = trainer()
    for progress in first.run():
        if progress.step == 4:
            break
    first.save_state(tmp_path / "state")
    second, resumed = trainer()
    second.load_state(tmp_path / "state")
    assert second.step == 4
    rest = list(second.run())
    assert len(expected) == 9
    for one, other in zip(rest, expected[4:], strict=True):
        assert (one.talker_loss, one.predictor_loss, one.validation, one.is_best) == (
            other.talker_loss, other.predictor_loss, other.validation, other.is_best,
        )  # fmt: skip
    for name, array in weights_of(engine).items():
        np.testing.assert_array_equal(weights_of(resumed)[name], array, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupted_evaluation_is_made_up_for(directory, tmp_path, epoch):
    """Ctrl-C between the last step of an epoch and the end of its evaluation; the third epoch is the last one."""

    def trainer() -> Trainer:
        engine = training.load(directory)
        return Trainer(engine, training.sequences(engine, 5), training.sequences(engine, 2), SHORT)

    expected = list(trainer().run())
    first = trainer()
    evaluate = first.evaluate

    def evaluate_until(*_args) -> tuple[float, float]:
        if first.step == 3 * epoch:
            raise KeyboardInterrupt
        return evaluate()

    first.evaluate = evaluate_until
    with pytest.raises(KeyboardInterrupt):
        list(first.run())
    assert first.step == 3 * epoch
    first.save_state(tmp_path / "state")
    second = trainer()
    second.load_state(tmp_path / "state")
    found = [(one.step, one.talker_loss, one.epoch_loss, one.validation, one.is_best) for one in second.run()]
    assert found == [
        (one.step, one.talker_loss, one.epoch_loss, one.validation, one.is_best) for one in expected[3 * epoch - 1 :]
    ]  # fmt: skip


def test_losses_are_means_over_all_predictions(directory):
    """Of a step and of an evaluation, in batches of two and one."""
    engine = training.load(directory)
    clips = training.sequences(engine, 3)

    def means() -> tuple[float, float]:
        sums = losses(engine.talker, collate(clips, engine.config.talker_config.codec_eos_token_id))
        frames = sum(len(one) - one.start for one in clips)
        return sums.talker.item() / (frames + 3), sums.predictor.item() / (15 * frames)

    expected = engine.worker.run(means)
    trainer = Trainer(engine, clips, clips, replace(SHORT, epochs=1, accumulate=2))
    assert engine.worker.run(trainer.evaluate) == pytest.approx(expected, rel=1e-5)
    (progress,) = trainer.run()
    assert (progress.talker_loss, progress.predictor_loss) == pytest.approx(expected, rel=1e-5)
    assert progress.validation == pytest.approx(engine.worker.run(means), rel=1e-5)
    assert sum(progress.validation) < sum(expected)


def test_the_course_of_a_run(directory):
    """The loss of an epoch is the mean of its steps; the rate rises for 3 of 9, then falls to a hundredth."""
    engine = training.load(directory)
    options = replace(SHORT, warm_up=0.3)
    progress = list(Trainer(engine, training.sequences(engine, 5), [], options).run())
    rise = [1 / 3 + 2 / 3 * done / 3 for done in range(3)]
    fall = [0.01 + 0.99 * (1 + np.cos(np.pi * done / 6)) / 2 for done in range(6)]
    np.testing.assert_allclose([one.learning_rate for one in progress], 1e-3 * np.array(rise + fall), rtol=1e-4)
    assert [(one.step, one.steps, one.epoch) for one in progress] == [(i + 1, 9, 1 + i // 3) for i in range(9)]
    assert [one.epoch_loss is not None for one in progress] == 3 * [False, False, True]
    for number in range(3):
        steps = progress[3 * number : 3 * number + 3]
        means = np.mean([(one.talker_loss, one.predictor_loss) for one in steps], axis=0)
        np.testing.assert_allclose(steps[-1].epoch_loss, means)
        assert means[0] != steps[-1].talker_loss


def test_an_estimate_of_the_time_changes_nothing(directory):
    """Neither the losses nor the weights, to the bit, with dropout and in bfloat16; also in the middle of a run."""
    short = replace(SHORT, epochs=2)

    def run(estimates: bool) -> tuple[list, dict]:
        engine = training.load(directory)
        engine.worker.run(add_lora, engine.network, LoraOptions(rank=4, dropout=0.2))
        trainer = Trainer(engine, training.sequences(engine, 5), training.sequences(engine, 2), short, mx.bfloat16)
        losses_ = []
        if estimates:
            assert trainer.estimate_seconds() > 0
        for progress in trainer.run():
            losses_.append((progress.talker_loss, progress.predictor_loss, progress.validation))
            if estimates and progress.step == 4:
                trainer.estimate_seconds()
        return losses_, weights_of(engine)

    (expected, weights), (found, others) = run(False), run(True)
    assert found == expected
    for name, array in weights.items():
        np.testing.assert_array_equal(others[name], array, err_msg=name)


def test_the_time_is_that_of_all_batches_and_updates(directory, monkeypatch):
    """By a clock that ticks at each look: a batch takes a second, and an update."""
    engine = training.load(directory)
    sequences = training.sequences(engine, 4)
    same = [sequences[0]] * 6
    monkeypatch.setattr("time.perf_counter", itertools.count(1.0).__next__)
    options = replace(SHORT, epochs=2, batch_size=1, accumulate=2)
    trainer = Trainer(engine, same, same[:3], options)
    assert trainer.steps == 6
    assert trainer.estimate_seconds() == pytest.approx(2 * (6 + 3 / 3) + 6)
    for _ in itertools.islice(trainer.run(), 3):
        pass
    assert trainer.estimate_seconds() == pytest.approx(6 + 3 / 3 + 3)


def test_a_state_of_another_run_is_refused(directory, tmp_path):
    engine = training.load(directory)
    trainer = Trainer(engine, training.sequences(engine, 3), [], SHORT)
    next(trainer.run())
    trainer.save_state(tmp_path / "state")
    for options, count in ((replace(SHORT, learning_rate=1e-4), 3), (SHORT, 2)):
        other = Trainer(engine, training.sequences(engine, count), [], options)
        with pytest.raises(TrainingError, match=r"its (learning_rate|data) is not that of this run"):
            other.load_state(tmp_path / "state")
    other = Trainer(engine, training.sequences(engine, 3), [], SHORT, description="another model")
    with pytest.raises(TrainingError, match="its model and adapters is not that of this run"):
        other.load_state(tmp_path / "state")
    facts = tmp_path / "state" / "state.json"
    facts.write_text(facts.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(TrainingError, match="another version of this package has written it"):
        trainer.load_state(tmp_path / "state")
    facts.write_text("{")
    with pytest.raises(TrainingError, match=r"cannot resume from .*: Expecting"):
        trainer.load_state(tmp_path / "state")
    with pytest.raises(TrainingError, match="there is no interrupted run"):
        trainer.load_state(tmp_path / "missing")


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(directory):
    """With half of each batch each, over MLX's ring on the loopback."""
    options = TrainingOptions(epochs=1, batch_size=2, accumulate=2, learning_rate=1e-3)
    expected = training.loss_curve(directory, options)
    done = subprocess.run(
        [f"{sys.prefix}/bin/mlx.launch", "-n", "2", "--backend", "ring", "--", sys.executable, "-m",
         "tests.support.training", directory],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, rtol=1e-5)


def test_gradients_do_not_depend_on_micro_batches(directory):
    """A step of one batch of 4 is one of 4 batches of 1."""
    curves = [
        training.loss_curve(directory, TrainingOptions(epochs=2, batch_size=size, accumulate=4 // size), 4)
        for size in (4, 2, 1)
    ]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    np.testing.assert_allclose(curves[2], curves[0], rtol=1e-5)


def test_low_memory_gives_the_same(directory, spy):
    calls = spy(mx, "checkpoint")
    options = TrainingOptions(epochs=2, batch_size=2, accumulate=2, learning_rate=1e-3)
    curves = [training.loss_curve(directory, replace(options, low_memory=low), 4) for low in (False, True)]
    assert calls
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-6)


def test_low_memory_takes_less(directory):
    engine = training.load(directory)
    batch = collate([replace_frames(one, 200) for one in training.sequences(engine, 2)], end=0)

    def peak(apply_layer) -> int:
        def loss(parameters: dict) -> mx.array:
            engine.network.update(parameters)
            return losses(engine.talker, batch, apply_layer).talker

        mx.eval(batch)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.grad(loss)(engine.network.parameters()))
        return mx.get_peak_memory() - before

    plain = engine.worker.run(peak, call_layer)
    low = engine.worker.run(peak, checkpointed_layer)
    print(f"{plain} bytes, {low} with low_memory")
    assert low < 0.9 * plain


def replace_frames(one, frames: int):
    """A sequence of more frames."""
    codes = np.tile(one.codes[one.start :], (frames, 1))[:frames]
    return replace(
        one,
        text=np.concatenate([one.text[: one.start], np.full(frames, one.text[-1])]),
        codes=np.concatenate([one.codes[: one.start], codes]),
    )


def test_bfloat16_keeps_float32_weights(directory):
    """Steps that bfloat16 would round away add up."""
    engine = training.load(directory)
    options = TrainingOptions(epochs=3, batch_size=2, accumulate=1, learning_rate=1e-6, weight_decay=0.0)
    before = weights_of(engine)
    trainer = Trainer(engine, training.sequences(engine, 2), [], options, mx.bfloat16)
    assert all(math.isfinite(progress.talker_loss) for progress in trainer.run())
    after = weights_of(engine)
    name = "talker.model.layers.0.mlp.up_proj.weight"
    assert after[name].dtype == np.float32
    assert (after[name] != before[name]).mean() > 0.9
    assert np.abs(after[name] - before[name]).max() < 1e-5


@pytest.mark.parametrize(
    "options, expected",
    [
        (LoraOptions(parts=("talker",), projections=("q_proj",)), 2),
        (LoraOptions(parts=("predictor",)), 14),
        (LoraOptions(num_layers=1), 14),
        (LoraOptions(), 28),
    ],
)
def test_layers_with_adapters(directory, options, expected):
    engine = training.load(directory)
    keys = lora_keys(engine.network, options)
    assert len(keys) == expected
    parameters = engine.worker.run(add_lora, engine.network, options)
    assert parameters["keys"] == keys
    weights = lora_weights(engine.network)
    assert len(weights) == 2 * expected
    assert all(name.endswith((".lora_a", ".lora_b")) for name in weights)


def test_adapters_on_quantized_weights(tmp_path):
    """QLoRA: the packed weights stay as they are."""
    from mlx_qwen3_tts import convert
    from tests.support import checkpoints

    source = tmp_path / "base"
    checkpoints.write_checkpoint(source, *checkpoints.wide_configs("base"), 1)
    convert(source, tmp_path / "quantized", bits=4)
    engine = training.load(tmp_path / "quantized")
    packed = np.array(engine.talker.model.layers[0].self_attn.q_proj.weight)
    engine.worker.run(add_lora, engine.network, LoraOptions(rank=4))
    rng = np.random.RandomState(0)
    codes = [rng.randint(0, 64, (5, 4)) for _ in range(2)]
    sequences = [
        training.make_sequence(engine.prompts, "Hello", one, training.voice_of(engine)) for one in codes
    ]  # fmt: skip
    options = TrainingOptions(epochs=5, batch_size=2, accumulate=1, learning_rate=2e-2)
    curve = [one.talker_loss for one in Trainer(engine, sequences, [], options).run()]
    assert curve[-1] < curve[0] - 0.1
    np.testing.assert_array_equal(np.array(engine.talker.model.layers[0].self_attn.q_proj.linear.weight), packed)


def test_a_loss_that_is_not_finite(directory):
    engine = training.load(directory)
    sequences = training.sequences(engine, 1)
    broken = replace(sequences[0], voice=np.full_like(sequences[0].voice, np.nan))
    with pytest.raises(TrainingError, match="the loss of step 1 is not finite"):
        list(Trainer(engine, [broken], [], SHORT).run())


def test_nothing_to_train_on(directory):
    with pytest.raises(TrainingError, match="nothing to train on"):
        Trainer(training.load(directory), [], [], SHORT)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TrainingOptions(epochs=0), "epochs must be a whole number above 0, not 0"),
        (lambda: TrainingOptions(learning_rate=0.0), "learning_rate must be a number above 0"),
        (lambda: TrainingOptions(seed=-1), "seed must be a whole number from 0"),
        (lambda: LoraOptions(scale=0.0), "lora_scale must be a number above 0"),
        (lambda: LoraOptions(num_layers=0), "lora_layers must be a whole number above 0"),
        (lambda: LoraOptions(rank=0), "lora must be a whole number above 0"),
        (lambda: LoraOptions(dropout=1.0), "lora_dropout must be"),
        (lambda: LoraOptions(parts=("codec",)), "unknown part 'codec'"),
        (lambda: LoraOptions(projections=("head",)), "unknown projection 'head'"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(TrainingError, match=message):
        make()


def test_memory_is_estimated(directory):
    engine = training.load(directory)
    sequences = training.sequences(engine, 4)
    full = estimate_memory(engine.network, sequences, SHORT)
    assert full.training == 3 * full.weights
    assert full.total == sum(full)
    engine.worker.run(add_lora, engine.network, LoraOptions(rank=4))
    lora = estimate_memory(engine.network, sequences, SHORT)
    assert lora.training < 0.5 * full.training
    low = estimate_memory(engine.network, sequences, replace(SHORT, low_memory=True))
    assert low.activations <= lora.activations


def test_adapters_of_16_bit_weights_keep_float32_activations(directory):
    """MLX promotes what an adapter multiplies, so that a step takes as much for it as with float32 weights."""
    found = []
    for dtype in ("float32", "bfloat16"):
        engine = Engine.load(directory, dtype, fused=False)
        engine.worker.run(add_lora, engine.network, LoraOptions(rank=4))
        found.append(estimate_memory(engine.network, training.sequences(engine, 4), SHORT).activations)
    assert found[0] == found[1]
