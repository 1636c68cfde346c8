"""The codec's decoder equals the official plain forward, whole and in chunks."""

from collections.abc import Iterator
from itertools import repeat

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_qwen3_tts import Qwen3TTS, RequestError
from mlx_qwen3_tts.codec.layers import SlidingAttention
from tests.support import checkpoints
from tests.support.tolerances import CHUNKED, CODEC, relative_l2


@pytest.mark.parametrize("name", ["1", "2", "71", "72", "73", "74", "200", "zeros"])
def test_waveform(golden, name):
    codec = golden.models["custom_voice"].codec
    codes, expected = golden[f"codec-{name}.codes"], golden[f"codec-{name}.wave"]
    wave, _ = codec.network.decoder(mx.array(codes))
    assert wave.shape == (len(codes), codes.shape[1] * codec.samples_per_frame)
    stride = 1 if wave.shape[1] == expected.shape[1] else golden.asked["sample_stride"]
    assert relative_l2(np.array(wave)[:, ::stride], expected) < CODEC
    for row, row_codes in enumerate(codes):
        assert relative_l2(codec.decode(row_codes)[::stride], expected[row]) < CODEC, "the public call, in chunks"


@pytest.fixture(scope="module")
def long_decode(tmp_path_factory):
    """160 random frames, more than two windows of the attention, and their waveform, decoded at once."""
    directory = checkpoints.write(tmp_path_factory.mktemp("long") / "checkpoint", "projected")
    decoder = Qwen3TTS.from_pretrained(directory).codec.network.decoder
    codes = mx.array(np.random.RandomState(1).randint(0, 256, (1, 160, 16)))
    return decoder, codes, decoder(codes)[0]


def decode_in(sizes: Iterator[int], decoder, codes: mx.array) -> mx.array:
    """Decode the frames in chunks of `sizes`."""
    state, chunks, start = None, [], 0
    while start < codes.shape[1]:
        size = next(sizes)
        wave, state = decoder(codes[:, start : start + size], state)
        mx.eval(wave, state)
        chunks.append(wave)
        start += size
    return mx.concatenate(chunks, axis=1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 12, 71, 72, 73, "random"])
def test_chunks_equal_the_whole(long_decode, size):
    decoder, codes, whole = long_decode
    rng = np.random.RandomState(2)
    sizes = iter(lambda: int(rng.randint(1, 40)), None) if size == "random" else repeat(size)
    assert mx.abs(decode_in(sizes, decoder, codes) - whole).max().item() < CHUNKED


def test_a_state_is_never_changed(long_decode):
    """A state can be kept and reused, and two signals can be decoded alternately."""
    decoder, codes, whole = long_decode
    _, state = decoder(codes[:, :80])
    other, _ = decoder(codes[:, 150:160], state)
    mx.eval(other)
    for _ in range(2):
        wave, _ = decoder(codes[:, 80:90], state)
        assert mx.abs(wave - whole[:, 80 * 64 : 90 * 64]).max().item() < CHUNKED


def test_state_is_of_constant_size(long_decode):
    decoder, codes, _ = long_decode

    def size(frames: int) -> int:
        _, state = decoder(codes[:, :frames])
        return sum(array.size for _, array in tree_flatten(state) if isinstance(array, mx.array))

    assert size(100) == size(160) == size(71)


def test_a_layer_sees_72_frames():
    """It sees its own frame and the 71 before it; earlier frames change nothing, whole or in chunks."""
    layer = SlidingAttention(16, 2, 2, 8, 10000.0, window=72)
    x = mx.random.normal((1, 200, 16), key=mx.random.key(0))
    far, near = (
        mx.array(np.where(np.arange(200)[None, :, None] == at, 9.0, np.array(x))) for at in (199 - 72, 199 - 71)
    )
    for first in (200, 150):

        def last(y, first=first):
            _, state = layer(y[:, :first]) if first < 200 else (None, None)
            return layer(y[:, first:], state)[0][:, -1] if first < 200 else layer(y)[0][:, -1]

        assert mx.allclose(last(far), last(x), atol=1e-6)
        assert mx.abs(last(near) - last(x)).max().item() > 1e-3


def test_frames_do_not_affect_earlier_ones(golden):
    codec = golden.models["custom_voice"].codec
    codes = golden["codec-200.codes"][0, :40]
    changed = codes.copy()
    changed[20] = (changed[20] + 1) % 256
    difference = np.abs(codec.decode(codes) - codec.decode(changed)).reshape(len(codes), -1).max(axis=1)
    assert (difference[:20] == 0).all()
    assert difference[20] > 1e-4


def test_loud_waves_are_clamped(checkpoint):
    decoder = Qwen3TTS.from_pretrained(checkpoint).codec.network.decoder
    codes = mx.array(np.random.RandomState(0).randint(0, 256, (1, 4, 16)))
    quiet, _ = decoder(codes)
    last = decoder.decoder[-1]
    last.taps, last.bias = [20 * tap for tap in last.taps], 20 * last.bias
    loud, _ = decoder(codes)
    assert (mx.abs(loud) == 1).any()
    assert mx.allclose(loud, mx.clip(20 * quiet, -1, 1), atol=1e-4)


def test_no_frames(demo):
    assert demo.codec.decode(np.zeros((0, 16), np.int32)).shape == (0,)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((3, 15), int), np.zeros(16, int), np.zeros((2, 16)), np.full((1, 16), 256), np.full((1, 16), -1),
        [[1, 2], [3]],
    ],
)  # fmt: skip
def test_bad_codes(demo, codes):
    with pytest.raises(RequestError, match="codes must"):
        demo.codec.decode(codes)
