"""How a book is read: its options, each declared once with its rule and its help text.

BookOptions ─┬─ plan.py: what shapes the segments and their pauses
             ├─ render.py: what shapes their sound and the file
             └─ cli/options.py: a flag for each field
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import RequestError
from ..option import Option, check_options, check_string, invalid, is_number, number, options_of, switch, whole_number
from ..request import DEFAULTS, MAX_SEED, Request, Sampling
from ..voice import VoiceClonePrompt
from .pronounce import Pronunciation

MAX_PAUSE = 60.0  # seconds
MIN_LOUDNESS, MAX_LOUDNESS = -40.0, -8.0  # LUFS

OF_REQUEST = dict(options_of(Request))  # a book passes some of these on to each of its requests
# A book takes no VoiceDesign model, of which the help text of a request speaks.
INSTRUCT = replace(OF_REQUEST["instruct"], description="how to speak (CustomVoice 1.7B)")


def _pause(place: str, default: float) -> Any:
    """Return the field of a pause in seconds."""
    return number(f"seconds of silence {place} (default: {default:g})", 0, MAX_PAUSE, default=default)


def _check_cast(name: str, value: Any) -> None:
    rule = "a mapping of names to voices, such as anna=Serena,ben=Ryan"
    if not isinstance(value, Mapping) or not value:
        raise invalid(name, rule, value)
    for entry in (*value.keys(), *value.values()):
        if not isinstance(entry, str) or not entry.strip() or ":" in entry:
            raise invalid(name, rule, value)
        check_string(name, entry)
    if len({" ".join(entry.split()).casefold() for entry in value}) < len(value):
        raise invalid(name, "a mapping that names everybody once", value)


def _parse_cast(text: str) -> dict[str, str]:
    """Parse "anna=Serena,ben=Ryan". Raises ValueError for anything else."""
    cast: dict[str, str] = {}
    for entry in text.split(","):
        name, equals, voice = (part.strip() for part in entry.partition("="))
        if not name or not equals or not voice or name.casefold() in {known.casefold() for known in cast}:
            raise ValueError(text)
        cast[name] = voice
    return cast


def _check_pronounce(name: str, value: Any) -> None:
    if isinstance(value, str | os.PathLike):
        return
    if not isinstance(value, Sequence) or not all(isinstance(entry, Pronunciation) for entry in value):
        raise invalid(name, "a TSV file or a sequence of Pronunciation", value)


def _check_loudness(name: str, value: Any) -> None:
    if value is not None and not (is_number(value) and MIN_LOUDNESS <= value <= MAX_LOUDNESS):
        raise invalid(name, f"a number from {MIN_LOUDNESS:g} to {MAX_LOUDNESS:g} (LUFS), or off", value)


def _parse_loudness(text: str) -> float | None:
    """Parse a number or "off". Raises ValueError for anything else."""
    if text == "off":
        return None
    return float(text)


@dataclass(frozen=True)
class BookOptions:
    """How a book is read. Every field has a default that suits a book of prose.

    voice, language, instruct, sampling: as in Request; the voice of everything for which the script names no other.
    seed: the book's; the seed of each segment derives from it (see plan.py).
    plain: read script marks (`[pause 0.5]`, `[voice Serena]`, `Anna: ...`) as text.
    cast: the voices of the speakers in dialogues, by name in any case.
    pronounce: a pronunciation list, or the path of one; see pronounce.py.
    any_case: words of the list match in upper and lower case, unless the list's third column says otherwise.
    max_chars, min_chars: the length of a segment. The unit is the time that a letter of Latin script takes, some
    1/15 s; other characters count as many letters as they take time (see lengths.py).
    chapter_pause ... clause_pause: seconds of silence after what they name. A longer unit's pause takes the place of
    a shorter one's. The pauses inside a segment are the model's.
    speed: of the finished speech, by time-stretch that keeps the pitch.
    loudness: LUFS of the finished speech (EBU R128); None leaves it as it is.
    attempts: how often a segment that failed is made, with other seeds.
    batch_size: segments under way at a time.
    Raises RequestError for an invalid value, and for options that contradict each other.
    """

    voice: str | VoiceClonePrompt | None = field(default=None, metadata={"option": OF_REQUEST["voice"]})
    language: str | None = field(default=None, metadata={"option": OF_REQUEST["language"]})
    instruct: str | None = field(default=None, metadata={"option": INSTRUCT})
    sampling: Sampling = field(default=DEFAULTS, metadata={"option": OF_REQUEST["sampling"]})
    seed: int = whole_number("the book's seed; each segment's derives from it (default: 0)", 0, MAX_SEED, default=0)
    plain: bool = switch("read script marks, such as [pause 0.5], as text", default=False)
    cast: Mapping[str, str] | None = field(
        default=None,
        metadata={
            "option": Option(
                "the voices of lines that begin with a name, as in 'Anna: Good morning.'",
                _check_cast,
                _parse_cast,
                metavar="NAME=VOICE,...",
            )
        },
    )
    pronounce: str | os.PathLike[str] | Sequence[Pronunciation] | None = field(
        default=None,
        metadata={
            "option": Option(
                "pronunciation list: a word, a tab and its spoken form in each line", _check_pronounce, str,
                metavar="FILE",
            )
        },
    )  # fmt: skip
    any_case: bool = switch("the pronunciation list's words match in upper and lower case", default=False)
    max_chars: int = whole_number(
        "letters in a segment at most (default: 500); a Chinese character counts as some three", 40, 2000, default=500
    )
    min_chars: int = whole_number(
        "letters below which a segment is balanced with its neighbour (default: 300)", 1, 2000, default=300
    )
    chapter_pause: float = _pause("between chapters", 2.0)
    break_pause: float = _pause("at a scene break", 1.5)
    heading_pause: float = _pause("after a heading", 1.0)
    paragraph_pause: float = _pause("after a paragraph", 0.6)
    sentence_pause: float = _pause("after a sentence that ends a segment", 0.3)
    clause_pause: float = _pause("after a clause that ends a segment", 0.12)
    speed: float = number("of the speech, at the same pitch (default: 1)", 0.8, 1.5, default=1.0)
    loudness: float | None = field(
        default=-18.0,
        metadata={
            "option": Option("LUFS, or off (default: -18)", _check_loudness, _parse_loudness, metavar="N")
        },
    )  # fmt: skip
    attempts: int = whole_number(
        "make a segment that failed up to N times, with other seeds (default: 3)", 1, 100, default=3
    )
    batch_size: int = whole_number("segments under way at a time (default: 8)", 1, 16, default=8)

    def __post_init__(self) -> None:
        check_options(BookOptions, vars(self))
        if self.min_chars > self.max_chars:
            message = f"min_chars must be at most max_chars ({self.max_chars}), not {self.min_chars}"
            raise RequestError(message, "min_chars", "max_chars")
        if self.plain and self.cast is not None:
            raise RequestError("cast has no effect with plain=True; leave one out", "cast", "plain")
        if self.any_case and self.pronounce is None:
            raise RequestError("any_case has no effect without pronounce; leave it out", "any_case", "pronounce")
