"""Sampling: the distributions are those of the official logits processors, and options are checked."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import RequestError, Sampling
from mlx_qwen3_tts.config.model import GenerationConfig
from mlx_qwen3_tts.generation.frames import MIN_FRAMES
from mlx_qwen3_tts.generation.sampling import DrawOptions, FrameOptions, gumbel_noise, talker_logits
from tests.support.tolerances import PROBABILITIES


def test_distributions(golden):
    if "distribution.logits" not in golden.data:
        pytest.skip("recorded once, on the other shape")
    config = golden.models["custom_voice"].talker.config
    logits, seen = mx.array(golden["distribution.logits"]), mx.array(golden["distribution.seen"])
    frames = golden["distribution.frames"].tolist()
    assert {min(frame, 2) for frame in frames} == {0, 1, 2}, "the first two frames, which may not end, and later ones"
    for i, setting in enumerate(golden.asked["settings"]):
        subtalker = {f"subtalker_{k}": v for k, v in setting.items() if k != "repetition_penalty"}
        sampling = Sampling(**setting, **subtalker).resolve(GenerationConfig())
        options = FrameOptions.of([sampling], config)
        for row, frame in enumerate(frames):
            allowed = talker_logits(
                logits[row : row + 1],
                seen[row : row + 1],
                mx.array(frame >= MIN_FRAMES),
                options.repetition_penalty,
                config,
            )
            found = mx.softmax(options.talker.filter(allowed), axis=-1)[0]
            expected = golden[f"distribution.{i}.talker"][row]
            np.testing.assert_allclose(np.array(found), expected, atol=PROBABILITIES, rtol=0, err_msg=str(setting))
        found = mx.softmax(options.subtalker.filter(logits[:, :256]), axis=-1)
        np.testing.assert_allclose(np.array(found), golden[f"distribution.{i}.subtalker"], atol=PROBABILITIES, rtol=0)


def test_draws_follow_the_distribution():
    logits = mx.log(mx.array([[0.5, 0.3, 0.2, 0.0]]))
    noise = gumbel_noise(mx.random.split(mx.random.key(0), 4000), (4,))
    rows = mx.broadcast_to(logits, noise.shape)
    counts = np.bincount(np.array(draw_options(True).draw(rows, noise)), minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.2, 0.0], atol=0.03)  # 3.8 standard deviations of 0.5
    assert (np.array(draw_options(False).draw(rows, noise)) == 0).all()


def draw_options(sample: bool) -> DrawOptions:
    return DrawOptions(mx.array([[sample]]), mx.array([[1.0]]), 4, None)


SETTINGS = [
    Sampling(), Sampling(do_sample=False), Sampling(subtalker_dosample=False), Sampling(top_k=0, top_p=0.7),
    Sampling(temperature=0.5, top_k=3, subtalker_top_k=1, repetition_penalty=1.5),
    Sampling(top_k=100, top_p=0.3, subtalker_top_p=0.2, subtalker_temperature=1.7),
]  # fmt: skip


@pytest.mark.parametrize("count", [2, 6])
def test_rows_with_different_options_are_filtered_independently(demo, count):
    """Each row has the bits and draws that it has alone, also with different top-k and with top-p for some rows."""
    config = demo.config.talker_config
    rows = [setting.resolve(GenerationConfig()) for setting in SETTINGS[:count]]
    logits = 4 * mx.random.normal((count, config.vocab_size), key=mx.random.key(1))
    noise = gumbel_noise(mx.random.split(mx.random.key(2), count), (config.vocab_size,))
    together = FrameOptions.of(rows, config)
    alone = [FrameOptions.of([row], config) for row in rows]
    for name, size in (("talker", config.vocab_size), ("subtalker", config.num_codes)):
        options = getattr(together, name)
        found = options.filter(logits[:, :size])
        drawn = options.draw(found, noise[:, :size])
        for i, one in enumerate(alone):
            expected = getattr(one, name).filter(logits[i : i + 1, :size])
            assert (found[i] == expected[0]).all(), (name, i)
            assert drawn[i] == getattr(one, name).draw(expected, noise[i : i + 1, :size])[0], (name, i)


def test_noise_of_rows_is_independent():
    keys = mx.stack([mx.random.key(seed) for seed in (3, 1, 3)])
    noise = gumbel_noise(keys, (4, 100))
    assert (noise[0] == noise[2]).all()
    assert not (noise[0] == noise[1]).any()
    assert (noise[1] == mx.random.gumbel((4, 100), key=mx.random.key(1))).all()


def test_low_precision_logits_are_processed_in_float32(demo):
    config = demo.talker.config
    logits = mx.zeros((1, config.vocab_size), mx.bfloat16)
    assert talker_logits(logits, logits > 1, mx.array(True), 1.05, config).dtype == mx.float32


def test_defaults_come_from_the_checkpoint():
    resolved = Sampling(top_k=7).resolve(GenerationConfig(temperature=0.5, top_k=20))
    assert (resolved.top_k, resolved.temperature, resolved.subtalker_top_k) == (7, 0.5, 50)


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": -1}, {"temperature": 0}, {"temperature": float("nan")}, {"temperature": "1"}, {"top_p": 0},
        {"top_p": 1.01}, {"top_k": -1}, {"top_k": 2.5}, {"repetition_penalty": 0}, {"repetition_penalty": True},
        {"temperature": 1e300}, {"repetition_penalty": 1e-300},
        {"subtalker_temperature": -0.1}, {"subtalker_top_p": 0}, {"subtalker_top_k": -3}, {"do_sample": 1},
    ],
)  # fmt: skip
def test_values_out_of_range(demo, option):
    with pytest.raises(RequestError, match=next(iter(option))):
        demo.synthesize("Hello", sampling=Sampling(**option))


@pytest.mark.parametrize("option", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}])
def test_options_that_greedy_would_ignore_are_refused(demo, option):
    with pytest.raises(RequestError, match="no effect"):
        demo.synthesize("Hello", sampling=Sampling(do_sample=False, **option))
    option = {f"subtalker_{key}": value for key, value in option.items()}
    with pytest.raises(RequestError, match="no effect"):
        demo.synthesize("Hello", sampling=Sampling(subtalker_dosample=False, **option))
