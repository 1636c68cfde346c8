"""Speech that does not stop: a frame budget from the text's length, and a guard that hears when nothing more is said.

    codes [frames, 16], audio ─ Guard.admit ─ what may be given out ─► AudioChunk
                                  └ held back: silence, or a cycle, that lasts ─► out when speech goes on, or dropped

The model ends its speech itself, but for about one request in some hundreds, which goes on in near-silence or in a
cycle of the same sounds. The first second of near-silence is given out as ever; from there on it is held back, until
either speech goes on, and all of it follows, or it has lasted too long, and the speech ends where it was held.
So whoever plays the stream hears at most a second of it, nothing that was given out is taken back, and the chunks
add up to the whole. A pause in speech is not shortened; the part of it beyond a second comes with the speech after it.
The official code knows none of this: it runs to max_new_tokens.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

FRAMES_PER_TOKEN = 12.0  # of the budget: 0.96 s for each token of the text, some 3 times what speech takes
SPARE_FRAMES = 250  # 20 s more, for short texts and slow beginnings

QUIET, FLOOR = 0.01, 0.0003  # a frame is near-silent 40 dB below the loudest one, and below -70 dB of full scale
SILENCE_HELD, SILENCE_TOO_LONG = 13, 50  # frames: over 1 s, and 4 s. Pauses of up to 3 s are speech
CYCLE = 8  # frames of the longest cycle looked for
CYCLE_HELD, CYCLE_TOO_LONG = 38, 100  # frames: 3 s, 8 s, as the same codebook-0 id is also what a pause is made of


def frame_budget(tokens: int, frames_per_token: float | None = None) -> int:
    """The most frames for a text of that many tokens; None takes FRAMES_PER_TOKEN."""
    return SPARE_FRAMES + math.ceil(tokens * (FRAMES_PER_TOKEN if frames_per_token is None else frames_per_token))


def retry_seed(seed: int) -> int:
    """The seed of the second attempt after a runaway."""
    return (seed + 0x9E3779B9) % 2**32


class Guard:
    """Lets a request's frames pass, but for a runaway's. Give it the frames in their order, however they are cut."""

    def __init__(self) -> None:
        self._held: list[tuple[np.ndarray, np.ndarray]] = []
        self._loudest = 0.0
        self._silence = 0  # frames that the present silence has lasted since the text was over
        self._cycles = [0] * CYCLE  # the same of each period, 1 to CYCLE, of codebook 0
        self._past: deque[int] = deque(maxlen=CYCLE)  # codebook 0

    def admit(
        self, codes: np.ndarray, audio: np.ndarray, over: Sequence[bool], reason: str | None
    ) -> tuple[np.ndarray, np.ndarray, str | None]:
        """Take the next frames, codes [frames, 16] and audio [samples]; return those that may be given out now.

        over: for each frame, whether all of the text was there before it. reason: why these frames are the last ones,
        or None; it is returned, or "runaway" in its place.
        """
        passed = []
        for row, samples, text_over in zip(codes, np.split(audio, max(1, len(codes))), over, strict=False):
            self._held.append((row, samples))
            self._hear(int(row[0]), samples, text_over)
            if self._lasts(SILENCE_TOO_LONG, CYCLE_TOO_LONG):
                return *_join(passed, codes, audio), "runaway"
            if not self._lasts(SILENCE_HELD, CYCLE_HELD):
                passed += self._held
                self._held.clear()
        if reason:  # it was a pause at the end, as the model made it
            passed += self._held
        return *_join(passed, codes, audio), reason

    def _hear(self, code: int, samples: np.ndarray, text_over: bool) -> None:
        loudness = float(np.sqrt(np.mean(np.square(samples))))
        self._loudest = max(self._loudest, loudness)
        silent = text_over and loudness < max(FLOOR, QUIET * self._loudest)
        self._silence = self._silence + 1 if silent else 0
        for i, before in enumerate(self._past):
            self._cycles[i] = self._cycles[i] + 1 if text_over and code == before else 0
        self._past.appendleft(code)

    def _lasts(self, silence: int, cycle: int) -> bool:
        return self._silence >= silence or max(self._cycles) >= cycle


def _join(
    frames: list[tuple[np.ndarray, np.ndarray]], codes: np.ndarray, audio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frames as codes and audio of the types of these two."""
    if not frames:
        return codes[:0], audio[:0]
    return np.stack([row for row, _ in frames]), np.concatenate([samples for _, samples in frames])
