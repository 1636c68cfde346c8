"""The codec's encoder chooses the official codes, except for ties."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import AudioError
from mlx_qwen3_tts.audio.read import resample
from mlx_qwen3_tts.codec.encoder import CodecEncoder
from tests.support import sounds
from tests.support.engine import on_mlx_thread
from tests.support.golden import SHARED
from tests.support.tolerances import CODE_AGREEMENT, CODE_TIE, CODEC, ROUND_TRIP, relative_l2


def features(tts, audio: np.ndarray) -> mx.array:
    """What the quantizer sees [1, frames, hidden]."""
    encoder = tts.codec.network.encoder
    return encoder.downsample(encoder.encoder_transformer(encoder.features(mx.array(audio)[None])[0]))[0]


def compare(tts, audio: np.ndarray, expected: np.ndarray) -> int:
    """Assert that our codes are the official ones except for ties; return how many choices differ.

    Each codebook quantizes what the ones before it left over, so one tie changes all later codes of its frame. Here the
    left-over is computed from the official codes, and each single choice is compared.
    """
    found = tts.codec.encode(audio, 24000)
    assert found.shape == expected.shape
    assert found.dtype == np.int32
    return on_mlx_thread(tts, differing, tts, audio, expected)


def differing(tts, audio: np.ndarray, expected: np.ndarray) -> int:
    quantizer, x = tts.codec.network.encoder.quantizer, features(tts, audio)
    groups = [
        (quantizer.semantic_residual_vector_quantizer, [0]),
        (quantizer.acoustic_residual_vector_quantizer, range(1, 16)),
    ]
    differences = 0
    for group, indices in groups:
        residual = np.array(x[0] @ group.input_proj.weight[:, 0, :].T, np.float64)
        for layer, index in zip(group.layers, indices, strict=False):
            table = np.array(layer.codebook.weight, np.float64)
            distance = np.sqrt(((residual[:, None] - table[None]) ** 2).sum(-1))  # [frames, codes]
            official = distance[np.arange(len(residual)), expected[:, index]]
            assert (official <= distance.min(axis=1) * (1 + CODE_TIE)).all(), index
            differences += int((distance.argmin(axis=1) != expected[:, index]).sum())
            residual = residual - table[expected[:, index]]
    return differences


@pytest.mark.parametrize("length", sounds.LENGTHS)
def test_lengths(cloning, length):
    expected = cloning[f"length-{length}.codes"]
    assert len(expected) == -(-length // 1920)
    assert compare(cloning.tts, sounds.speech(2.0)[5000 : 5000 + length], expected) == 0


def test_500_frames(cloning):
    expected = cloning["frames-500.codes"]
    assert expected.shape == (500, 16)
    assert np.median([len(np.unique(column)) for column in expected.T]) >= 30, "varied enough to tell"
    assert compare(cloning.tts, sounds.long(40), expected) <= (1 - CODE_AGREEMENT) * expected.size


def test_one_minute(cloning):
    """Far beyond 250 positions of 25 Hz: the configured window is not applied by the official run."""
    expected = cloning["minute.codes"]
    assert expected.shape == (750, 16)
    assert compare(cloning.tts, sounds.long(60), expected) <= 3, "single ties among 12,000 choices"


def test_clips(cloning):
    for name, (wave, rate) in cloning.clips().items():
        expected = cloning[f"clip-{name}.codes"]
        if len(expected) < 100:
            assert compare(cloning.tts, resample(wave, rate, 24000), expected) <= 1, name
        np.testing.assert_array_equal(cloning.tts.codec.encode(wave, rate).shape, expected.shape)


BLOCK = 2 * 1920


@pytest.mark.parametrize(
    "length", [1, 1919, 1920, 1921, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK + 777, 9 * BLOCK]
)
def test_blocks_equal_the_whole(cloning, monkeypatch, spy, length):
    """Across the borders of blocks, and if the last one is shorter than the convolutions reach."""
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


def test_a_long_clip_needs_no_more_memory(demo_base, monkeypatch):
    """Up to the transformer, which needs the whole clip but sees 25 steps in place of 24,000 samples."""
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
    assert long < 2 * short, "five times as long"


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
