"""Text of a paragraph or heading as one line, and what a line says by its form.

lines as the file has them ─┬─ one line, white space collapsed
                            └─ several, if each line begins with a speaker's name
"""

import re
from collections.abc import Sequence

# Chinese and Japanese letters and punctuation: a line end between two of them is not a space. Korean has spaces.
WIDE = (
    "\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60\U00020000-\U0003ffff"
)
LINE_END_BETWEEN_WIDE = re.compile(f"(?<=[{WIDE}])[ \t\r\f]*\n\\s*(?=[{WIDE}])")
# Soft hyphens and zero-width spaces say where a line may break; control characters and lone surrogates say nothing.
INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\ufffe\uffff\x00-\x08\x0e-\x1b\x7f\ud800-\udfff]")
BREAK = re.compile(r"[*＊•·●◆◇■□★☆⁂⁎#~∼～_=—–―─\-\s]+")
SPEAKER = re.compile(r"[^\W\d_][\w .'’·-]{0,30}[:：](?!//)\s*\S")
EXCERPT = 200  # characters of what was dropped that are kept to show


def one_line(text: str) -> str:
    """Return the text as one line: white space collapsed, invisible characters removed."""
    text = INVISIBLE.sub("", text)
    text = LINE_END_BETWEEN_WIDE.sub("", text)
    return " ".join(text.split())


def excerpt(text: str) -> str:
    """Return the beginning of the text as one line."""
    line = one_line(text[: 4 * EXCERPT])
    if len(line) > EXCERPT or len(text) > 4 * EXCERPT:
        return f"{line[:EXCERPT]} ..."
    return line


def paragraphs(lines: Sequence[str]) -> list[str]:
    """Join lines to a paragraph, or to one for each speaker in a dialogue such as "Anna: Hello." "Ben: Hi."."""
    speakers = [index for index, line in enumerate(lines) if SPEAKER.match(line.lstrip())]
    if len(speakers) < 2 or speakers[0] != 0:
        speakers = [0]
    ends = [*speakers[1:], len(lines)]
    joined = [one_line("\n".join(lines[start:end])) for start, end in zip(speakers, ends, strict=True)]
    return [text for text in joined if text]


def is_break(line: str) -> bool:
    """Return True for a line that separates scenes, such as "* * *"."""
    return bool(line.strip()) and BREAK.fullmatch(line) is not None
