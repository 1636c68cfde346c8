"""Loudness against BS.1770 by its own formula, and a limiter that touches nothing but peaks."""

import gc
import sys

import numpy as np
import pytest

from mlx_qwen3_tts.audio.loudness import Limiter, LoudnessMeter, gain_for, integrated_loudness
from mlx_qwen3_tts.errors import AudioError

RATE = 24_000
CEILING = np.float32(10 ** (-1 / 20))


def sine(level: float, seconds: float = 3, frequency: float = 1000) -> np.ndarray:
    """A sine whose peaks are at `level` dBFS."""
    angles = 2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE
    return (10 ** (level / 20) * np.sin(angles)).astype(np.float32)


def k_weighting(frequency: float) -> float:
    """The power gain of BS.1770-4's two filters, from the analogue forms that its coefficients at 48 kHz stand for."""
    shelf = [(1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)]
    pass_ = [(1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)]
    delay = np.exp(-2j * np.pi * frequency / 48_000)
    gain = 1.0
    for numerator, denominator in (shelf, pass_):
        gain *= abs(np.polyval(numerator[::-1], delay) / np.polyval(denominator[::-1], delay)) ** 2
    return gain


def expected_loudness(level: float, frequency: float) -> float:
    return -0.691 + 10 * np.log10(10 ** (level / 10) / 2 * k_weighting(frequency))


@pytest.mark.parametrize("level", [-40.0, -23.0, -6.0])
@pytest.mark.parametrize("frequency", [100, 1000, 3000, 8000])
def test_loudness_of_a_sine(level, frequency):
    found = integrated_loudness(sine(level, frequency=frequency), RATE)
    assert found == pytest.approx(expected_loudness(level, frequency), abs=0.15)


def test_loudness_is_that_of_the_standard():
    """A sine of 997 Hz at full scale has -3.01 LKFS (BS.1770-4, annex 1)."""
    assert integrated_loudness(sine(0, frequency=997), RATE) == pytest.approx(-3.01, abs=0.05)
    assert integrated_loudness(sine(-20), RATE) == pytest.approx(-23.01, abs=0.05)


def test_pauses_do_not_count():
    speech = sine(-20)
    paused = np.concatenate([speech, np.zeros(20 * RATE, np.float32), speech])
    assert integrated_loudness(paused, RATE) == pytest.approx(integrated_loudness(speech, RATE), abs=0.3)


def test_clips_without_a_loudness():
    assert integrated_loudness(np.zeros(0, np.float32), RATE) is None
    assert integrated_loudness(sine(-20, 0.39), RATE) is None
    assert integrated_loudness(sine(-20, 0.41), RATE) is not None
    assert integrated_loudness(np.zeros(RATE, np.float32), RATE) is None
    assert integrated_loudness(sine(-75), RATE) is None


def test_chunks_do_not_matter_to_the_meter():
    audio = np.concatenate([sine(-30), sine(-15, 1.23), sine(-40)])
    meter = LoudnessMeter(RATE)
    for start in range(0, len(audio), 777):
        meter.write(audio[start : start + 777])
    assert meter.close() == integrated_loudness(audio, RATE)


def test_temporary_files_of_any_name(tmp_path, monkeypatch):
    folder = tmp_path / "it's: a [folder], 50%; \\ "
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert integrated_loudness(sine(-20), RATE) == pytest.approx(-23.01, abs=0.05)
    LoudnessMeter(RATE).write(sine(-20))
    gc.collect()
    assert list(folder.iterdir()) == []
    folder.rmdir()
    with pytest.raises(AudioError, match="loudness needs a temporary file: No such file"):
        integrated_loudness(sine(-20), RATE)


def test_gain_brings_to_the_target():
    audio = sine(-30)
    gain = gain_for(integrated_loudness(audio, RATE), -18)
    assert integrated_loudness(gain * audio, RATE) == pytest.approx(-18, abs=0.05)
    assert gain_for(None, -18) == 1
    assert gain_for(-60, -18) == 10
    assert gain_for(-10, -18) == pytest.approx(10 ** (-8 / 20))


def limit(audio: np.ndarray, sizes: tuple[int, ...] = (1920,)) -> np.ndarray:
    limiter = Limiter(RATE)
    parts = []
    position = 0
    while position < len(audio):
        size = sizes[len(parts) % len(sizes)]
        parts.append(limiter.write(audio[position : position + size]))
        position += size
    return np.concatenate([*parts, limiter.close()])


@pytest.mark.parametrize("audio", [sine(-1.001), sine(-30), np.zeros(5, np.float32), np.zeros(0, np.float32)])
def test_limiter_changes_nothing_below_the_ceiling(audio):
    np.testing.assert_array_equal(limit(audio), audio)


def test_limiter_keeps_peaks_below_the_ceiling():
    generator = np.random.default_rng(0)
    signals = [
        generator.normal(0, 0.5, 2 * RATE).astype(np.float32),
        4 * sine(0),
        np.where(np.arange(RATE) % 5000 == 17, 30, 0.1).astype(np.float32),
        np.full(1, 2, np.float32),
        np.float32(1e6) * sine(0, 0.3),
    ]
    for audio in signals:
        result = limit(audio)
        assert len(result) == len(audio)
        assert np.abs(result).max() <= CEILING
        assert np.abs(result).max() > 0.85 * CEILING
        assert (np.sign(result) == np.sign(audio)).all()


def test_limiter_touches_only_the_neighbourhood_of_a_peak():
    audio = sine(-12, 2, 200)
    audio[RATE : RATE + 20] = 1.6
    result = limit(audio)
    changed = np.flatnonzero(result != audio)
    assert RATE - 120 <= changed[0] < RATE - 110
    assert RATE + 19 + 1200 + 110 < changed[-1] <= RATE + 19 + 1200 + 120
    # It stays for 50 ms after the peak.
    held = slice(RATE, RATE + 19 + 1200)
    np.testing.assert_allclose(result[held], audio[held] * (CEILING / 1.6), rtol=1e-5)
    # The gain has no step: 5 ms from 1 to the lowest.
    gain = result[RATE - 300 : RATE + 1600] / np.where(audio == 0, 1, audio)[RATE - 300 : RATE + 1600]
    gain = gain[np.abs(audio[RATE - 300 : RATE + 1600]) > 0.01]
    assert np.abs(np.diff(gain)).max() < 0.06
    assert result[RATE] == pytest.approx(CEILING)


def test_chunks_do_not_matter_to_the_limiter():
    audio = np.random.default_rng(0).normal(0, 0.5, RATE).astype(np.float32)
    whole = limit(audio, (RATE,))
    np.testing.assert_array_equal(limit(audio, (1, 777, 50)), whole)
    np.testing.assert_array_equal(limit(audio), whole)


def test_missing_pyav_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match="loudness needs PyAV: pip install"):
        integrated_loudness(sine(-20), RATE)
