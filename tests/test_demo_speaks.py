"""The demo is intelligible: an independent recognizer checks all stages together, which random weights cannot show.

pocketsphinx, with a grammar of times and digits only, must recognize the requested words. The full figures are in the
model card (mlx_qwen3_tts/demo/data/README.md); tools/evaluate_demo.py measures them.
"""

import random

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from demo_ears import random_utterance, recognizer
from demo_speech import VOICES
from mlx_qwen3_tts import Qwen3TTS, Sampling
from mlx_qwen3_tts.demo.clock import time_of_day
from mlx_qwen3_tts.demo.registry import NOTES, SPEAKING
from mlx_qwen3_tts.generation.sampling import DrawOptions
from mlx_qwen3_tts.text.feed import TextFeed
from tests.support.engine import on_mlx_thread

UTTERANCES = 20
HEARD = 18  # at least, of 20; the model card's figures allow for one error
BROKEN = 2  # at most this many of 4 are heard with a broken stage; two of the 4 use each text layout
LOUDNESS = [
    0.09444, 0.11724, 0.04288, 0.17518, 0.14845, 0.16477, 0.19103, 0.26883, 0.21819, 0.00346,
    0.16300, 0.23563, 0.11225, 0.20893, 0.00519, 0.04717, 0.09067, 0.00472, 0.00361, 0.00101,
]  # fmt: skip  # of each frame of one sentence with the committed weights of talker and codec
GREEDY = Sampling(do_sample=False, subtalker_dosample=False)


@pytest.fixture(scope="module")
def clock() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained("demo")


@pytest.fixture(scope="module")
def hear():
    return recognizer()


def cases(count: int, seed: int = 5):
    """Yield times and digits, alternating between both voices and both text layouts."""
    rng = random.Random(seed)
    for i in range(count):
        yield random_utterance(rng), {"voice": VOICES[i % 2], "non_streaming_mode": i // 2 % 2 == 0, "seed": i}


def count_heard(tts: Qwen3TTS, hear, count: int, options: Sampling) -> int:
    """Count the utterances whose words are all heard.

    Each is limited to the length of the longest one, because a broken model may never end.
    """
    heard = 0
    for utterance, how in cases(count):
        audio = tts.synthesize(utterance.text, sampling=options, max_frames=45, **how).audio
        heard += hear(audio, tts.sample_rate) == utterance.words
    return heard


@pytest.mark.slow
def test_the_recognizer_understands_the_demo(clock, hear):
    """This holds with default sampling; streamed equals one-shot audio, and each utterance ends by itself."""
    heard = 0
    for utterance, how in cases(UTTERANCES):
        chunks = list(clock.stream(utterance.text, **how))
        audio = np.concatenate([chunk.audio for chunk in chunks])
        assert chunks[-1].finish_reason == "stop", utterance.text
        if how["seed"] % 5 == 0:
            np.testing.assert_array_equal(clock.synthesize(utterance.text, **how).audio, audio)
        heard += hear(audio, clock.sample_rate) == utterance.words
    assert heard >= HEARD


def loudness(tts: Qwen3TTS) -> np.ndarray:
    """The mean amplitude of each frame of one sentence."""
    audio = tts.synthesize("It is eleven twenty-six.", voice="slt", sampling=GREEDY).audio
    return np.abs(audio).reshape(-1, tts.codec.samples_per_frame).mean(axis=1)


def test_sound_is_the_recorded_one(clock):
    np.testing.assert_allclose(loudness(clock), LOUDNESS, rtol=0.01)


# --- one broken stage at a time: the recognizer notices ---


def break_prompt(tts, monkeypatch):
    """Drop the first token and the end of the text, as after a mistake in the layout."""
    take = TextFeed.take_rest
    monkeypatch.setattr(TextFeed, "take_rest", lambda self: take(self)[1:-1])


def break_codebook(tts, monkeypatch):
    """Shift the codec's first codebook by one row."""
    book = tts.codec.network.decoder.quantizer.rvq_first.vq.layers[0].codebook
    book.weight = on_mlx_thread(tts, lambda: mx.contiguous(mx.roll(book.weight, 1, axis=0)))


def break_sampler(tts, monkeypatch):
    """Choose the second most likely code instead of sampling."""
    monkeypatch.setattr(DrawOptions, "draw", lambda self, logits, noise: mx.argsort(logits, axis=-1)[..., -2])


@pytest.mark.parametrize("damage", [break_prompt, break_codebook, break_sampler])
@pytest.mark.slow
def test_the_recognizer_notices_damage(damage, hear, monkeypatch):
    tts = Qwen3TTS.from_pretrained("demo")
    damage(tts, monkeypatch)
    assert count_heard(tts, hear, 4, GREEDY) <= BROKEN


def test_the_recorded_sound_depends_on_the_window():
    """If the codec's attention sees only its own frame, words stay intelligible but the sound changes.

    (This codec relies only on the last 8 frames; the parity tests show that the released window is 72.)
    """
    tts = Qwen3TTS.from_pretrained("demo")
    for layer in tts.codec.network.decoder.pre_transformer.layers:
        layer.self_attn.window = 1
    assert not np.allclose(loudness(tts), LOUDNESS, rtol=0.01)


# --- the checkpoint and its metadata ---


def test_checkpoint_is_small():
    assert sum(path.stat().st_size for path in SPEAKING["demo"].rglob("*") if path.is_file()) <= 4e6


def test_verify_finds_nothing_wrong(run_cli):
    code, out, _ = run_cli("verify", "demo")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} == {"pass", "skip"}


def test_time_of_day():
    assert time_of_day(23, 26) == "It is eleven twenty-six."
    assert time_of_day(0, 0) == "It is twelve o'clock."
    assert time_of_day(5, 5) == "It is five zero five."
    assert time_of_day(12, 40) == "It is twelve forty."


def test_say_with_the_demo(run_cli, tmp_path):
    """Text outside its vocabulary still gives audio, and standard error says what the demo can speak."""
    path = tmp_path / "a.wav"
    argv = ("--model", "demo", "--voice", "rms", "--max-frames", 4, "-o", path)
    code, _, err = run_cli("say", "Good weather, isn't it?", *argv)
    assert code == 0
    assert NOTES["demo"] in err
    assert soundfile.info(path).frames == 4 * 1920
