"""Where sentences and clauses end, in Chinese, English, Japanese, Korean, German, French, Russian, Portuguese, Spanish
and Italian.

text ─ end marks ─ quotes and brackets that close after them ─ what follows ─ is the full stop an abbreviation's? ─ ends

Nothing is lost: a sentence has the white space after it, and all of them joined are the text. In doubt two sentences
stay one, since a pause at a wrong place is worse than none.
"""

import re
from itertools import pairwise

from .abbreviations import ABBREVIATIONS, NUMBERED, ORDINAL_NOUNS, ORDINAL_WORDS, STARTERS, TITLES
from .lengths import UNSPACED

WIDE_MARKS = "。！？｡．"  # end a sentence without white space after them
QUOTES = "\"'”’“‘»«›‹」』"  # quotes that may close; some of them open in other languages
BRACKETS = ")]}）】］〉》〕"
OPENERS = "\"'“‘„‚«»‹›「『（([{【［〈《〔¿¡"
DASHES = "—–―-"

CLOSE = re.escape(QUOTES + BRACKETS)
DASH = re.escape(DASHES)
END = re.compile(rf"([.!?…{WIDE_MARKS}]+)([{CLOSE}]*(?:[ \u00a0\u202f]»(?=\s|$))?)")
SENTENCE_TAIL = re.compile(rf"[.!?…{WIDE_MARKS}][{CLOSE}\s]*$")
CLAUSE = re.compile(
    rf"[,;:…][{CLOSE}]*\s+"  # with white space, so that 1,000 is left alone
    rf"|[，、；：…][{CLOSE}]*\s*"
    rf"|[{DASH}]\s+"
    r"|(?<!\s)\s+(?=[—–―]\w)"  # —¿Vienes? —preguntó él.
    rf"|[{re.escape(BRACKETS)}]\s+"
    rf"|—+(?=[{UNSPACED}])"
)
BEFORE_WORD = re.compile(rf"[{re.escape(OPENERS)}{DASH}\s]*")
UNSPACED_LETTER = re.compile(f"[{UNSPACED}]")
GAP = re.compile(r"\s+")
CONTEXT = 60  # characters before and after a full stop that are looked at
TOKEN = re.compile(r"\S*$")
WORD = re.compile(r"\w+")
INITIAL = re.compile(r"\w\.")
DOTTED = re.compile(r"(?:[^\W\d_]{1,2}\.[-–]?)+[^\W\d_]{1,2}")  # U.S, p.m, J.-P, т.е
AFTER_LETTER = re.compile(r"(?<!\w)[^\W\d_]\.$")  # p. ex
ROMAN = re.compile(r"[IVXLC]+\b")


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, each with the white space after it; joined, they are the text."""
    starts = [0, *sentence_ends(text)]
    return [text[start:end] for start, end in pairwise(starts)]


def sentence_ends(text: str) -> list[int]:
    """Return where the sentences of a text end, after the white space that follows each; the last is its length."""
    if not text:
        return []
    ends = []
    for match in END.finditer(text):
        end = _end_of(text, match)
        if end is not None and end < len(text):
            ends.append(end)
    return [*ends, len(text)]


def clause_ends(text: str) -> list[int]:
    """Return where clauses end inside a text: after commas, semicolons, colons, dashes, brackets, and their kin."""
    ends = (match.end() for match in CLAUSE.finditer(text))
    return [end for end in ends if 0 < end < len(text)]


def ends_sentence(text: str) -> bool:
    """Return whether a text ends with the end mark of a sentence, which quotes and brackets may follow."""
    return bool(SENTENCE_TAIL.search(text))


def _end_of(text: str, match: re.Match[str]) -> int | None:
    """Return where the sentence ends that an end mark may end; None if it does not."""
    marks, closing = match[1], match[2]
    end = match.end()
    following = text[end : end + 1]
    if marks[-1] in WIDE_MARKS or (marks[-1] in "!?" and UNSPACED_LETTER.match(following)):
        return _wide_end(text, match)
    gap = GAP.match(text, end)
    if gap is None:
        return None
    word = BEFORE_WORD.match(text, end).end()  # type: ignore[union-attr]  # it matches anywhere
    if word == len(text) or text[word].islower() or not text[word].isalnum():
        return None
    if closing.strip(BRACKETS) and UNSPACED_LETTER.match(text, gap.end()):  # "안녕하세요!" 그가 말했다.
        return None
    if (
        marks == "."
        and not closing
        and _is_abbreviation(text[max(0, match.start() - CONTEXT) : match.start()], text[word : word + CONTEXT])
    ):
        return None
    return gap.end()


def _wide_end(text: str, match: re.Match[str]) -> int | None:
    """Return the end of a sentence whose end mark needs no white space; None if a quotation goes on."""
    end = match.end(1)
    for character in match[2]:
        opens = character in "\"'" and text.count(character, 0, end) % 2 == 0
        if opens or character in "“‘«‹":
            break
        end += 1
    start = _after_space(text, end)
    rest = text[start : start + 1]
    is_quotation = end > match.end(1) and text[end - 1] in "\"'”’»›」』"
    if is_quotation and rest and rest not in "\"'“‘«‹「『—":  # 「……。」と彼は言った。
        return None
    return start


def _after_space(text: str, start: int) -> int:
    """Return where the white space at a place in a text ends."""
    gap = GAP.match(text, start)
    if gap is None:
        return start
    return gap.end()


def _is_abbreviation(before: str, after: str) -> bool:
    """Return whether a full stop between two texts belongs to an abbreviation, an initial or an ordinal number.

    after: from the next word on, which does not begin with a small letter.
    """
    token = TOKEN.search(before)[0]  # type: ignore[index]  # it matches anywhere
    previous = before[: len(before) - len(token)].rstrip()
    token = re.split(r"['’](?=\w)", token)[-1].lstrip(OPENERS + DASHES)  # L'ing. Rossi
    if token.isdigit():
        return _is_ordinal(token, previous, after)
    if not token:
        return False
    if token in TITLES:
        return True
    lower = token.casefold()
    if lower in NUMBERED and (after[0].isdigit() or ROMAN.match(after)):
        return True
    if not _is_short_form(token, lower, previous):
        return False
    return bool(INITIAL.match(after)) or WORD.match(after)[0].casefold() not in STARTERS  # type: ignore[index]


def _is_short_form(token: str, lower: str, previous: str) -> bool:
    """Return whether a word with a full stop may be an initial, an acronym or an abbreviation."""
    if len(token) == 1:
        return token not in "Iя" or not previous[-1:].islower()  # "So do I." "Это я."
    follows_letter = len(token) <= 3 and bool(AFTER_LETTER.search(previous))
    return follows_letter or bool(DOTTED.fullmatch(token)) or lower in ABBREVIATIONS or lower.endswith("str")


def _is_ordinal(digits: str, previous: str, after: str) -> bool:
    """Return whether a number with a full stop is an ordinal, a part of a date, or numbers a list."""
    if len(digits) > 3 and not (after[0].isdigit() and previous == ""):
        return len(digits) == 4 and bool(re.match(r"\d{1,2}\.", after))  # 2024. 3. 1.
    if previous == "" or after[0].isdigit():
        return True
    last = re.split(r"\s", previous)[-1]
    if UNSPACED_LETTER.match(after):
        return bool(re.fullmatch(r"\d{1,2}\.", last))
    is_german = WORD.match(after)[0].casefold() in ORDINAL_NOUNS  # type: ignore[index]
    return is_german or last.casefold() in ORDINAL_WORDS
