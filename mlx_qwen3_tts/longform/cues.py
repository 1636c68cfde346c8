"""When each sentence of a segment is heard, and how its text fits on a screen.

samples, sentences ─ sentence_cues ─ Cue, Cue, ... ─ break_cue ─ cues of two short lines

A segment's first and last sample are known. The times between its sentences are estimated: by the share of characters,
then moved to a pause nearby.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

_BLOCK_SECONDS = 0.02
_QUIET = 0.05  # share of the loudness of loud blocks (-26 dB): pauses are below it
_REACH = 0.45  # share of the shorter neighbour's length; below 0.5, boundaries keep their order
_DISTANCE_COST = 0.25  # seconds of pause that a second of distance outweighs
MAX_LINES = 2
_NO_LINE_START = set("，。、．！？：；）］｝〉》」』】〕〗〙〛”’…‥·・ー々ゝゞヽヾ％°~～,.!?:;)]}%")
_NO_LINE_END = set("（［｛〈《「『【〔〖〘〚“‘([{")


@dataclass(frozen=True)
class Cue:
    """A text, and when it is heard: from `start_sample` up to `end_sample`.

    estimated: either of them is not exact. chapter: from 1.
    """

    start_sample: int
    end_sample: int
    text: str
    estimated: bool = False
    chapter: int = 1


def sentence_cues(
    audio: np.ndarray, sample_rate: int, start_sample: int, sentences: Sequence[str], chapter: int = 1
) -> list[Cue]:
    """Return a cue for each sentence of a segment; one sentence alone has exact times.

    audio: the segment's samples, as they are in the file. start_sample: of the first of them.
    """
    sentences = [sentence for sentence in sentences if sentence.strip()]
    if not sentences or not len(audio):
        return []
    weights = np.array([_weight(sentence) for sentence in sentences], np.float64)
    ends = np.cumsum(weights) / weights.sum() * len(audio)
    loudness = _block_loudness(audio, sample_rate)
    pauses = [
        _find_pause(
            loudness, sample_rate, ends[i], _REACH * len(audio) * min(weights[i], weights[i + 1]) / weights.sum()
        )
        for i in range(len(sentences) - 1)
    ]
    starts = [0, *(end for _, end in pauses)]
    stops = [*(start for start, _ in pauses), len(audio)]
    return [
        Cue(start_sample + start, start_sample + stop, sentence.strip(), len(sentences) > 1, chapter)
        for start, stop, sentence in zip(starts, stops, sentences, strict=True)
    ]


def _weight(text: str) -> int:
    """Return the number of letters, digits and signs, at least 1."""
    return max(1, sum(not character.isspace() for character in text))


def _block_loudness(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the root mean square of each block, relative to that of the loud ones: [blocks]."""
    block = max(1, round(_BLOCK_SECONDS * sample_rate))
    padded = np.pad(audio, (0, -len(audio) % block)).reshape(-1, block)
    loudness = np.sqrt(np.mean(np.square(padded, dtype=np.float64), axis=1))
    return loudness / max(float(np.quantile(loudness, 0.9)), 1e-9)


def _find_pause(loudness: np.ndarray, sample_rate: int, expected: float, reach: float) -> tuple[int, int]:
    """Return the first and the last sample of a pause, which is long and near; a point if there is none.

    expected, reach: samples.
    """
    block = max(1, round(_BLOCK_SECONDS * sample_rate))
    first = int(np.ceil((expected - reach) / block))
    last = int((expected + reach) / block)
    if last - first < 2:
        return round(expected), round(expected)
    window = loudness[first:last]
    quiet = np.flatnonzero(np.diff(np.concatenate([[False], window < _QUIET, [False]])))
    runs = quiet.reshape(-1, 2) + first
    if not len(runs):
        point = (first + int(window.argmin())) * block + block // 2
        return point, point
    centres = runs.mean(axis=1) * block
    lengths = (runs[:, 1] - runs[:, 0]) * block
    best = int((lengths - _DISTANCE_COST * np.abs(centres - expected)).argmax())
    return int(runs[best, 0]) * block, int(runs[best, 1]) * block


def break_cue(cue: Cue, max_width: int) -> list[Cue]:
    """Return cues with at most two lines of max_width columns each, whose times are shares of the cue's.

    A wide (Chinese, Japanese) character takes two columns. Lines break at spaces, and between wide characters.
    """
    units = [part for unit in _units(cue.text) for part in _pieces(unit, max_width)]
    lines = _fill(units, max_width)
    narrowest = max_width
    while narrowest > 1 and len(_fill(units, narrowest - 1)) == len(lines):  # lines of about one length
        narrowest -= 1
    lines = _fill(units, narrowest)
    screens = [lines[index : index + MAX_LINES] for index in range(0, len(lines), MAX_LINES)]
    if len(screens) <= 1:
        return [replace(cue, text="\n".join(lines))]
    weights = np.array([sum(map(_weight, screen)) for screen in screens], np.float64)
    length = cue.end_sample - cue.start_sample
    edges = [0, *np.rint(np.cumsum(weights) / weights.sum() * length).astype(int).tolist()]
    return [
        replace(
            cue,
            start_sample=cue.start_sample + edges[index],
            end_sample=cue.start_sample + edges[index + 1],
            text="\n".join(screen),
            estimated=True,
        )
        for index, screen in enumerate(screens)
    ]


def text_width(text: str) -> int:
    """Return the columns that a text takes on a screen."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 1


def _is_breakable(character: str) -> bool:
    """Return True for a character that a line may end after or begin with: wide, but not Korean, which has spaces."""
    return _character_width(character) == 2 and not unicodedata.name(character, "").startswith("HANGUL")


def _units(text: str) -> list[str]:
    """Return the parts of a text between which a line may break; a space is at the end of a part."""
    units = [""]
    for character in text:
        previous = units[-1][-1:]
        can_break = previous.isspace() or (
            previous != ""
            and (_is_breakable(previous) or _is_breakable(character))
            and character not in _NO_LINE_START
            and previous not in _NO_LINE_END
        )
        if can_break and not character.isspace():
            units.append("")
        units[-1] += character
    return units


def _pieces(unit: str, max_width: int) -> list[str]:
    """Return a part in pieces that fit on a line; nearly always it does."""
    pieces = [""]
    for character in unit:
        if text_width((pieces[-1] + character).rstrip()) > max_width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _fill(units: Sequence[str], max_width: int) -> list[str]:
    """Return lines, each filled as far as it goes."""
    lines = [""]
    for unit in units:
        if lines[-1] and text_width((lines[-1] + unit).rstrip()) > max_width:
            lines.append("")
        lines[-1] += unit
    return [line.strip() for line in lines]
