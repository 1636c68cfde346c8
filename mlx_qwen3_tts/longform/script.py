"""What a chapter's script marks ask for: pauses, voices, and the speakers of dialogues.

Chapter ─ blocks ─ lines of speakers ─ marks ─ [Spoken | Rest | SceneBreak], and notes on what is not a mark

    [pause 0.5]                     so many seconds of silence
    [voice Serena] ... [/voice]     another voice, over as many paragraphs of a chapter as it takes
    Anna: Good morning.             a paragraph that begins with a name of the cast, in her voice, without the name
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .document import Block, Chapter
from .options import MAX_PAUSE, BookOptions

MARK = re.compile(r"\[([^\[\]]{1,80})\]")
PAUSE = re.compile(r"pause\s+(\d{1,9}(?:\.\d{1,9})?)", re.IGNORECASE)
VOICE = re.compile(r"voice\s+(\S.*)", re.IGNORECASE)
END_OF_VOICE = re.compile(r"/\s*voice", re.IGNORECASE)

OPENING = re.compile(r"(?<!\S)[\"'“‘«„‚「『(\[]+$")
CLOSING = re.compile(r"[^\w\s\[(“‘«„]+(?=\s|$)")


@dataclass(frozen=True)
class Spoken:
    """Text in one voice, all of a heading or paragraph or a part of it. voice: None is the book's."""

    text: str
    kind: str
    voice: str | None
    ends_block: bool


@dataclass(frozen=True)
class Rest:
    """Silence that the script asks for, in seconds."""

    seconds: float


@dataclass(frozen=True)
class SceneBreak:
    """The place between two scenes."""


Item = Spoken | Rest | SceneBreak


def read_script(chapter: Chapter, options: BookOptions) -> tuple[list[Item], list[str]]:
    """Return what is to be spoken in a chapter, in order, and a note for each kind of mark that has no effect."""
    reader = _Reader(options)
    for block in chapter.blocks:
        reader.read_block(block)
    return reader.items, reader.finish()


class _Reader:
    """Reads the blocks of a chapter; a voice that is begun in one goes on in the next."""

    def __init__(self, options: BookOptions) -> None:
        self.items: list[Item] = []
        self._plain = options.plain
        cast = {" ".join(name.split()): voice.strip() for name, voice in (options.cast or {}).items()}
        names = sorted(cast, key=len, reverse=True)
        self._cast = {name.casefold(): voice for name, voice in cast.items()}
        self._speakers = [cast[name] for name in names]  # by the number of the pattern's group
        self._line_start = _speaker_pattern(names)
        self._voices: list[str] = []  # begun and not yet ended, the innermost last
        self._notes: Counter[str] = Counter()

    def finish(self) -> list[str]:
        """Return the notes on the chapter."""
        for voice in self._voices:
            self._notes[f"[voice {voice}] has no [/voice]; it ends with the chapter"] += 1
        return [f"{note} ({count} times)" if count > 1 else note for note, count in self._notes.items()]

    def read_block(self, block: Block) -> None:
        if block.kind == "break" or not _is_speakable(block.text):
            self.items.append(SceneBreak())
            return
        if self._plain:
            self.items.append(Spoken(block.text, block.kind, None, ends_block=True))
            return
        for speaker, line in self._lines(block):
            self._read_line(line, block.kind, speaker)

    def _lines(self, block: Block) -> Iterator[tuple[str | None, str]]:
        """Yield the voice and the text of each speaker's line; the voice is None in text that is not dialogue."""
        matches = []
        if self._line_start and block.kind == "paragraph":
            matches = list(self._line_start.finditer(block.text))
        if not matches or MARK.sub("", block.text[: matches[0].start()]).strip():
            yield None, block.text
            return
        if matches[0].start():
            yield None, block.text[: matches[0].start()]
        for index, match in enumerate(matches):
            end = matches[index + 1].start() if index + 1 < len(matches) else len(block.text)
            assert match.lastindex is not None
            yield self._speakers[match.lastindex - 1], block.text[match.end() : end]

    def _read_line(self, line: str, kind: str, speaker: str | None) -> None:
        """Read a paragraph, or one speaker's part of it."""
        depth = len(self._voices)
        first = len(self.items)
        held = ""  # punctuation that goes with the next word
        for part in self._parts(line):
            if isinstance(part, Rest):
                self.items.append(part)
                continue
            text = held + self._close(part, first)
            if not _is_speakable(text):
                held = text
                continue
            opening = OPENING.search(text)
            held = opening[0] if opening else ""
            text = text[: len(text) - len(held)]
            voice = speaker
            if len(self._voices) > depth or (speaker is None and self._voices):
                voice = self._voices[-1]
            self.items.append(Spoken(text.strip(), kind, voice, ends_block=False))
        spoken = [index for index in range(first, len(self.items)) if isinstance(self.items[index], Spoken)]
        if spoken:
            last = self.items[spoken[-1]]
            assert isinstance(last, Spoken)
            self.items[spoken[-1]] = replace(last, text=(last.text + held).strip(), ends_block=True)

    def _close(self, text: str, first: int) -> str:
        """Move quotes and the like that close what is before a text to there; return the rest of the text."""
        match = CLOSING.match(text)
        last = self.items[-1] if len(self.items) > first else None
        if match is None or not isinstance(last, Spoken):
            return text
        self.items[-1] = replace(last, text=last.text + match[0])
        return text[match.end() :]

    def _parts(self, line: str) -> Iterator[str | Rest]:
        """Yield the text between marks, and rests; keep account of the voices meanwhile."""
        text = ""
        end = 0
        for match in MARK.finditer(line):
            text += line[end : match.start()]
            end = match.end()
            content = match[1].strip()
            pause, voice = PAUSE.fullmatch(content), VOICE.fullmatch(content)
            if pause and float(pause[1]) <= MAX_PAUSE:
                yield from filter(None, [text])
                yield Rest(float(pause[1]))
            elif voice:
                yield from filter(None, [text])
                self._voices.append(self._cast.get(voice[1].casefold(), voice[1]))
            elif END_OF_VOICE.fullmatch(content):
                yield from filter(None, [text])
                self._end_voice()
            else:
                self._notes[f"{match[0]} is read as text: it is not a script mark"] += 1
                text += match[0]
                continue
            text = ""
        yield from filter(None, [text + line[end:]])

    def _end_voice(self) -> None:
        if self._voices:
            self._voices.pop()
        else:
            self._notes["[/voice] has no [voice NAME] before it in its chapter"] += 1


def _speaker_pattern(names: list[str]) -> re.Pattern[str] | None:
    """Return the pattern of a name that begins a speaker's line: at the start, after a mark, or after a sentence.

    Each name is a group. A paragraph is one line: a dialogue without blank lines between its lines comes in one.
    """
    if not names:
        return None
    name = "|".join("(" + r"\s+".join(re.escape(part) for part in entry.split()) + ")" for entry in names)
    start = r"(?:^|(?<=[.!?…\"”’»)\]])\s+|(?<=[。！？」』\]])\s*)"
    return re.compile(rf"{start}(?:{name})\s*[:：]\s*", re.IGNORECASE)


def _is_speakable(text: str) -> bool:
    """Return whether a text has a letter or a digit."""
    return any(character.isalnum() for character in text)
