"""The sound of a book: the silence at a segment's ends is cut, its loudness made even, and its ends faded.

take ─ [start, end) ─ Stretch (speed) ─ gain ─ Limiter ─ fades ─ samples, between pauses of exact lengths
                                         └ Gains: from all takes' loudness, of short ones their voice's median
"""

from collections import defaultdict
from collections.abc import Iterable
from statistics import median

import numpy as np

from ..audio.loudness import Limiter, gain_for
from ..audio.stretch import Stretch
from .takes import Take

BLOCK_SECONDS = 0.01  # length of a block in the search for speech
QUIET = 0.01  # share of the loudest block, -40 dB: a block below it is not speech
LEAD_SECONDS = 0.03  # kept before the first such block, for a soft beginning
TAIL_SECONDS = 0.08  # kept after the last, for a sound that fades away
FADE_SECONDS = 0.005  # length of the fade at both ends, from and to 0
RELIABLE_SECONDS = 2.0  # shorter speech takes the gain of its voice: a single word may be loud by itself


def speech_bounds(audio: np.ndarray, rate: int) -> tuple[int, int]:
    """Return the samples between which float audio [samples] is speech, with short margins; all of it if it is silent.

    The threshold is relative to the loudest block, so that it does not depend on the voice's level.
    """
    block = max(1, round(BLOCK_SECONDS * rate))
    padded = np.pad(audio, (0, -len(audio) % block)).reshape(-1, block)
    power = np.mean(np.square(padded, dtype=np.float64), axis=1)
    if not len(power) or power.max() == 0:
        return 0, len(audio)
    loud = np.flatnonzero(power > QUIET**2 * power.max())
    start = loud[0] * block - round(LEAD_SECONDS * rate)
    end = (loud[-1] + 1) * block + round(TAIL_SECONDS * rate)
    return max(0, int(start)), min(len(audio), int(end))


class Gains:
    """The gain of each take, so that all are equally loud."""

    def __init__(self, takes: Iterable[tuple[str, Take]], rate: int, target: float | None) -> None:
        """takes: with the names of their voices. target: LUFS; None leaves all as they are."""
        self._rate = rate
        self._target = target
        measured: dict[str, list[float]] = defaultdict(list)
        for voice, take in takes:
            if take.loudness is not None and self._is_reliable(take):
                measured[voice].append(take.loudness)
        self._medians = {voice: median(values) for voice, values in measured.items()}

    def _is_reliable(self, take: Take) -> bool:
        return take.end - take.start >= RELIABLE_SECONDS * self._rate

    def factor(self, voice: str, take: Take) -> float:
        """Return what to multiply a take's samples with."""
        if self._target is None:
            return 1.0
        loudness = take.loudness
        if not self._is_reliable(take):
            loudness = self._medians.get(voice, loudness)
        return gain_for(loudness, self._target)


def fade_ends(audio: np.ndarray, rate: int) -> np.ndarray:
    """Return float audio [samples] that begins and ends at 0: a cut inside a sound would click."""
    length = min(round(FADE_SECONDS * rate), len(audio) // 2)
    if not length:
        return audio
    ramp = np.sin(0.5 * np.pi * np.arange(length) / length).astype(np.float32) ** 2
    faded = audio.copy()
    faded[:length] *= ramp
    faded[-length:] *= ramp[::-1]
    return faded


def finish_speech(audio: np.ndarray, take: Take, rate: int, speed: float, factor: float) -> np.ndarray:
    """Return the speech of a take as the book has it, float32 [samples].

    audio: the take's, [samples]. speed: keeps the pitch; the result has round(speech / speed) samples.
    """
    speech = audio[take.start : take.end]
    if speed != 1:
        stretch = Stretch(rate, speed)
        speech = np.concatenate([stretch.write(speech), stretch.close()])
    limiter = Limiter(rate)
    speech = np.concatenate([limiter.write(speech * np.float32(factor)), limiter.close()])
    return fade_ends(speech.astype(np.float32), rate)


def silence(seconds: float, rate: int) -> np.ndarray:
    """Return a pause, float32 [samples]."""
    return np.zeros(round(seconds * rate), np.float32)
