"""Reading of clips: arrays and files, resampling, and silence at the ends."""

import os

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import AudioError
from mlx_qwen3_tts.audio import read
from mlx_qwen3_tts.audio.read import read_audio, resample, trim_silence

RATE = 24_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 4800).astype(np.float32)


def tone(num_samples: int, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / rate)).astype(np.float32)


def test_arrays():
    both = np.stack([NOISE, np.zeros_like(NOISE)], axis=1)
    for given, expected in ((NOISE, NOISE), (NOISE.astype(np.float64), NOISE), (both, NOISE / 2)):
        audio, rate = read_audio((given, 1))
        assert (audio.dtype, rate) == (np.float32, 1)
        np.testing.assert_array_equal(audio, expected)


@pytest.mark.parametrize(
    "source, message",
    [
        ((NOISE, 0), "sample rate 0"),
        ((NOISE, 24000.0), "sample rate 24000.0"),
        ((NOISE, True), "sample rate True"),
        ((np.zeros(5, np.int16), RATE), r"not int16 \[5\]"),
        ((np.zeros((2, 2, 2), np.float32), RATE), r"not float32 \[2, 2, 2\]"),
        (5.5, "the audio cannot be read"),
    ],
)
def test_sources_that_are_not_audio(source, message):
    with pytest.raises(AudioError, match=message):
        read_audio(source)


def test_files_are_read_block_by_block(tmp_path, monkeypatch):
    """The length of a file need not be a multiple of a block; a path may begin with ~."""
    monkeypatch.setattr(read, "READ_BLOCK", 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    soundfile.write(tmp_path / "a.wav", np.stack([NOISE, NOISE / 2], axis=1), RATE, subtype="FLOAT")
    audio, rate = read_audio("~/a.wav", len(NOISE) / RATE)
    assert rate == RATE
    np.testing.assert_allclose(audio, 0.75 * NOISE, rtol=1e-6)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="is not a regular file"):
        read_audio(tmp_path / "pipe.wav")


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_resampling(rate):
    """A tone keeps its pitch, its level and its place; the length is rounded up."""
    result = resample(tone(rate + 1, rate), rate, RATE)
    assert len(result) == RATE + int(np.ceil(RATE / rate))
    np.testing.assert_allclose(result[500:-500], tone(len(result))[500:-500], atol=2e-3)


def test_resampling_to_the_same_rate_changes_nothing():
    assert resample(NOISE, RATE, RATE) is NOISE


@pytest.mark.parametrize("rate", [24_000, 30])
def test_silence_is_cut_in_blocks_of_20_ms(rate):
    """What is below -40 dB of the loudest block goes from both ends, and stays between them."""
    block = max(1, rate // 50)
    levels = [0, 0.0098, 0.0102, 1, 0, 0, 0.5, 0.0102, 0.0098, 0.0098]
    audio = np.concatenate([np.full(block, level, np.float32) for level in levels])
    np.testing.assert_array_equal(trim_silence(audio, rate), audio[2 * block : 8 * block])
    np.testing.assert_array_equal(
        trim_silence(audio[2 * block : 8 * block - 1], rate), audio[2 * block : 8 * block - 1]
    )


def test_all_of_silence_stays():
    silence = np.zeros(1000, np.float32)
    assert trim_silence(silence, RATE) is silence


def test_a_too_long_clip_is_refused_by_its_header(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(3000), 1000)
    read.check_clip_file(path, 3.0)
    with pytest.raises(AudioError, match=r"is 3 s long and the limit is 2.9 s"):
        read.check_clip_file(path, 2.9)


def test_a_sample_rate_below_0():
    with pytest.raises(AudioError, match="the array has the sample rate -24000; it must be a whole number above 0"):
        read_audio((np.zeros(10, np.float32), -24000))


def test_a_file_with_one_channel(tmp_path):
    wave = np.linspace(-0.5, 0.5, 100, dtype=np.float32)
    soundfile.write(tmp_path / "mono.wav", wave, 8000, subtype="FLOAT")
    audio, rate = read_audio(tmp_path / "mono.wav")
    assert rate == 8000
    np.testing.assert_array_equal(audio, wave)
