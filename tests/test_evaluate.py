"""A checkpoint compared with itself is exact; compared with another, the figures are those of the generation loop."""

import gc
import json
from dataclasses import replace

import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_qwen3_tts import Qwen3TTS, RequestError, Sampling
from mlx_qwen3_tts.capabilities import requests_for
from mlx_qwen3_tts.conversion.convert import convert
from mlx_qwen3_tts.evaluation import evaluate as evaluation
from mlx_qwen3_tts.evaluation.evaluate import evaluate, kl_divergence, likeliest, mel_distance, waveform_distance
from mlx_qwen3_tts.generation.scoring import LogProbabilities, score
from mlx_qwen3_tts.result import SynthesisTiming
from tests.support import checkpoints, sounds

GREEDY = Sampling(do_sample=False, subtalker_dosample=False, repetition_penalty=1.0)
TEXTS = ["Hello world", "this is a voice"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A checkpoint of each kind and its 4-bit copy."""
    root = tmp_path_factory.mktemp("pairs")
    result = {}
    for kind in ("custom_voice", "voice_design", "base"):
        source = checkpoints.write_wide(root / kind, kind, "bfloat16")
        convert(source, root / f"{kind}-4", bits=4, scales="plain")
        result[kind] = source, root / f"{kind}-4"
    return result


@pytest.mark.parametrize("kind", ["custom_voice", "voice_design", "base"])
def test_comparison_with_itself_is_exact(pairs, kind):
    voice = None
    if kind == "base":
        voice = Qwen3TTS.from_pretrained(pairs[kind][0]).clone_voice(sounds.SOUNDS["short"], "hello this voice")
    for checkpoint in pairs[kind]:
        found = evaluate(checkpoint, checkpoint, TEXTS, voice, max_frames=3)
        assert found.frames == 6
        assert found.agreement == [1.0] * 4
        assert found.kl == [0.0] * 4
        assert (found.mel_distance, found.waveform_distance) == (0.0, 0.0)


@pytest.mark.slow
def test_fewer_bits_differ_more(pairs, tmp_path):
    """Every figure differs more with fewer bits; the sizes are those of the files."""
    source, four = pairs["custom_voice"]
    convert(source, tmp_path / "8", bits=8)
    gc.collect()  # models of other tests would distort a measurement if they were freed during it
    found = {bits: evaluate(path, source, TEXTS, max_frames=10) for bits, path in ((4, four), (8, tmp_path / "8"))}
    assert np.mean(found[4].kl) > 5 * np.mean(found[8].kl) > 0
    assert np.mean(found[4].agreement) < np.mean(found[8].agreement)
    assert found[4].mel_distance > found[8].mel_distance
    assert found[4].model.bytes == sum(path.stat().st_size for path in four.rglob("*.safetensors"))
    assert found[4].model.bytes < found[8].model.bytes < found[4].reference.bytes
    for side in (found[4].model, found[4].reference):
        assert side.seconds_per_frame > 0
        assert 0 < side.real_time_factor < 100
    # The other model's weights are also in memory but not counted, so only the weights' sizes make a difference, beside
    # some 120 kB that are alive at the peak or not, by how far the next step has come.
    weights = [sum(p.nbytes for _, p in tree_flatten(Qwen3TTS.from_pretrained(path).network.parameters()))
               for path in (source, four)]  # fmt: skip
    saved = found[4].reference.peak_memory - found[4].model.peak_memory
    assert saved == pytest.approx(weights[0] - weights[1], rel=0.25)


def test_figures_are_those_of_the_scores_and_times(pairs, monkeypatch):
    """Both are given here, so that every figure is known. The first request, which compiles, is not measured."""
    run = Qwen3TTS.run
    times = iter(2 * [(9.0, 9.0, 3), (0.5, 1.5, 3), (1.0, 2.5, 5)])
    random = np.random.default_rng(0)
    given = []

    def run_timed(tts, request):
        generation, total, frames = next(times)
        timing = SynthesisTiming(0, generation, 0, 0, total, frames, 0.08 * frames, peak_memory=10**9)
        return replace(run(tts, request), timing=timing)

    def score_by_chance(engine, request, codes):
        talker, predictor = random.normal(size=(3, 90)), random.normal(size=(3, 3, 64))
        parts = (part - np.log(np.exp(part).sum(-1, keepdims=True)) for part in (talker, np.round(predictor)))
        given.append(LogProbabilities(*parts))
        return given[-1]

    monkeypatch.setattr(Qwen3TTS, "run", run_timed)
    monkeypatch.setattr(evaluation, "score", score_by_chance)
    source, four = pairs["custom_voice"]
    found = evaluate(four, source, TEXTS, max_frames=3)
    for side in (found.model, found.reference):
        assert side.seconds_per_frame == pytest.approx(1.5 / 8)
        assert side.real_time_factor == pytest.approx(4.0 / 0.64)
    model, reference = given[0::2], given[1::2]
    equal = np.array([likeliest(m, 64) == likeliest(r, 64) for m, r in zip(model, reference, strict=True)])
    assert found.agreement == pytest.approx(equal.reshape(6, 4).mean(0))
    others = [kl_divergence(r.predictor, m.predictor) for m, r in zip(model, reference, strict=True)]
    assert found.kl[1:] == pytest.approx(np.concatenate(others).mean(0))
    first = [kl_divergence(r.talker, m.talker) for m, r in zip(model, reference, strict=True)]
    assert found.kl[0] == pytest.approx(np.concatenate(first).mean())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["custom_voice", "voice_design", "base"])
def test_teacher_forcing_equals_the_loop(pairs, kind):
    """The most likely codes of all frames at once equal those that the greedy loop chose one by one."""
    for checkpoint in pairs[kind]:
        tts = Qwen3TTS.from_pretrained(checkpoint)
        voice = tts.clone_voice(sounds.SOUNDS["speech"], "hello this voice") if kind == "base" else None
        for text in TEXTS:
            request = requests_for(tts.config, [text], voice, None, 12)[0]
            codes = tts.synthesize(text, voice, instruct=request.instruct, seed=0, sampling=GREEDY, max_frames=12).codes
            scores = score(tts.engine, request, codes)
            likeliest = np.concatenate([scores.talker.argmax(-1)[:, None], scores.predictor.argmax(-1)], axis=1)
            np.testing.assert_array_equal(likeliest[2:], codes[2:])  # the end is suppressed in the first two frames
            np.testing.assert_allclose(np.exp(scores.talker).sum(-1), 1, rtol=1e-5)
            np.testing.assert_allclose(np.exp(scores.predictor).sum(-1), 1, rtol=1e-5)


def test_kl():
    """It equals an explicit sum; ids with zero probability add nothing."""
    p, q = np.array([[0.5, 0.25, 0.25, 0.0]]), np.array([[0.25, 0.5, 0.25, 0.0]])
    with np.errstate(divide="ignore"):
        found = kl_divergence(np.log(p), np.log(q))
    assert found.item() == pytest.approx(0.5 * np.log(2) - 0.25 * np.log(2), rel=1e-6)
    rng = np.random.default_rng(0)
    near = rng.standard_normal((200, 50)).astype(np.float32)
    near -= np.log(np.exp(near).sum(-1, keepdims=True))
    assert (kl_divergence(near, near + 1e-7 * rng.standard_normal(near.shape)) >= 0).all()


def test_mel_distance_is_in_decibels():
    """A wave of ten times the amplitude is 20 dB away, in either direction."""
    noise = np.random.default_rng(0).normal(0, 0.05, 24_000).astype(np.float32)
    assert mel_distance(10 * noise, noise) == pytest.approx(20, abs=0.01)
    assert mel_distance(noise, 10 * noise) == pytest.approx(20, abs=0.01)


def test_waveform_distance_is_relative():
    wave = np.random.default_rng(0).normal(0, 0.05, 24_000).astype(np.float32)
    other = wave + 0.3 * np.roll(wave, 1)
    assert waveform_distance(other, wave) == pytest.approx(0.3, rel=1e-4)
    assert waveform_distance(10 * other, 10 * wave) == pytest.approx(0.3, rel=1e-4)


def test_the_end_is_not_a_likeliest_code():
    """Ids above the codes may be likelier than every code, as the end is in the last frame."""
    talker = np.array([[-3.0, -1.0, -2.0, -0.5], [-1.0, -2.0, -3.0, -0.1]], np.float32)
    predictor = np.array([[[-1.0, -2.0, -3.0]], [[-3.0, -2.0, -1.0]]], np.float32)
    assert likeliest(LogProbabilities(talker, predictor), 3).tolist() == [[1, 0], [0, 2]]


def test_pairs_that_cannot_be_compared(pairs, checkpoint):
    custom, design, base = (pairs[kind][0] for kind in ("custom_voice", "voice_design", "base"))
    with pytest.raises(RequestError, match="different kinds cannot be compared: custom_voice and voice_design"):
        evaluate(custom, design, TEXTS)
    with pytest.raises(RequestError, match="different widths cannot be compared: 32 and 64"):
        evaluate(checkpoint, custom, TEXTS)
    with pytest.raises(RequestError, match="cloned voices only"):
        evaluate(base, base, TEXTS)
    with pytest.raises(RequestError, match="no texts"):
        evaluate(custom, custom, [])


def test_command_line(pairs, run_cli, tmp_path):
    """Standard output has a table or JSON, and nothing else."""
    source, four = pairs["custom_voice"]
    (tmp_path / "texts").write_text("Hello world\n\n  this is a voice \n")
    argv = ("evaluate", "--model", four, "--reference", source, "--texts", tmp_path / "texts", "--max-frames", 2)
    code, out, _ = run_cli(*argv, "--json")
    assert code == 0
    data = json.loads(out)
    assert data["frames"] == 4
    assert len(data["kl"]) == len(data["agreement"]) == 4
    code, out, _ = run_cli(*argv)
    assert code == 0
    assert len(out.splitlines()) == 1 + 4 + 1 + 1 + 1 + 1 + 3
    assert f"{np.mean(data['agreement']):.1%}" in out
    (tmp_path / "texts").write_text(" \n")
    code, out, err = run_cli(*argv)
    assert (code, out) == (1, "")
    assert "holds no text" in err
    code, _, err = run_cli(*argv[:5], "--texts", tmp_path / "none")
    assert code == 1
    assert "cannot read the texts" in err


def test_scores_are_of_the_ids_that_may_be_generated(pairs):
    """Codes and the end have a probability; the other ids of the vocabulary have none."""
    tts = Qwen3TTS.from_pretrained(pairs["custom_voice"][0])
    talker = tts.config.talker_config
    codes = np.zeros((3, talker.num_code_groups), np.int32)
    scores = score(tts.engine, requests_for(tts.config, ["hello"], None, None, 3)[0], codes)
    possible = sorted({*range(talker.num_codes), talker.codec_eos_token_id})
    assert len(possible) < talker.vocab_size
    for frame in scores.talker:
        assert np.flatnonzero(frame > -np.inf).tolist() == possible
    np.testing.assert_allclose(np.exp(scores.talker).sum(-1), 1, rtol=1e-5)
