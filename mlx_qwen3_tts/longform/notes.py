"""Footnotes, footnote marks and page numbers that only their form betrays.

"the pool[3] of tears"       ─ a footnote mark
"[Footnote 3: Of water.]"    ─ a footnote
"[Pg 17]", "- 17 -"          ─ page numbers
"the pool" before a raised 3 ─ a footnote mark; "10" or "m" before it: an exponent
"""

import re

from .lines import WIDE, one_line

# A number in brackets right behind a word or its punctuation, as no script mark and no sum has it.
MARK = re.compile(r"(?<=[^\W_]|[.,;:!?\"'”’»)\]…。，、；：！？」』）》])[\[［〔](?:注|註)?\d{1,4}[\]］〕]")
FOOTNOTE = re.compile(r"\[\s*(?:Foot|End)note\b.*\]|\[\s*Anmerkung\s+\d+:.*\]", re.IGNORECASE | re.DOTALL)
NUMBERED = re.compile(r"[\[［〔](?:注|註)?(\d{1,4})[\]］〕]\s*\S")
PAGE = re.compile(r"[\[{](?:Pg|Page|p\.|S\.|Seite)\s?\d{1,4}[\]}]\s?", re.IGNORECASE)
PAGE_LINE = re.compile(r"[-–—]\s*\d{1,4}\s*[-–—]|(?:Page|Seite)\s+\d{1,4}", re.IGNORECASE)

# What a link shows if it is a footnote mark: certainly, and if something else says so, too.
SURE_LABEL = re.compile(
    r"[\[［〔【(（](?:注|註)?(?:\d{1,4}|[a-z]{1,2}|[ivxl]{1,6}|[*＊])[\]］〕】)）]|[*＊†‡§¶※]{1,4}|[①-⑳]|[注註]\d{0,3}"
)
LABEL = re.compile(r"\d{1,4}|[a-z]{1,2}|[ivxl]{1,6}", re.IGNORECASE)
RETURN_LABEL = re.compile(r"[↩⏎↵↑⤴⮌^]\ufe0e?")
HINT = re.compile(
    r"(?:^|[^a-z])(?:foot|end|rear|side)?_?-?notes?(?:$|[^a-z])|footnote|endnote|noteref|(?:^|[^a-z])(?:fn|ftn|en|edn|nt)[a-z]{0,3}[-_:.]?\d",
    re.IGNORECASE,
)
# How a footnote begins: with its mark.
BEGINNING = re.compile(r"([\[［〔【(（]?(?:注|註)?(?:\d{1,4}|[*＊†‡§¶※]{1,4})[\]］〕】)）]?)[.:、\s]")

# A raised text is a footnote mark right behind a word, unless the word is the base of an exponent.
RAISED = re.compile(r"\d{1,3}(?:\s?[,–-]\s?\d{1,3})*")
AFTER_SENTENCE = re.compile(r"[^\W_][)\]]*[.,;:!?\"'”’»…—–]+[)\]]*$")
AFTER_WIDE = re.compile(rf"(?![０-９Ａ-Ｚａ-ｚ])[{WIDE}]$")
LAST_WORD = re.compile(r"(\d\s*)?([^\W\d_]+)[)\]]*$")
BASES = {
    "cm", "dm", "ft", "hm", "km", "mi", "mm", "nm", "pm", "yd", "μm", "mol", "rad", "sec", "mc",
    "cos", "sin", "tan", "log", "см", "мм", "км",
}  # fmt: skip


def follows_word(before: str) -> bool:
    """Return whether a raised number behind a text is a footnote mark, not an exponent as in 10³, 5 in² and km²."""
    if AFTER_SENTENCE.search(before) or AFTER_WIDE.search(before):
        return True
    found = LAST_WORD.search(before)
    if found is None:
        return False
    word = found[2].casefold()
    is_unit = found[1] is not None and len(word) <= 2
    return len(word) > 1 and not is_unit and word not in BASES


def strip_marks(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return a line without footnote marks and page numbers, and (kind, text) of each that was removed."""
    if "[" not in text and "［" not in text and "〔" not in text and "{" not in text:
        return text, []
    dropped = [("page number", found.strip()) for found in PAGE.findall(text)]
    text = PAGE.sub("", text)
    dropped += [("footnote mark", found) for found in MARK.findall(text)]
    return one_line(MARK.sub("", text)), dropped


def form_of(line: str, marks: set[str]) -> str | None:
    """Return "footnote" or "page number" if the line of a plain text is nothing else, or None.

    marks: the footnote marks that stand in the text: "[3] Of water." is a footnote if there is a mark [3].
    """
    if PAGE_LINE.fullmatch(line):
        return "page number"
    if FOOTNOTE.fullmatch(line):
        return "footnote"
    numbered = NUMBERED.match(line)
    if numbered and numbered[1] in marks:
        return "footnote"
    return None
