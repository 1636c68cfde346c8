"""Synthetic, deterministic sounds to clone from. Needs only NumPy, because both environments use it."""

from functools import lru_cache

import numpy as np


def chirp(seconds: float, rate: int = 24000) -> np.ndarray:
    """A tone that rises from 60 Hz to 0.4 of the rate."""
    t = np.arange(int(seconds * rate)) / rate
    return (0.6 * np.sin(2 * np.pi * (60 * t + (0.4 * rate - 60) * t * t / (2 * seconds)))).astype(np.float32)


def noise(seconds: float, rate: int = 24000) -> np.ndarray:
    """White noise."""
    return (0.3 * (2 * np.random.RandomState(5).random_sample(int(seconds * rate)) - 1)).astype(np.float32)


def silence(seconds: float, rate: int = 24000) -> np.ndarray:
    """Zeros."""
    return np.zeros(int(seconds * rate), np.float32)


def speech(seconds: float, rate: int = 24000) -> np.ndarray:
    """Something like speech: a gliding buzz through two moving resonances, with pauses, over a little noise."""
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / rate
    first, second = 600 + 300 * np.sin(2 * np.pi * 1.9 * t), 1800 + 700 * np.sin(2 * np.pi * 1.3 * t)
    wave = np.zeros_like(t)
    for harmonic in range(1, 30):
        hertz = 120 * harmonic
        weight = np.exp(-(((hertz - first) / 250) ** 2)) + 0.5 * np.exp(-(((hertz - second) / 350) ** 2)) + 0.02
        wave += weight * np.sin(harmonic * phase)
    gate = 1 / (1 + np.exp(-20 * (np.sin(2 * np.pi * 0.9 * t) + 0.5)))
    return (0.14 * wave * gate + 0.01 * noise(seconds, rate)).astype(np.float32)


SOUNDS = {
    "chirp": (chirp(1.5), 24000),
    "noise": (noise(1.0), 24000),
    "silence": (silence(1.0), 24000),
    "short": (speech(0.3), 24000),
    "speech": (speech(2.1), 24000),
    "speech-16000": (speech(1.7, 16000), 16000),
    "speech-44100": (speech(1.3, 44100), 44100),
    "speech-48000": (speech(1.1, 48000), 48000),
}
LENGTHS = (1, 1919, 1920, 1921)


def long(seconds: int) -> np.ndarray:
    """Speech, noise and chirps in turn, varied enough that frames do not repeat."""
    whole = np.concatenate([_turn()] * (seconds // 15 + 1))[: seconds * 24000]
    return (whole * (1 - 0.5 * np.arange(len(whole)) / len(whole))).astype(np.float32)


@lru_cache
def _turn() -> np.ndarray:
    return np.concatenate([speech(7.3), noise(2.9), chirp(5.7), silence(0.6), 0.4 * speech(3.1)])
