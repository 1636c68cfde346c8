"""Mel spectrogram, the input of the speaker encoder. Source: mel_spectrogram in modeling_qwen3_tts.py."""

from functools import cache

import numpy as np

N_FFT = 1024
HOP = 256
MEL_RATE = 24000
SPECTRUM_FLOOR = 1e-9
MEL_FLOOR = 1e-5


def _hertz_to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """Convert to Slaney's scale: linear up to 1 kHz (15 mel), then logarithmic, 27 mel for a factor of 6.4."""
    hertz = np.asarray(hertz, np.float64)
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


@cache
def mel_filters(n_mels: int) -> np.ndarray:
    """Return triangular filters of unit area, 0 to 12 kHz: float32 [n_mels, N_FFT // 2 + 1], as librosa.filters.mel."""
    bins = np.linspace(0, MEL_RATE / 2, N_FFT // 2 + 1)
    corners = _mel_to_hertz(np.linspace(0, _hertz_to_mel(MEL_RATE / 2), n_mels + 2))
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (corners[2:] - corners[:-2])[:, None]).astype(np.float32)


def mel_spectrogram(audio: np.ndarray, n_mels: int = 128) -> np.ndarray:
    """Return the log-mel spectrogram of audio [samples] at 24 kHz: float32 [(samples - 256) // 256 + 1, n_mels].

    The audio must be longer than 384 samples, by which it is reflected at both ends.
    """
    padded = np.pad(audio, (N_FFT - HOP) // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)  # periodic Hann
    # In float64, because the rounding noise of a float32 transform, up to 0.01 in the logarithm in the empty bins next
    # to a loud tone, depends on the FFT library. All of them approximate this.
    spectrum = np.fft.rfft(frames * window)
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + SPECTRUM_FLOOR)
    return np.log(np.maximum(magnitude @ mel_filters(n_mels).T, MEL_FLOOR)).astype(np.float32)
