"""Mel spectrogram and speaker embedding equal the official ones, at every rate a clip may have."""

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts.audio.mel import HOP, MEL_FLOOR, N_FFT, SPECTRUM_FLOOR, mel_filters, mel_spectrogram
from mlx_qwen3_tts.audio.read import resample
from tests.support.tolerances import MEL, SPEAKER, relative, relative_l2


def exact_mel(audio: np.ndarray) -> np.ndarray:
    """Compute the spectrogram by definition in float64, with the discrete Fourier transform as a matrix."""
    padded = np.concatenate([audio[384:0:-1], audio, audio[-2:-386:-1]]).astype(np.float64)
    n = np.arange(N_FFT)
    window = 0.5 * (1 - np.cos(2 * np.pi * n / N_FFT))
    transform = np.exp(-2j * np.pi * np.outer(n, np.arange(N_FFT // 2 + 1)) / N_FFT) * window[:, None]
    frames = np.stack([padded[start : start + N_FFT] for start in range(0, len(padded) - N_FFT + 1, HOP)])
    magnitude = np.sqrt(np.abs(frames @ transform) ** 2 + SPECTRUM_FLOOR)
    return np.log(np.maximum(magnitude @ mel_filters(128).T.astype(np.float64), MEL_FLOOR))


def test_mel(cloning):
    for name, (wave, rate) in cloning.clips().items():
        audio = resample(wave, rate, 24000)
        mel, stride = mel_spectrogram(audio), cloning.asked["mel_stride"]
        expected = cloning[f"clip-{name}.mel"]
        assert mel.dtype == np.float32
        assert mel[::stride].shape == expected.shape, name
        assert relative_l2(mel[::stride], expected) < MEL, name
        if len(audio) < 30000:
            exact = exact_mel(audio)
            np.testing.assert_allclose(mel, exact, atol=1e-5, err_msg=name)
            # In each bin, the official float32 value has its own rounding error; our error must not be larger.
            allowed = 1e-4 + np.abs(expected - exact[::stride])
            assert (np.abs(mel[::stride] - expected) <= allowed).all(), name


def test_embedding(cloning):
    for name, clip in cloning.clips().items():
        voice = cloning.tts.clone_voice(clip)
        assert voice.speaker_embedding.dtype == np.float32
        assert relative(voice.speaker_embedding, cloning[f"clip-{name}.embedding"]) < SPEAKER, name


def test_filters_are_slaney_s():
    filters = mel_filters(128)
    assert filters.shape == (128, 513)
    assert (filters >= 0).all()
    np.testing.assert_allclose(filters.sum(axis=1)[60:] * 24000 / N_FFT, 1, atol=0.05)  # of unit area
    assert filters[0, 0] == 0
    assert filters[-1, -1] == 0


def test_half_precision(demo_base):
    encoder = demo_base.network.speaker_encoder
    mel = mx.array(mel_spectrogram(np.random.RandomState(0).standard_normal(9000).astype(np.float32) * 0.1))[None]
    assert encoder(mel.astype(mx.bfloat16)).shape == (1, 64)
