"""Stretch: other lengths, the same pitch."""

import sys

import numpy as np
import pytest

from mlx_qwen3_tts.audio.stretch import Stretch
from mlx_qwen3_tts.errors import AudioError, RequestError

RATE = 24_000
SPEEDS = [0.25, 0.3, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0]


def tone(num_samples: int, frequency: float = 220.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(num_samples) / RATE)).astype(np.float32)


def stretch(audio: np.ndarray, speed: float, sizes: tuple[int, ...] = (1920,)) -> np.ndarray:
    stretcher = Stretch(RATE, speed)
    parts = []
    position = 0
    while position < len(audio):
        size = sizes[len(parts) % len(sizes)]
        parts.append(stretcher.write(audio[position : position + size]))
        position += size
    return np.concatenate([*parts, stretcher.close()])


def peak_frequency(audio: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    return np.argmax(spectrum) * RATE / len(audio)


@pytest.mark.parametrize("speed", SPEEDS)
def test_length_is_exact(speed):
    for num_samples in (0, 1, 100, 1000, 1921, 24_001):
        assert len(stretch(tone(num_samples), speed)) == round(num_samples / speed)


@pytest.mark.parametrize("speed", SPEEDS)
def test_pitch_and_level_stay(speed):
    result = stretch(tone(3 * RATE), speed)
    assert peak_frequency(result) == pytest.approx(220, abs=1.5)
    middle = result[len(result) // 8 : -len(result) // 8]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)
    assert np.abs(result).max() < 0.35
    # The end has its sound, to 10 ms: it is not cut off and filled with silence.
    assert np.abs(result[-round(0.01 * RATE / speed) :]).max() > 0.05


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.5, 4.0])
def test_events_keep_their_places(speed):
    audio = np.zeros(4 * RATE, np.float32)
    for second in (1, 2, 3):
        audio[second * RATE : second * RATE + 4800] = tone(4800, 600)
    result = stretch(audio, speed)
    for second in (1, 2, 3):
        expected = round(second * RATE / speed)
        reach = round(0.1 * RATE / speed)
        window = np.abs(result[expected - reach : expected + reach])
        onset = np.flatnonzero(window > 0.1)[0] - reach
        assert abs(onset * speed) < (0.035 if 0.5 <= speed <= 2 else 0.075) * RATE


def test_high_speeds_skip_no_sound():
    """A sound of 5 ms is heard at threefold speed wherever it is; one pass of atempo would skip half of these."""
    for position in range(8000, 12_000, 97):
        audio = np.zeros(RATE, np.float32)
        audio[position : position + 120] = tone(120, 1000)
        assert np.sum(stretch(audio, 3.0) ** 2) > 0.01 * np.sum(audio**2)


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.5, 4.0])
def test_chunks_do_not_matter(speed):
    audio = tone(RATE)
    whole = stretch(audio, speed, (RATE,))
    np.testing.assert_array_equal(stretch(audio, speed, (1, 777, 5000)), whole)
    np.testing.assert_array_equal(stretch(audio, speed), whole)


def test_speed_1_returns_the_samples():
    audio = tone(RATE)
    np.testing.assert_array_equal(stretch(audio, 1.0), audio)


def test_audio_comes_out_while_it_goes_in():
    stretcher = Stretch(RATE, 1.25)
    written = sum(len(stretcher.write(tone(1920))) for _ in range(10))
    assert written > (10 * 1920 - 0.1 * RATE) / 1.25


def test_invalid_speeds(monkeypatch):
    for speed in (0, 0.2, 4.1, -1, float("nan")):
        with pytest.raises(RequestError, match=r"speed must be between 0.25 and 4, not"):
            Stretch(RATE, speed)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match="a speed other than 1 needs PyAV: pip install"):
        Stretch(RATE, 1.5)
    assert len(Stretch(RATE, 1.0).write(tone(10))) == 10
