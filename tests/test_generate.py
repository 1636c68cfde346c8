"""The frame loop: greedy codes equal the official ones, and the speech ends at the same frame."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS, Sampling
from tests.support import checkpoints
from tests.support.golden import arguments, until_a_tie

GREEDY = Sampling(do_sample=False, subtalker_dosample=False)


def test_greedy_codes(golden):
    for tts, case in golden.cases():
        expected, frames = golden[f"{case['name']}.codes"], until_a_tie(golden, case["name"])
        assert len(expected) == 42
        result = tts.synthesize(**arguments(case), sampling=GREEDY, max_frames=42)
        np.testing.assert_array_equal(result.codes[:frames], expected[:frames], err_msg=case["name"])


def test_committed_data_has_no_ties(golden):
    if golden.asked["seed"] != checkpoints.GOLDEN_SEED:
        pytest.skip("a fresh seed may meet one")
    assert all(until_a_tie(golden, case["name"]) == 42 for _, case in golden.cases())


@pytest.mark.parametrize("stop", ["late", "early", "at-once"])
def test_end(golden, stop, tmp_path):
    """An ordinary code serves as EOS: one that occurs late, one early, and one that would occur at frame 0."""
    tts, case = golden.models["custom_voice"], golden.asked["custom_voice"][0]
    if until_a_tie(golden, f"stop-{stop}") < len(golden[f"stop-{stop}.codes"]):
        pytest.skip("this seed meets a near-tie before the end")
    eos = int(golden[f"stop-{stop}.eos"][0])
    shutil.copytree(tts.name, tmp_path / "ends")
    path = tmp_path / "ends" / "config.json"
    config = json.loads(path.read_text())
    config["talker_config"]["codec_eos_token_id"] = eos
    path.write_text(json.dumps(config))
    tts = Qwen3TTS.from_pretrained(tmp_path / "ends")
    expected = golden[f"stop-{stop}.codes"]
    result = tts.synthesize(**arguments(case), sampling=GREEDY, max_frames=42)
    np.testing.assert_array_equal(result.codes, expected)
    assert eos not in result.codes[:, 0]
    assert result.finish_reason == ("stop" if len(expected) < 42 else "length")


def test_max_frames_is_exact(demo):
    for frames in (1, 2, 7, 8, 9):
        result = demo.synthesize("Hello", seed=3, max_frames=frames)
        assert result.codes.shape == (frames, 16)
        assert result.finish_reason == "length"


def test_seed_fixes_the_result(demo):
    first = demo.synthesize("Hello", seed=3, max_frames=6)
    again = demo.synthesize("Hello", seed=3, max_frames=6)
    other = demo.synthesize("Hello", seed=4, max_frames=6)
    np.testing.assert_array_equal(first.codes, again.codes)
    np.testing.assert_array_equal(first.audio, again.audio)
    assert (first.codes != other.codes).any()


def test_global_random_state_is_neither_read_nor_written(demo):
    mx.random.seed(1)
    before = np.array(mx.random.state[0])
    first = demo.synthesize("Hello", seed=3, max_frames=3)
    np.testing.assert_array_equal(np.array(mx.random.state[0]), before)
    mx.random.seed(2)
    np.testing.assert_array_equal(demo.synthesize("Hello", seed=3, max_frames=3).codes, first.codes)


def test_drawn_seed_reproduces_the_result(demo):
    first = demo.synthesize("Hello", max_frames=4)
    np.testing.assert_array_equal(demo.synthesize("Hello", seed=first.seed, max_frames=4).codes, first.codes)
    assert demo.synthesize("Hello", max_frames=4).seed != first.seed


def test_talker_and_code_predictor_are_sampled_separately(demo):
    """Each can be greedy alone, and a draw in one does not affect the draws in the other."""
    half = demo.synthesize("Hello", seed=3, max_frames=1, sampling=Sampling(subtalker_dosample=False))
    full = demo.synthesize("Hello", seed=3, max_frames=1)
    assert half.codes[0, 0] == full.codes[0, 0]
    assert (half.codes[0, 1:] != full.codes[0, 1:]).any()


def test_interleaved_requests_do_not_touch_each_other(demo):
    texts = ("Hello world", "this is a voice")
    alone = [demo.synthesize(text, seed=i, max_frames=6) for i, text in enumerate(texts)]
    streams = [demo.stream(text, seed=i, max_frames=6, chunk_frames=(2,)) for i, text in enumerate(texts)]
    together = [[], []]
    for _ in range(3):
        for stream, chunks in zip(streams, together, strict=True):
            chunks.append(next(stream))
    for result, chunks in zip(alone, together, strict=True):
        np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), result.codes)
        np.testing.assert_allclose(np.concatenate([chunk.audio for chunk in chunks]), result.audio, atol=1e-5)
