"""The codec's encoder chooses the official codes, except for ties."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import AudioError
from mlx_qwen3_tts.audio.read import resample
from mlx_qwen3_tts.codec.encoder import CodecEncoder
from tests.support import sounds
from tests.support.codes import compare_codes
from tests.support.engine import on_mlx_thread
from tests.support.golden import SHARED
from tests.support.tolerances import CODE_AGREEMENT, CODEC, ROUND_TRIP, relative_l2


@pytest.mark.parametrize("length", sounds.LENGTHS)
def test_lengths(cloning, length):
    expected = cloning[f"length-{length}.codes"]
    assert len(expected) == -(-length // 1920)
    assert compare_codes(cloning.tts, sounds.speech(2.0)[5000 : 5000 + length], expected) == 0


@pytest.mark.slow
def test_500_frames(cloning):
    expected = cloning["frames-500.codes"]
    assert expected.shape == (500, 16)
    assert np.median([len(np.unique(column)) for column in expected.T]) >= 30, "the codes are varied enough"
    assert compare_codes(cloning.tts, sounds.long(40), expected) <= (1 - CODE_AGREEMENT) * expected.size


@pytest.mark.slow
def test_one_minute(cloning):
    """The clip is far longer than the configured window of 250 positions, which the official code does not apply."""
    expected = cloning["minute.codes"]
    assert expected.shape == (750, 16)
    assert compare_codes(cloning.tts, sounds.long(60), expected) <= 3, "only a few ties in 12,000 choices"


def test_clips(cloning):
    for name, (wave, rate) in cloning.clips().items():
        expected = cloning[f"clip-{name}.codes"]
        if len(expected) < 100:
            assert compare_codes(cloning.tts, resample(wave, rate, 24000), expected) <= 1, name
        np.testing.assert_array_equal(cloning.tts.codec.encode(wave, rate).shape, expected.shape)


BLOCK = 2 * 1920


@pytest.mark.parametrize(
    "length", [1, 1919, 1920, 1921, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK + 777, 9 * BLOCK]
)
def test_blocks_equal_the_whole(cloning, monkeypatch, spy, length):
    """Also at block boundaries, and if the last block is shorter than the context of the convolutions."""
    tts, audio = cloning.tts, sounds.long(2)[:length]
    monkeypatch.setattr("mlx_qwen3_tts.codec.codec.ENCODE_FRAMES", BLOCK // 1920)
    blocks = spy(CodecEncoder, "features")
    quantized = spy(CodecEncoder, "quantize")
    codes = tts.codec.encode(audio, 24000)
    assert len(blocks) == -(-length // BLOCK)
    encoder, found = tts.codec.network.encoder, quantized[0][1][1]

    def whole() -> tuple[np.ndarray, np.ndarray]:
        expected, _ = encoder.features(mx.array(audio)[None])
        return np.array(expected), np.array(encoder.quantize(expected, 16))[0]

    expected, expected_codes = on_mlx_thread(tts, whole)
    assert found.shape == expected.shape
    assert relative_l2(np.array(found), expected) < CODEC
    np.testing.assert_array_equal(codes, expected_codes)


def test_memory_does_not_grow_with_the_clip(demo_base, monkeypatch):
    """This holds up to the transformer, which needs the whole clip but has 25 steps instead of 24,000 samples."""
    monkeypatch.setattr("mlx_qwen3_tts.codec.codec.ENCODE_FRAMES", 4)
    quantize, peaks = CodecEncoder.quantize, []

    def measured(*args):
        peaks.append(mx.get_peak_memory() - before)
        return quantize(*args)

    monkeypatch.setattr(CodecEncoder, "quantize", measured)
    for seconds in (1, 5):
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        demo_base.codec.encode(sounds.long(seconds), 24000)
    short, long = peaks
    assert long < 2 * short, "the clip is five times as long"


def test_round_trip(cloning):
    codec = cloning.tts.codec
    codes = codec.encode(sounds.speech(2.0), 24000)
    np.testing.assert_array_equal(codes, cloning["round-trip.codes"])
    wave = codec.decode(codes)
    assert relative_l2(wave[:: cloning.asked["sample_stride"]], cloning["round-trip.wave"]) < ROUND_TRIP


def test_recordings():
    if not (SHARED / "audio").is_dir():
        pytest.skip(
            "the recordings are not here: they are not part of the project (`make parity` uses them if they are)"
        )
    from mlx_qwen3_tts import Qwen3TTS

    tts = Qwen3TTS.from_pretrained("demo-base")
    for path in (SHARED / "audio").glob("*.wav"):
        voice = tts.clone_voice(path, text="x " * 200)
        assert voice.ref_codes.shape == (375, 16)
        assert np.isfinite(voice.speaker_embedding).all()
        assert voice.warnings == ()


@pytest.mark.parametrize(
    "audio, rate, message",
    [
        (np.zeros(0, np.float32), 24000, "no samples"),
        (np.full(100, np.nan, np.float32), 24000, "not finite"),
        (np.zeros(100, np.int16), 24000, "floats"),
        (np.zeros((2, 2, 2), np.float32), 24000, "floats"),
        (np.zeros(100, np.float32), 0, "sample rate"),
        (np.zeros(100, np.float32), "24000", "sample rate"),
    ],
)
def test_audio_that_cannot_be_encoded(demo_base, audio, rate, message):
    with pytest.raises(AudioError, match=message):
        demo_base.codec.encode(audio, rate)
