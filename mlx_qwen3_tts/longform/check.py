"""Is a segment what it should be? Its length is compared with its text's, and a recognizer may hear it.

    take ─┬─ find_problem: ran away, cut off, silent, too short, too long
          └─ Recognizer: a command of the user's ─ text ─ error rate

No recognizer is bundled: the command is given the path of a WAV file as its last argument, and prints what it hears.
"""

import math
import shlex
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..audio.write import write_audio
from ..errors import BookError
from ..result import FinishReason
from .plan import Segment
from .takes import Heard

SHORTEST = 0.35  # share of the time that a text is expected to take
LONGEST = 3.0
SLACK = 1.5  # seconds more, for short texts
SILENT = 0.002  # share of full scale, -54 dB: speech has louder moments
SECONDS = 600  # the longest that a recognizer may take
ERROR_LIMIT = 0.3  # the share of a text's words or characters that may be heard wrongly
# How wrong a take is, by its problem; the least wrong one is kept.
RAN_AWAY, HEARD_WRONGLY, IMPLAUSIBLE, CUT_OFF, SILENCE = 1.0, 1.5, 3.0, 6.0, 9.0

Problem = tuple[str, float]  # a description, "" for none, and how wrong the take is


def find_problem(segment: Segment, audio: np.ndarray, seconds: float, reason: FinishReason | None) -> Problem:
    """Return what seems wrong with the speech of a segment.

    audio: float [samples]. seconds: of it that are speech. reason: why it ended.
    """
    if not len(audio) or float(np.abs(audio).max()) < SILENT:
        return "it is silent", SILENCE
    if reason == "length":
        return "it was cut off at the frame limit", CUT_OFF
    shortest = SHORTEST * segment.seconds
    longest = LONGEST * segment.seconds + SLACK
    if not shortest <= seconds <= longest:
        kind = "short" if seconds < shortest else "long"
        off = abs(math.log(max(seconds, 0.01) / max(segment.seconds, 0.01)))
        return f"it is too {kind} for its text: {seconds:.1f} s, {segment.seconds:.1f} s were expected", (
            IMPLAUSIBLE + min(off, 2.0)
        )
    if reason == "runaway":
        return "it ran on after its text, which was cut", RAN_AWAY
    return "", 0.0


class Recognizer:
    """A command that prints what it hears in a WAV file."""

    def __init__(self, command: str, limit: float = ERROR_LIMIT) -> None:
        """command: as in a shell, but none is run. limit: of the error rate. Raises BookError."""
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise BookError(f"check must be a command, not {command!r} ({error})", "check") from None
        if not self._arguments:
            raise BookError("check must be a command that prints the text of a WAV file", "check")
        name = self._arguments[0]
        if shutil.which(name) is None:  # reported now: it first runs once a segment is made
            raise BookError(f"check: cannot run {name}: no program of this name is found", "check")
        if not 0 <= limit <= 1:
            raise BookError(f"check_limit must be a number from 0 to 1, not {limit!r}", "check_limit")
        self.command = command
        self.limit = limit

    def hear(self, audio: np.ndarray, sample_rate: int, segment: Segment) -> Heard:
        """Return what the recognizer hears in float audio [samples], and its error. Raises BookError."""
        with tempfile.TemporaryDirectory(prefix="mlx-qwen3-tts-") as folder:
            path = Path(folder) / "segment.wav"
            write_audio(path, audio, sample_rate)
            text = self._run(path)
        error = min(error_rate(expected, text) for expected in (segment.text, segment.shown))
        return Heard(self.command, self.limit, text, round(error, 4))

    def has_heard(self, heard: Heard) -> bool:
        """Return whether this recognizer, with this limit, heard it."""
        return (heard.command, heard.limit) == (self.command, self.limit)

    def judge(self, heard: Heard) -> Problem:
        """Return what seems wrong with a take that was heard."""
        if heard.error <= self.limit:
            return "", 0.0
        return f"it was heard as {heard.text[:80]!r} ({heard.error:.0%} wrong)", HEARD_WRONGLY + min(heard.error, 1.0)

    def _run(self, path: Path) -> str:
        name = self._arguments[0]
        try:
            done = subprocess.run(
                [*self._arguments, str(path)], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BookError(f"check: {name} took longer than {SECONDS} s for one segment", "check") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BookError(f"check: cannot run {name}: {reason}", "check") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(said) if line.strip()), "no message")
            raise BookError(f"check: {name} failed with exit code {done.returncode}: {last}", "check")
        return " ".join(done.stdout.decode(errors="replace").split())


def find_recognizer(check: str | None, check_limit: float | None) -> Recognizer | None:
    """Return the recognizer that runs a command; None without one. Raises BookError."""
    if check is None and check_limit is not None:
        raise BookError("check_limit has no effect without check; leave it out", "check_limit", "check")
    if check is None:
        return None
    if check_limit is None:
        return Recognizer(check)
    return Recognizer(check, check_limit)


def error_rate(expected: str, heard: str) -> float:
    """Return the share of the words of a text that were heard wrongly, or of its characters if it has no spaces.

    Case, punctuation and accents' encodings do not count. Words that were heard in addition do: it may exceed 1.
    """
    words = _words(expected)
    others = _words(heard)
    if any(unicodedata.east_asian_width(c) in "WF" for c in expected):
        words = list("".join(words))
        others = list("".join(others))
    return edit_distance(words, others) / max(1, len(words))


def _words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    return "".join(map(_letter_or_space, text)).split()


def _letter_or_space(character: str) -> str:
    """Return a letter, a digit or an accent as it is, and a space in place of anything else."""
    if unicodedata.category(character)[0] in "LMN":
        return character
    return " "


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the number of items to insert, delete or replace until two sequences are equal (Levenshtein)."""
    costs = list(range(len(other) + 1))
    for i, item in enumerate(one, start=1):
        diagonal, costs[0] = costs[0], i
        for j, against in enumerate(other, start=1):
            replaced = diagonal + (item != against)
            diagonal = costs[j]
            costs[j] = min(replaced, diagonal + 1, costs[j - 1] + 1)
    return costs[-1]
