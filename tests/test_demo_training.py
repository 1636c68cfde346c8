"""The demo's training in miniature: a few steps on noise in place of speech, through the training package."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import demo_codec
import train_demo
from demo_config import CLOCK, CLOCK_CODEC, CLOCK_GENERATION, CODES, TOKENS
from demo_speech import FRAME, VOICES, time_utterance
from demo_talker import LOSSES, PREDICTED, Batch, Lesson, Sequences, rounded, train_talker, with_slips
from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.codec.decoder import CodecDecoder
from mlx_qwen3_tts.codec.layers import CausalConv1d
from mlx_qwen3_tts.config.codec import CodecDecoderConfig
from mlx_qwen3_tts.config.model import ModelConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.demo.random_checkpoint import write_configs
from mlx_qwen3_tts.generation.scoring import predictor_logits
from mlx_qwen3_tts.models.network import Network
from mlx_qwen3_tts.text.tokenizer import TextTokenizer

UTTERANCE = time_utterance(11, 26, hello=True)


@pytest.fixture(scope="module")
def clips() -> dict:
    """Two frames of noise for each word."""
    rng = np.random.RandomState(0)
    keys = [(voice, key) for voice in VOICES for key in dict.fromkeys(UTTERANCE.keys)]
    return {key: 0.1 * rng.randn(2, FRAME).astype(np.float32) for key in keys}


@pytest.fixture(scope="module")
def sequences(tmp_path_factory, clips) -> Sequences:
    directory = tmp_path_factory.mktemp("clock")
    config = from_dict(ModelConfig, write_configs(directory, CLOCK, CLOCK_CODEC, TOKENS, CLOCK_GENERATION), "")
    rng = np.random.RandomState(1)
    codes = {key: rng.randint(0, CODES, (2, 16)).astype(np.int32) for key in clips}
    return Sequences(config, TextTokenizer.from_directory(directory, config), codes)


@pytest.fixture
def network(sequences) -> Network:
    mx.random.seed(0)
    return Network(sequences.config)


def batch_of(sequences: Sequences, count: int = 2) -> tuple[list, Batch]:
    made = [sequences.make(UTTERANCE, VOICES[i % 2], "english", i % 2 == 0) for i in range(count)]
    return made, sequences.batch(made, np.random.RandomState(2))


def test_the_script_trains_a_checkpoint_that_speaks(tmp_path, monkeypatch, capsys, clips):
    """All of it, with small batches: the files load, and the losses are reported."""
    monkeypatch.setattr(train_demo, "make_clips", lambda: clips)
    monkeypatch.setattr(train_demo, "training_sentence", lambda rng: UTTERANCE)
    monkeypatch.setattr(train_demo, "SENTENCES", 1)
    monkeypatch.setattr(train_demo, "REPORT", 2)
    monkeypatch.setattr(demo_codec, "SHAPES", ((1, 2),))
    convolve = CausalConv1d.__call__
    train_demo.train_text(tmp_path, 3)
    train_demo.train_codec(tmp_path, {"front": 2, "all": 2})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  loss")[0].split() for line in lines] == [
        [name, str(step), "of", str(steps)]
        for name, step, steps in (("talker", 2, 3), ("talker", 3, 3), ("front", 2, 2), ("all", 2, 2))
    ]
    assert all(f"  {part} " in lines[0] for part in LOSSES)
    assert CausalConv1d.__call__ is convolve
    tts = Qwen3TTS.from_pretrained(tmp_path)
    audio = tts.synthesize("It is six.", voice="rms", seed=0, max_frames=2, stop_runaway=False).audio
    assert np.isfinite(audio).all()
    assert audio.any()


def test_the_talker_learns(sequences, network):
    """The loss of one batch falls, in steps with rounded weights as well, and no weight stays rounded."""
    _, batch = batch_of(sequences, 1)
    steps = list(train_talker(network.talker, lambda: batch, 7, 5e-3, rounding_from=0.5))
    for name in ("loss", "code 0", "codes 1-15", "counting"):
        assert steps[-1].losses[name] < 0.8 * steps[0].losses[name], name
    weight = network.talker.model.layers[0].mlp.up_proj.weight
    assert not np.allclose(weight, rounded(weight), atol=1e-4)


def test_targets_follow_their_inputs(sequences):
    """Each position predicts the next frame of the clips, and the last one the end; only input codes are wrong."""
    made, batch = batch_of(sequences)
    given = batch.given
    targets, codes, weights = (np.array(one) for one in (given.targets, given.codes, given.is_target))
    for row, one in enumerate(made):
        start, end = one.ids.start, len(one)
        wanted = np.concatenate([sequences.codes[VOICES[row], key] for key in UTTERANCE.keys])
        np.testing.assert_array_equal(targets[row, start - 1 : end - 1], wanted[:, 0])
        assert targets[row, end - 1] == CODES
        np.testing.assert_array_equal(np.flatnonzero(weights[row]), np.arange(start - 1, end))
        wrong = codes[row, start:end, :-1] != wanted[:, :-1]
        assert wrong.mean() < 0.05
        np.testing.assert_array_equal(codes[row, start:end, -1], one.spoken[:-1])
    places, frames = np.array(given.places), np.array(given.frames)
    assert len(places) == PREDICTED
    for (row, position), frame in zip(places, frames, strict=True):
        one = made[row].ids
        np.testing.assert_array_equal(frame, one.codes[position + 1])
        assert one.start <= position + 1


def test_some_codes_are_wrong(sequences):
    made, _ = batch_of(sequences)
    rng = np.random.RandomState(0)
    right = np.stack([np.array(made[0].ids.codes)] * 100)
    is_frame = np.ones((*right.shape[:2], 1), bool)
    wrong = with_slips(right, is_frame, CODES, rng) != right
    assert 0.003 < wrong.mean() < 0.007
    assert not wrong[..., -1].any()


def test_losses_are_those_of_the_ids_that_can_follow(sequences, network):
    """Codebook 0 and the end, from a plain forward pass; the code predictor's, summed over its codebooks."""
    talker = network.talker
    _, batch = batch_of(sequences, 1)
    given = batch.given
    losses = dict(zip(LOSSES, Lesson(talker)(batch, False), strict=True))
    hidden = talker.model.hidden_states(talker.embed_text(given.text) + talker.embed_frames(given.codes))
    logits = np.array(talker.codec_head(hidden))[0].astype(np.float64)
    ids = [*range(CODES), sequences.config.talker_config.codec_eos_token_id]
    logits = logits[:, ids] - np.log(np.exp(logits[:, ids]).sum(-1, keepdims=True))
    positions = np.flatnonzero(np.array(given.is_target)[0])
    chosen = logits[positions, np.array(given.targets)[0, positions]]
    assert losses["code 0"].item() == pytest.approx(-chosen.mean(), rel=1e-5)
    before = hidden[given.places[:, 0], given.places[:, 1]]
    each = nn.losses.cross_entropy(predictor_logits(talker, before, given.frames), given.frames[:, 1:])
    assert losses["codes 1-15"].item() == pytest.approx(each.sum().item() / PREDICTED, rel=1e-5)
    assert losses["code 15"].item() == pytest.approx(each[:, -1].mean().item(), rel=1e-5)


def test_gradients_pass_through_rounding(sequences, network):
    """They reach all weights, those of the voices and the text among them, but no other rows of the head."""
    _, batch = batch_of(sequences)
    lesson = Lesson(network.talker)
    before = dict(tree_flatten(lesson.parameters()))
    plain, _ = nn.value_and_grad(lesson, lesson)(batch, False)
    values, gradients = nn.value_and_grad(lesson, lesson)(batch, True)
    assert values[0].item() != plain[0].item()
    assert values[0].item() == pytest.approx(plain[0].item(), rel=0.1)
    for name, weight in tree_flatten(lesson.parameters()):
        np.testing.assert_array_equal(weight, before[name], err_msg=name)
    assert all(np.array(gradient).any() for _, gradient in tree_flatten(gradients))
    config = sequences.config.talker_config
    head = np.array(gradients["talker"]["codec_head"]["weight"]).any(axis=1)
    assert set(np.flatnonzero(head)) <= {*range(CODES), config.codec_eos_token_id}
    table = np.array(gradients["talker"]["model"]["codec_embedding"]["weight"]).any(axis=1)
    assert all(table[id_] for id_ in config.spk_id.values())


def test_the_decoder_learns(clips):
    """Both stages lower their loss on one piece of speech."""
    config = from_dict(CodecDecoderConfig, CLOCK_CODEC["decoder_config"], "")
    mx.random.seed(0)
    decoder = CodecDecoder(config)
    codes, tables = demo_codec.encode(clips, config, 0)
    demo_codec.begin(decoder, tables)
    key = next(iter(clips))

    class OnePiece(demo_codec.Sentences):
        def batch(self, count, length, wanted):
            return mx.array(codes[key][None]), mx.array(wanted[key][None])

    piece = OnePiece(lambda rng: UTTERANCE, clips, codes, 0)
    for train in (demo_codec.train_front, demo_codec.train_whole):
        steps = [step.losses["loss"] for step in train(decoder, piece, 5)]
        assert steps[-1] < 0.97 * steps[0], train.__name__
