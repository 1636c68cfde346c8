"""Runaway speech: a frame budget, and a detector of silence and loops after the text.

    codes [frames, 16], audio ─ RunawayDetector.push ─ frames to emit ─► AudioChunk
                                   └ buffered: silence, or a cycle, that lasts ─► emitted if speech resumes, or dropped

The model ends its speech itself, except for roughly one request in a few hundred, which misses the end and continues
with near-silence or a repeating loop. The first second of silence is emitted normally; after that it is buffered, then
emitted if speech resumes, or dropped if it has lasted too long, which ends the speech. So whoever plays the stream
hears at most a second of it, nothing that was emitted is taken back, and the chunks add up to the whole. A pause is
not shortened: the part of it beyond a second comes with the speech after it.
The official code has none of this: it runs to max_new_tokens.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from ..request import Request

FRAMES_PER_SECOND = 12.5
FRAMES_PER_TOKEN = 12.0  # frames in the budget for each token, 0.96 s: some 3 times what speech takes
SPARE_FRAMES = 250  # 20 s more, for short texts and slow beginnings

QUIET = 0.01  # share of the loudest frame, -40 dB: a frame below it is near-silent
FLOOR = 0.0003  # share of full scale, -70 dB: a frame below it is near-silent, too
SILENCE_BUFFERED = 13  # frames, over 1 s
MAX_SILENCE = 50  # frames, 4 s: pauses of up to 3 s are speech
MAX_PERIOD = 8  # frames of the longest cycle that is detected
CYCLE_BUFFERED = 38  # frames, 3 s
MAX_CYCLING = 100  # frames, 8 s: longer than for silence, since pauses also repeat one id


def frame_budget(tokens: int, frames_per_token: float | None = None) -> int:
    """Return the most frames for a text of that many tokens; None takes FRAMES_PER_TOKEN."""
    if frames_per_token is None:
        frames_per_token = FRAMES_PER_TOKEN
    return SPARE_FRAMES + math.ceil(tokens * frames_per_token)


def frames_in_budget(request: Request, text_length: int, generated: int, consumed: list[bool]) -> int:
    """Return the number of new frames that fit into the frame budget, which follows from the text's length.

    generated: frames before the new ones. consumed: for each new one, whether all of the text had been taken before
    it; until then the text's length, and so the budget, are not known.
    """
    if request.max_frames is not None or not request.stop_runaway:
        return len(consumed)
    budget = frame_budget(text_length, request.frames_per_token)
    return sum(generated + i < budget or not late for i, late in enumerate(consumed))


def retry_seed(seed: int) -> int:
    """Return the seed of the second attempt after a runaway."""
    return (seed + 0x9E3779B9) % 2**32


def detector_for(request: Request) -> "RunawayDetector | None":
    """Return the detector that a request asks for, if any."""
    if not request.stop_runaway:
        return None
    if request.max_silence is None:
        return RunawayDetector()
    return RunawayDetector(round(request.max_silence * FRAMES_PER_SECOND))


class RunawayDetector:
    """Passes a request's frames on, except those of a runaway. The result does not depend on how they are chunked."""

    def __init__(self, max_silence: int = MAX_SILENCE) -> None:
        """max_silence: frames of silence that end the speech."""
        self._max_silence = max_silence
        self._buffered: list[tuple[np.ndarray, np.ndarray]] = []
        self._loudest = 0.0
        self._silence = 0  # frames that the present silence has lasted since the text was consumed
        self._cycles = [0] * MAX_PERIOD  # the same for each period, 1 to MAX_PERIOD, of codebook 0
        self._past: deque[int] = deque(maxlen=MAX_PERIOD)  # codebook 0

    def push(
        self, codes: np.ndarray, audio: np.ndarray, text_consumed: Sequence[bool], last: bool = False
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Take the next frames; return those to emit now, and whether the speech has run away and is over.

        codes: [frames, 16]. audio: [samples]. text_consumed: for each frame, whether all of the text had been taken
        before it. last: no frames follow, so that what is buffered is a pause at the end.
        """
        emitted: list[tuple[np.ndarray, np.ndarray]] = []
        for row, samples, consumed in zip(codes, np.split(audio, max(1, len(codes))), text_consumed, strict=False):
            self._buffered.append((row, samples))
            self._observe(int(row[0]), samples, consumed)
            if self._lasts(self._max_silence, MAX_CYCLING):
                return *_join(emitted, codes, audio), True
            if not self._lasts(SILENCE_BUFFERED, CYCLE_BUFFERED):
                emitted += self._buffered
                self._buffered.clear()
        if last:
            emitted += self._buffered
        return *_join(emitted, codes, audio), False

    def _observe(self, code: int, samples: np.ndarray, text_consumed: bool) -> None:
        loudness = float(np.sqrt(np.mean(np.square(samples))))
        self._loudest = max(self._loudest, loudness)
        silent = text_consumed and loudness < max(FLOOR, QUIET * self._loudest)
        self._silence += 1
        if not silent:
            self._silence = 0
        for i, before in enumerate(self._past):
            self._cycles[i] += 1
            if not text_consumed or code != before:
                self._cycles[i] = 0
        self._past.appendleft(code)

    def _lasts(self, silence: int, cycling: int) -> bool:
        return self._silence >= silence or max(self._cycles) >= cycling


def _join(
    frames: list[tuple[np.ndarray, np.ndarray]], codes: np.ndarray, audio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frames as codes and audio of the types of these two."""
    if not frames:
        return codes[:0], audio[:0]
    return np.stack([row for row, _ in frames]), np.concatenate([samples for _, samples in frames])
