"""Loudness as people hear it (EBU R 128), and a limiter of peaks.

audio ─ LoudnessMeter: FFmpeg's ebur128 ─ LUFS ─ gain_for ─ audio * gain ─ Limiter ─ no sample above the ceiling
"""

import os
import re
import tempfile

import numpy as np

from ..errors import AudioError
from .pyav import FilterChain, load_pyav

CEILING_DB = -1.0  # dBFS: lossy codecs overshoot a little
MAX_GAIN_DB = 20.0
_GATE = -70.0  # LUFS: what is softer does not count (ITU-R BS.1770)
_INTEGRATED = "lavfi.r128.I"
_LAST_BYTES = 1000  # bytes at the end of the measurements, of which there are 10 a second
_RAMP_SECONDS = 0.005  # time in which the limiter's gain falls and rises
_HOLD_SECONDS = 0.05  # time for which the gain stays low, longer than a period of a voice


class LoudnessMeter:
    """Measures the integrated loudness of audio that comes in chunks; memory is flat. Needs PyAV."""

    def __init__(self, sample_rate: int) -> None:
        """Raises AudioError if PyAV is missing, or no temporary file can be made."""
        av = load_pyav("loudness")
        # The measurement is metadata of frames, which PyAV shows from version 18 on; a file has it with any.
        try:
            self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115  (closed by close, or with the meter)
        except OSError as error:
            raise AudioError(f"loudness needs a temporary file: {error.strerror}") from None
        report = {"mode": "print", "key": _INTEGRATED, "file": self._log.name, "direct": "1"}
        self._chain = FilterChain(av, [("ebur128", {"metadata": "1"}), ("ametadata", report)], sample_rate)

    def write(self, audio: np.ndarray) -> None:
        """Take float mono audio [samples] in -1 .. 1. Raises AudioError."""
        self._chain.push(audio)

    def close(self) -> float | None:
        """Return the loudness in LUFS, as `integrated_loudness`. Raises AudioError."""
        self._chain.flush()
        with self._log as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - _LAST_BYTES))
            found = re.findall(rf"{re.escape(_INTEGRATED)}=(\S+)\n", log.read().decode())
        if found and float(found[-1]) > _GATE:
            return float(found[-1])
        return None


def integrated_loudness(audio: np.ndarray, sample_rate: int) -> float | None:
    """Return the integrated loudness of float mono audio [samples] in LUFS, to 0.01.

    None if there is nothing to measure: the audio is shorter than a block (400 ms), or all of it is below -70 LUFS.
    The loudness of a mono file is that of its one channel: a sine of 1 kHz at full scale has -3 LUFS.
    Raises AudioError if PyAV is missing.
    """
    meter = LoudnessMeter(sample_rate)
    meter.write(audio)
    return meter.close()


def gain_for(loudness: float | None, target: float) -> float:
    """Return the factor that brings audio of `loudness` to `target`, both in LUFS; 1 if the loudness is None.

    It amplifies by at most 20 dB, so that what is nearly silent does not become noise.
    """
    if loudness is None:
        return 1.0
    return float(10 ** (min(target - loudness, MAX_GAIN_DB) / 20))


class Limiter:
    """Lowers what exceeds a ceiling, and leaves everything else bit by bit as it is.

    The gain falls within 5 ms before a peak, stays for 50 ms, and rises within 5 ms. No sample exceeds the ceiling;
    peaks between samples may, slightly. The output has the samples of the input at their places, and does not depend on
    the chunks.
    """

    def __init__(self, sample_rate: int, ceiling: float = CEILING_DB) -> None:
        """ceiling: in dBFS."""
        self._ceiling = np.float32(10 ** (ceiling / 20))
        self._ramp = round(_RAMP_SECONDS * sample_rate)
        self._hold = round(_HOLD_SECONDS * sample_rate)
        # What the next output depends on before it, and those samples of the input that wait for others after them.
        self._history = self._ramp + self._hold
        self._buffer = np.zeros(self._history, np.float32)

    def write(self, audio: np.ndarray) -> np.ndarray:
        """Take float audio [samples], and return those samples that are ready, 5 ms behind."""
        self._buffer = np.concatenate([self._buffer, audio.astype(np.float32)])
        count = len(self._buffer) - self._history - self._ramp
        if count <= 0:
            return np.zeros(0, np.float32)
        result = self._limit(self._buffer, count)
        self._buffer = self._buffer[count:]
        return result

    def close(self) -> np.ndarray:
        """Return the last samples."""
        return self.write(np.zeros(self._ramp, np.float32))

    def _limit(self, audio: np.ndarray, count: int) -> np.ndarray:
        """Return `count` samples, which follow the history in `audio`."""
        result = audio[self._history : self._history + count].copy()
        peaks = np.abs(audio)
        if peaks.max() <= self._ceiling:
            return result
        allowed = self._ceiling / np.maximum(peaks, self._ceiling).astype(np.float64)  # at most 1
        # A minimum over what is `hold` before to `ramp` after; the mean of `ramp + 1` of them is a ramp that is nowhere
        # above what is allowed, because each of them covers the sample in the middle.
        lowest = _sliding_minimum(allowed, self._hold + self._ramp + 1)
        gain = np.zeros(count)
        for offset in range(self._ramp + 1):  # in this order whatever the chunk is
            gain += lowest[offset : offset + count]
        gain /= self._ramp + 1
        # The clip is for the last bit. A gain of 1 is exact, and changes nothing.
        return np.clip(result * gain, -self._ceiling, self._ceiling).astype(np.float32)


def _sliding_minimum(values: np.ndarray, width: int) -> np.ndarray:
    """Return the minimum of each window of `width` values: [len(values) - width + 1]."""
    size = 1
    while 2 * size <= width:
        values = np.minimum(values[:-size], values[size:])
        size *= 2
    rest = width - size  # two windows of `size` that overlap
    return np.minimum(values[: len(values) - rest], values[rest:])
