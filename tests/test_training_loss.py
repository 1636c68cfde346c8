"""The loss of training and its gradients equal those of the official modules, and its alignment is generation's own."""

from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_qwen3_tts import Qwen3TTS, Request, Sampling, VoiceClonePrompt
from mlx_qwen3_tts.generation.engine import Engine
from mlx_qwen3_tts.generation.scoring import predictor_logits
from mlx_qwen3_tts.training.loss import (
    Losses,
    Totals,
    TrainingBatch,
    TrainingSequence,
    collate,
    cross_entropy,
    losses,
    make_sequence,
    mean_loss,
)
from tests.support import checkpoints
from tests.support.engine import force
from tests.support.golden import read_golden
from tests.support.sketch import SIZE, sketch
from tests.support.tolerances import relative_l2

LOSS = 1e-5  # relative
GRADIENTS = 1e-4  # relative L2 of each tensor
SAMPLING = Sampling(temperature=1, top_k=0, top_p=1, repetition_penalty=1, subtalker_temperature=1, subtalker_top_k=0)
UTTERANCES = [("Hello world, this is a voice.", "English", 10), ("你好，世界。", "Chinese", 14), ("a", None, 18)]

Gradients = dict[str, np.ndarray]


def on_thread(engine: Engine, function, *args):
    """Run a function on the MLX thread; return its result, a tree of arrays, as numpy arrays."""

    def call():
        return [np.array(array) for _, array in tree_flatten(function(*args))]

    return engine.worker.run(call)


def sums_of(engine: Engine, batch: TrainingBatch) -> Losses:
    """Return both sums of a batch."""
    return Losses(*on_thread(engine, losses, engine.talker, batch))


def gradients_of(engine: Engine, batch: TrainingBatch, totals: Totals) -> tuple[Losses, Gradients]:
    """Return both sums of a batch, and the gradients of its part of the mean loss."""

    def loss(batch: TrainingBatch) -> tuple[mx.array, Losses]:
        sums = losses(engine.talker, batch)
        return mean_loss(sums, totals), sums

    def call() -> tuple[Losses, Gradients]:
        (_, sums), tree = nn.value_and_grad(engine.network, loss)(batch)
        named = {name: np.array(gradient) for name, gradient in tree_flatten(tree)}
        return Losses(*map(np.array, sums)), named

    return engine.worker.run(call)


def end_of(engine: Engine) -> int:
    """Return the id of the end of speech."""
    return engine.config.talker_config.codec_eos_token_id


def collated(engine: Engine, sequences: list[TrainingSequence]) -> TrainingBatch:
    """Return the batch of sequences, made on the MLX thread."""
    return engine.worker.run(collate, sequences, end_of(engine))


# --- parity with the official modules ---


@dataclass
class TrainingGolden:
    """The official losses and gradients for one checkpoint shape; those of a layout have its name in front."""

    asked: dict
    data: dict[str, np.ndarray]
    engine: Engine

    def sequences(self, layout: dict) -> list[TrainingSequence]:
        """Return the recorded rows."""
        make = partial(make_sequence, self.engine.prompts, non_streaming_mode=layout["non_streaming_mode"])
        return [
            make(row["text"], self.data[f"{i}.codes"], self.data["voices"][i], row["language"])
            for i, row in enumerate(self.asked["rows"])
        ]


@pytest.fixture(scope="module", params=checkpoints.SHAPES)
def training(request, tmp_path_factory) -> TrainingGolden:
    asked, data = read_golden(f"{request.param}-training")
    directory = tmp_path_factory.mktemp(f"{request.param}-base") / "checkpoint"
    checkpoints.write(directory, request.param, "base", asked["seed"])
    return TrainingGolden(asked, data, Engine.load(directory, fused=False))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["whole", "interleaved"])
def test_loss_and_gradients(training, name):
    """All rows in one batch, which is padded; the gradients of all tensors of the talker and the code predictor."""
    layout = next(layout for layout in training.asked["layouts"] if layout["name"] == name)
    sequences = training.sequences(layout)
    totals = Totals.of(sequences)
    sums, gradients = gradients_of(training.engine, collated(training.engine, sequences), totals)
    found = [sums.talker / totals.targets, sums.predictor / totals.residuals]
    np.testing.assert_allclose(found, training.data[f"{name}.losses"], rtol=LOSS)

    prefix = f"{name}."
    expected = {key.removeprefix(prefix): value for key, value in training.data.items() if key.startswith(prefix)}
    del expected["losses"]
    own = {key: gradient for key, gradient in gradients.items() if key.startswith("talker.")}
    assert own.keys() == expected.keys()
    for key, gradient in own.items():
        assert np.abs(expected[key]).max() > 0, key
        assert relative_l2(sketch(key, gradient), expected[key]) < GRADIENTS, key
    assert not any(gradient.any() for key, gradient in gradients.items() if key not in own), "the voice is given"


@pytest.mark.parity
def test_the_rows_cover_what_may_differ(training):
    """The lengths differ, and in the interleaved layout one text is longer than its speech and one is shorter."""
    rows = training.asked["rows"]
    assert len({row["language"] for row in rows}) == 3
    for layout in training.asked["layouts"]:
        assert len({len(one) for one in training.sequences(layout)}) == len(rows)
    pad = training.engine.config.tts_pad_token_id
    fed_last = [one.text[-1] for one in training.sequences({"non_streaming_mode": False})]
    assert {bool(id_ == pad) for id_ in fed_last} == {True, False}


def test_a_projection_finds_a_difference():
    """Its relative norm is that of the whole, roughly, and small arrays are whole."""
    random = np.random.RandomState(0)
    gradient = random.standard_normal((300, 32))
    changed = gradient.copy()
    changed[7] *= 1.01
    whole = relative_l2(changed, gradient)
    assert 0.5 * whole < relative_l2(sketch("x", changed), sketch("x", gradient)) < 2 * whole
    np.testing.assert_allclose(sketch("x", gradient[0]), gradient[0], rtol=1e-6)
    assert len(sketch("x", gradient)) == SIZE


# --- codes that the model generated itself ---


@dataclass
class Spoken:
    """An utterance of a model, and the ids that it is trained on."""

    request: Request
    codes: np.ndarray  # int32 [frames, 16]
    sequence: TrainingSequence


@dataclass
class SpokenByModel:
    """Utterances in one layout of the text."""

    engine: Engine
    spoken: list[Spoken]

    @property
    def sequences(self) -> list[TrainingSequence]:
        return [one.sequence for one in self.spoken]

    @property
    def batch(self) -> TrainingBatch:
        return collated(self.engine, self.sequences)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> tuple[Qwen3TTS, Engine]:
    """A model as it is used for speech, and as it is used for training."""
    directory = checkpoints.write(tmp_path_factory.mktemp("projected-base") / "checkpoint", "projected", "base")
    return Qwen3TTS.from_pretrained(directory), Engine.load(directory, fused=False)


@pytest.fixture(scope="module", params=[True, False], ids=["whole", "interleaved"])
def own(request, loaded) -> SpokenByModel:
    tts, engine = loaded
    voice = np.random.RandomState(1).standard_normal(engine.config.talker_config.hidden_size).astype(np.float32)
    spoken = []
    for seed, (text, language, frames) in enumerate(UTTERANCES):
        asked = Request(
            text,
            voice=VoiceClonePrompt(voice),
            language=language,
            non_streaming_mode=request.param,
            sampling=SAMPLING,
            seed=seed,
            max_frames=frames,
            stop_runaway=False,
        )
        (result,) = tts.synthesize_batch([asked])
        sequence = make_sequence(engine.prompts, text, result.codes, voice, language, request.param)
        spoken.append(Spoken(asked, result.codes, sequence))
    return SpokenByModel(engine, spoken)


def mean_talker(engine: Engine, batch: TrainingBatch) -> float:
    return float(sums_of(engine, batch).talker / np.array(batch.is_target).sum())


def mean_predictor(engine: Engine, batch: TrainingBatch) -> float:
    return float(sums_of(engine, batch).predictor / np.array(batch.is_frame).sum() / 15)


def shifted(batch: TrainingBatch, sequences: list[TrainingSequence], by: int) -> TrainingBatch:
    """Return a batch in which each position predicts the first code of the frame that comes `by` frames later."""
    targets = np.zeros(batch.targets.shape, np.int32)
    is_target = np.zeros(batch.targets.shape, np.float32)
    for row, one in enumerate(sequences):
        for position in range(one.start - 1, len(one)):
            frame = position + 1 + by
            if one.start <= frame < len(one):
                targets[row, position] = one.codes[frame, 0]
                is_target[row, position] = 1
    return batch._replace(targets=mx.array(targets), is_target=mx.array(is_target))


def test_loss_is_that_of_the_frame_loop(own):
    """The cross-entropies are those of the logits that single steps with a cache give."""
    engine = own.engine
    one = own.spoken[0]
    talker, predictor = engine.worker.run(force, engine.talker, engine.prompts.build(one.request), one.codes)
    targets = np.append(one.codes[:, 0], end_of(engine))
    sums = sums_of(engine, collated(engine, [one.sequence]))
    np.testing.assert_allclose(sums.talker, entropy(talker, targets), rtol=LOSS)
    np.testing.assert_allclose(sums.predictor, entropy(predictor, one.codes[:, 1:]), rtol=LOSS)


def entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the summed cross-entropy of logits [..., vocab] and targets [...]."""
    logits = logits.astype(np.float64)
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    largest = logits.max(-1)
    return float((largest + np.log(np.exp(logits - largest[..., None]).sum(-1)) - chosen).sum())


def test_the_text_comes_first_by_default(loaded):
    """As in generation."""
    _, engine = loaded
    codes = np.zeros((3, 16), np.int32)
    voice = np.zeros(engine.config.talker_config.hidden_size, np.float32)
    usual, whole, interleaved = (
        make_sequence(engine.prompts, "Hello world", codes, voice, **layout).start
        for layout in ({}, {"non_streaming_mode": True}, {"non_streaming_mode": False})
    )
    assert usual == whole > interleaved


def test_no_other_alignment_of_the_talker_is_better(own):
    batch = own.batch
    right = mean_talker(own.engine, shifted(batch, own.sequences, 0))
    for by in (-1, 1):
        assert mean_talker(own.engine, shifted(batch, own.sequences, by)) > 2 * right


def test_no_other_hidden_state_of_the_predictor_is_better(own):
    """The state after the frame has seen the frame, and yet predicts it worse; as does the state of a frame before."""
    batch = own.batch
    right = mean_predictor(own.engine, batch)
    for by in (-1, 1):
        places = np.array(batch.places) + np.array([0, by])
        assert mean_predictor(own.engine, batch._replace(places=mx.array(places))) > 1.3 * right


def test_no_other_codebook_of_the_predictor_is_better(own):
    """Each head predicts its own codebook, not the next one or the one before."""
    engine, batch = own.engine, own.batch

    def means() -> list[mx.array]:
        codec = engine.talker.embed_frames(batch.codes)
        is_voice = mx.arange(batch.text.shape[1])[None] == batch.voice_positions[:, None]
        codec = mx.where(is_voice[..., None], batch.voices[:, None], codec)
        hidden = engine.talker.model.hidden_states(engine.talker.embed_text(batch.text) + codec)
        before = hidden[batch.places[:, 0], batch.places[:, 1]]
        logits = predictor_logits(engine.talker, before, batch.frames)[:, 1:-1]
        count = logits.shape[1]
        each = [cross_entropy(logits, batch.frames[:, start : start + count]) for start in (1, 2, 3)]
        return [(one * batch.is_frame[:, None]).sum() / batch.is_frame.sum() / count for one in each]

    before, right, after = on_thread(engine, means)
    assert min(before, after) > 2 * right


def test_padding_changes_nothing(own):
    """Whatever ids stand behind the end of a sequence, and whatever frames behind the last: the same to the bit."""
    batch = own.batch
    lengths = np.array([len(one) for one in own.sequences])
    is_padding = np.arange(batch.text.shape[1]) >= lengths[:, None]
    assert is_padding.any(axis=1).all()
    text, codes, targets = np.array(batch.text), np.array(batch.codes), np.array(batch.targets)
    places, frames = np.array(batch.places), np.array(batch.frames)
    text[is_padding] = 3
    codes[is_padding] = 5
    targets[is_padding] = 7
    is_unused = np.array(batch.is_frame) == 0
    assert is_unused.any()
    places[is_unused] = (1, 2)
    frames[is_unused] = 9
    other = TrainingBatch(
        mx.array(text), mx.array(codes), batch.voices, batch.voice_positions, mx.array(targets), batch.is_target,
        mx.array(places), mx.array(frames), batch.is_frame,
    )  # fmt: skip
    totals = Totals.of(own.sequences)
    expected, gradients = gradients_of(own.engine, batch, totals)
    found, found_gradients = gradients_of(own.engine, other, totals)
    assert found == expected
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(found_gradients[name], gradient, err_msg=name)


def test_the_loss_that_is_minimized():
    """The mean of codebook 0 and the end, and 0.3 of the mean of the others, as in the official script."""
    sums = Losses(mx.array(6.0), mx.array(10.0))
    assert mean_loss(sums, Totals(2.0, 5.0)).item() == pytest.approx(3 + 0.3 * 2)


def test_micro_batches_add_up_to_the_batch(own):
    """One sequence at a time, without the padding of the others: the same sums and the same gradients."""
    totals = Totals.of(own.sequences)
    frames = sum(len(one.codes) for one in own.spoken)
    assert totals == (frames + len(own.spoken), 15 * frames)
    expected, gradients = gradients_of(own.engine, own.batch, totals)
    parts = [gradients_of(own.engine, collated(own.engine, [one]), totals) for one in own.sequences]
    np.testing.assert_allclose(sum(sums.talker for sums, _ in parts), expected.talker, rtol=LOSS)
    np.testing.assert_allclose(sum(sums.predictor for sums, _ in parts), expected.predictor, rtol=LOSS)
    for name, gradient in gradients.items():
        if gradient.any():
            assert relative_l2(sum(part[name] for _, part in parts), gradient) < 1e-5, name
