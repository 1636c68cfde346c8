"""The codec's decoder equals the official plain forward, whole and in chunks."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS, RequestError
from tolerances import CHUNKED, CODEC, relative_l2


@pytest.mark.parametrize("name", ["1", "2", "71", "72", "73", "74", "200", "zeros"])
def test_waveform(golden, name):
    codec = golden.models["custom_voice"].codec
    codes, expected = golden[f"codec-{name}.codes"], golden[f"codec-{name}.wave"]
    wave, _ = codec.decoder(mx.array(codes))
    assert wave.shape == (len(codes), codes.shape[1] * codec.samples_per_frame)
    stride = 1 if wave.shape[1] == expected.shape[1] else golden.asked["sample_stride"]
    assert relative_l2(np.array(wave)[:, ::stride], expected) < CODEC
    for row, row_codes in enumerate(codes):
        assert relative_l2(codec.decode(row_codes)[::stride], expected[row]) < CODEC, "the public call, in chunks"


@pytest.mark.parametrize("size", [1, 7, 71, 72, 73])
def test_chunks_equal_the_whole(golden, size):
    if golden.shape == "equal":
        pytest.skip("the released rates add only time")
    decoder, codes = golden.models["custom_voice"].codec.decoder, mx.array(golden["codec-200.codes"])
    whole, _ = decoder(codes)
    state, chunks = None, []
    for start in range(0, codes.shape[1], size):
        wave, state = decoder(codes[:, start : start + size], state)
        mx.eval(wave, state)
        chunks.append(wave)
    assert mx.abs(mx.concatenate(chunks, axis=1) - whole).max().item() < CHUNKED


def test_the_window_is_72_frames(golden):
    """A frame changes what its own samples and those of later frames are, as far as the layers reach, and no others."""
    codec = golden.models["custom_voice"].codec
    codes = golden["codec-200.codes"][0]
    changed = codes.copy()
    changed[100] = (changed[100] + 1) % 256
    difference = np.abs(codec.decode(codes) - codec.decode(changed)).reshape(len(codes), -1).max(axis=1)
    assert (difference[:100] == 0).all()
    assert difference[100] > 1e-4


def test_loud_waves_are_clamped(checkpoint):
    decoder = Qwen3TTS.from_pretrained(checkpoint).codec.decoder
    codes = mx.array(np.random.RandomState(0).randint(0, 256, (1, 4, 16)))
    quiet, _ = decoder(codes)
    last = decoder.decoder[-1].conv
    last.weight, last.bias = 20 * last.weight, 20 * last.bias
    loud, _ = decoder(codes)
    assert (mx.abs(loud) == 1).any()
    assert mx.allclose(loud, mx.clip(20 * quiet, -1, 1), atol=1e-4)


def test_no_frames(demo):
    assert demo.codec.decode(np.zeros((0, 16), np.int32)).shape == (0,)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((3, 15), int), np.zeros(16, int), np.zeros((2, 16)), np.full((1, 16), 256), np.full((1, 16), -1),
    ],
)  # fmt: skip
def test_bad_codes(demo, codes):
    with pytest.raises(RequestError, match="codes must"):
        demo.codec.decode(codes)
