"""The segments of a chapter and the pauses between them, before they have places and seeds.

[Spoken | Rest | SceneBreak] ─ passages: paragraphs, short ones joined, each with the pause after it ─ cut ─ [Draft]
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .cut import End, cut
from .lengths import letters_in
from .options import BookOptions
from .script import Item, Rest, SceneBreak, Spoken
from .sentences import ends_sentence

# A paragraph with fewer letters, about a second of speech such as "Yes.", is read together with its neighbour: a word
# alone gives the model no tone to go by. Every longer paragraph is a segment of its own or several, so that the pause
# after it is the book's and not left to the model.
SHORT_PARAGRAPH = 16


@dataclass
class Passage:
    """A heading, or paragraphs that line ends separate, or a part of one, in one voice.

    pause: seconds after it. is_set: the script asks for the pause. ends_scene: a scene break follows.
    """

    text: str
    voice: str | None
    kind: str
    ends_block: bool
    pause: float
    is_set: bool = False
    ends_scene: bool = False


@dataclass
class Draft:
    """A segment without its place and seed. is_set: the script asks for the pause."""

    shown: str
    voice: str | None
    kind: str
    pause: float
    is_set: bool


def drafts_of(items: Sequence[Item], options: BookOptions) -> tuple[float, list[Draft]]:
    """Return the pause before a chapter in seconds, and its segments."""
    before, passages = _passages(items, options)
    drafts = []
    for passage in _joined(passages, options.max_chars):
        pieces = cut(passage.text, options.min_chars, options.max_chars)
        for piece in pieces[:-1]:
            drafts.append(Draft(piece.text, passage.voice, passage.kind, _pause_at(piece.end, options), False))
        drafts.append(Draft(pieces[-1].text, passage.voice, passage.kind, passage.pause, passage.is_set))
    return before, drafts


def _passages(items: Sequence[Item], options: BookOptions) -> tuple[float, list[Passage]]:
    """Return the pause before the first passage, and the passages."""
    before = 0.0
    passages: list[Passage] = []
    for item in items:
        if isinstance(item, Spoken):
            passages.append(Passage(item.text, item.voice, item.kind, item.ends_block, _pause_after(item, options)))
        elif isinstance(item, Rest) and not passages:
            before += item.seconds
        elif isinstance(item, Rest):
            last = passages[-1]
            if not last.is_set:  # the script's rests replace the pause
                last.pause = 0.0
            last.pause += item.seconds
            last.is_set = True
        elif isinstance(item, SceneBreak) and passages:
            last = passages[-1]
            last.ends_scene = True
            if not last.is_set:
                last.pause = max(last.pause, options.break_pause)
    return before, passages


def _pause_after(spoken: Spoken, options: BookOptions) -> float:
    """Return the pause after a heading, a paragraph, or a part of one before another voice or a rest."""
    if spoken.ends_block and spoken.kind == "heading":
        return options.heading_pause
    if spoken.ends_block:
        return options.paragraph_pause
    if ends_sentence(spoken.text):
        return options.sentence_pause
    return options.clause_pause


def _pause_at(end: End, options: BookOptions) -> float:
    """Return the pause after a cut inside a passage."""
    pauses = {
        End.PARAGRAPH: options.paragraph_pause,
        End.SENTENCE: options.sentence_pause,
        End.CLAUSE: options.clause_pause,
    }
    return pauses.get(end, 0.0)


def _joined(passages: Sequence[Passage], longest: float) -> list[Passage]:
    """Return the passages with each short paragraph joined to the next, or else to the one before."""
    joined: list[Passage] = []
    for passage in passages:
        if joined and _belong_together(joined[-1], passage, longest) and _is_short(joined[-1]):
            joined[-1] = _join(joined[-1], passage)
        else:
            joined.append(passage)
    found: list[Passage] = []
    for passage in joined:
        if found and _belong_together(found[-1], passage, longest) and _is_short(passage):
            found[-1] = _join(found[-1], passage)
        else:
            found.append(passage)
    return found


def _is_short(passage: Passage) -> bool:
    return letters_in(passage.text) < SHORT_PARAGRAPH


def _belong_together(first: Passage, second: Passage, longest: float) -> bool:
    """Return whether two passages are paragraphs in one voice with nothing but a paragraph's pause between them."""
    return (
        first.kind == second.kind == "paragraph"
        and first.voice == second.voice
        and first.ends_block
        and second.ends_block
        and not (first.is_set or first.ends_scene)
        and letters_in(first.text) + letters_in(second.text) < longest
    )


def _join(first: Passage, second: Passage) -> Passage:
    text = f"{first.text}\n{second.text}"
    return Passage(text, second.voice, second.kind, second.ends_block, second.pause, second.is_set, second.ends_scene)
