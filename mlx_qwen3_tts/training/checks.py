"""Is a clip fit to learn from? Each check returns the reason to leave it out, or None.

text ─ text_problem          samples ─ audio_problem          codes of the source ─ codes_problem
text and seconds ─ speaking_rate ─ rate_problem, and rate_problems against the speaker's other clips
"""

import string
import unicodedata
from collections.abc import Sequence

import numpy as np

from ..text.unicode import is_unicode

MIN_SECONDS = 0.5
MIN_PEAK = 0.003  # -50 dB of full scale: below it is the noise of a room
FULL_SCALE = 0.999  # 16-bit files end just below 1
MAX_CLIPPED = 1e-3  # share of samples at full scale
CODES_TOLERANCE = 2  # frames by which codes may differ from the length of their audio

# Letters per second: English has some 14, a fast speaker 25.
PAUSE = 8  # letters, some 0.6 s: the silence that a clip may have at its ends
MIN_RATE = 3.0
MAX_RATE = 40.0
MAX_FACTOR = 2.5  # between a clip and the median of its speaker
MIN_CLIPS = 8  # clips that a speaker needs for a median
WIDE_LETTERS = 3  # letters that a Chinese, Japanese or Korean character counts as, a syllable each
DIGIT_LETTERS = 4  # letters that a digit counts as: 1999 is read as nineteen ninety-nine


def text_problem(text: str) -> str | None:
    """Check a text without regard to its audio."""
    if not text.strip():
        return "no text"
    if not is_unicode(text):
        return "the text is not valid Unicode"
    if not count_letters(text):
        return "no text that can be spoken: there are no letters or digits"
    return None


def audio_problem(samples: np.ndarray, rate: int) -> str | None:
    """Check audio, float32 [samples] at its own rate."""
    seconds = len(samples) / rate
    if seconds < MIN_SECONDS:
        return f"too short: {seconds:.2f} s, at least {MIN_SECONDS:g} s are needed"
    loudness = np.abs(samples)
    peak = float(loudness.max())
    if peak < MIN_PEAK:
        return f"silent: no sample is above {MIN_PEAK:g} of full scale"
    clipped = float(np.mean(loudness >= FULL_SCALE * max(peak, 1)))
    if clipped > MAX_CLIPPED:
        return f"clipped: {clipped:.1%} of the samples are at full scale"
    return None


def codes_problem(codes: np.ndarray, frames: float) -> str | None:
    """Check codes [frames, 16] that the source gives. frames: the length of the audio."""
    if abs(len(codes) - frames) > CODES_TOLERANCE:
        return f"audio_codes do not fit: they have {len(codes)} frames, the audio {frames:.0f}"
    return None


def count_letters(text: str) -> int:
    """Return the length of a text in letters of the Latin alphabet, about as long as it takes to say it."""
    count = 0
    for char in text:
        if char in string.digits:
            count += DIGIT_LETTERS
        elif char.isalnum() and unicodedata.east_asian_width(char) in "WF":
            count += WIDE_LETTERS
        elif char.isalnum():
            count += 1
    return count


def speaking_rate(text: str, seconds: float) -> float:
    """Return letters per second, with an allowance for silence, without which short clips would seem slow."""
    return (count_letters(text) + PAUSE) / seconds


def rate_problem(rate: float) -> str | None:
    """Check a speaking rate by the limits of speech."""
    if rate < MIN_RATE:
        return f"the text does not fit: it is too short for the clip ({rate:.1f} letters a second)"
    if rate > MAX_RATE:
        return f"the text does not fit: it is too long for the clip ({rate:.0f} letters a second)"
    return None


def rate_problems(rates: Sequence[float]) -> list[str | None]:
    """Check the speaking rates of one speaker against their median, which wrong texts hardly move."""
    if len(rates) < MIN_CLIPS:
        return [None] * len(rates)
    median = float(np.median(rates))
    return [_outlier_problem(rate, median) for rate in rates]


def _outlier_problem(rate: float, median: float) -> str | None:
    if median / MAX_FACTOR <= rate <= median * MAX_FACTOR:
        return None
    return f"the text does not fit: {rate:.1f} letters a second; this speaker's median is {median:.1f}"
