"""Plain text to blocks: paragraphs between blank lines, headings by a few strict rules.

"Chapter 3", "CHAPTER III. A Caucus-Race", "第三章 风波", "# Title"   ─ level 1 (a Markdown heading by its marks)
"A MAD TEA-PARTY", alone between blank lines                         ─ level 2
"* * *"                                                              ─ a break
"""

import re

from .content import Block, Content
from .flow import Flow, Mark, compile_pattern, cut, heading_starts, pattern_starts
from .lines import excerpt, is_break, one_line, paragraphs
from .notes import MARK, form_of, strip_marks

MAX_HEADING = 80  # characters
SENTENCE_ENDS = tuple('.!?…"”’»。！？」』')
INDENT = "\u3000"  # Chinese and Japanese paragraphs begin with it, often without a blank line

NUMBER = (
    r"(?:\d{1,4}|[IVXLCDM]{1,8}|(?:[Tt]wenty|TWENTY|[Tt]hirty|THIRTY|[Ff]orty|FORTY|[Ff]ifty|FIFTY)(?:[- ]\w{3,5})?"
    r"|[Tt]he \w{3,12}|[A-Z](?:ne|wo|hree|our|ive|ix|even|ight|ine|en|leven|welve|hirteen|ourteen|ifteen|ixteen"
    r"|eventeen|ighteen|ineteen)|ONE|TWO|THREE|FOUR|FIVE|SIX|SEVEN|EIGHT|NINE|TEN|ELEVEN|TWELVE|THIRTEEN|FOURTEEN"
    r"|FIFTEEN|SIXTEEN|SEVENTEEN|EIGHTEEN|NINETEEN"
    r"|[Pp]remi\w{2,4}|перв\w\w|втор\w\w|трет\w\w|четвёрт\w\w|четверт\w\w|пят\w\w|шест\w\w|седьм\w\w|восьм\w\w|девят\w\w|десят\w\w)"
)
PARTS = [
    "Chapter", "Part", "Book", "Act", "Scene", "Canto", "Letter", "Volume",
    "Kapitel", "Teil", "Buch", "Akt", "Szene", "Band", "Chapitre", "Partie", "Livre", "Acte", "Tome",
    "Capítulo", "Capitulo", "Parte", "Libro", "Livro", "Acto", "Ato", "Tomo", "Capitolo", "Atto",
    "Глава", "Часть", "Книга", "Том",
]  # fmt: skip
ALONE = [
    "Prologue", "Epilogue", "Preface", "Foreword", "Introduction", "Afterword", "Conclusion",
    "Prolog", "Epilog", "Vorwort", "Einleitung", "Nachwort", "Préface", "Avant-propos", "Épilogue",
    "Prólogo", "Epílogo", "Prefacio", "Prefácio", "Introducción", "Introdução", "Prologo", "Epilogo", "Prefazione",
    "Пролог", "Эпилог", "Предисловие", "Введение", "Послесловие",
    "序", "序章", "序言", "序幕", "前言", "引子", "楔子", "尾声", "尾聲", "后记", "後記", "終章", "终章",
    "あとがき", "まえがき", "はじめに", "おわりに",
    "プロローグ", "エピローグ", "프롤로그", "에필로그", "머리말",
]  # fmt: skip
ONE_OF_PARTS = "|".join(re.escape(form) for part in PARTS for form in (part, part.upper()))
CHAPTER_NUMBER = rf"(?:{ONE_OF_PARTS}) {NUMBER}"
NUMBERED = re.compile(rf"{CHAPTER_NUMBER}(?:[.:)]|\s*[-–—])?")
# A title behind the number: after a sign, or with a capital and without the end of a sentence.
TITLED = re.compile(rf"{CHAPTER_NUMBER}(?:(?:[.:)]|\s*[-–—])\s*\S.*|\s+[^\W\d_a-zа-я].*[^.!?,;:])")
EASTERN_NUMBER = r" ?(?:\d{1,4}|[０-９]{1,4}|[一二三四五六七八九十百千〇零两兩廿卅]{1,8}) ?"
EASTERN_CHAPTER = rf"(?:第{EASTERN_NUMBER}[章回节節卷部篇集幕话話巻]|제 ?\d{{1,4}} ?[장부권화막])"
# Behind a space or a sign there may be a title; it stands alone even without blank lines around it.
EASTERN_LINE = re.compile(rf"{EASTERN_CHAPTER}(?:[ :：·、.—-]+[^。！？，；]{{1,40}})?")
EASTERN = re.compile(rf"{EASTERN_CHAPTER}[^。！？，；…、]{{0,20}}|{EASTERN_LINE.pattern}")
MARKDOWN = re.compile(r"(#{1,6})\s+(\S.*?)\s*#*")
ONLY_WORDS = {form for word in ALONE for form in (word, word.upper())}


def heading_level(line: str) -> int:
    """Return the level of a line that stands alone and is a heading by its form, else 0."""
    if len(line) > MAX_HEADING:
        return 0
    markdown = MARKDOWN.fullmatch(line)
    if markdown:
        return len(markdown[1])
    if line.rstrip(".:") in ONLY_WORDS or NUMBERED.fullmatch(line) or TITLED.fullmatch(line) or EASTERN.fullmatch(line):
        return 1
    letters = [c for c in line if c.isalpha()]
    capitals = len(letters) >= 4 and all(c.isupper() for c in letters)
    if capitals and len(line) <= 60 and line[-1] not in "!?,;:":
        return 2
    return 0


def heading_text(line: str) -> str:
    """Return a heading without Markdown's marks."""
    markdown = MARKDOWN.fullmatch(line)
    if markdown:
        return markdown[2]
    return line


def is_line_by_line(text: str) -> bool:
    """Return True for a text whose lines are paragraphs: none is blank, and most end a sentence."""
    lines = [line.strip() for line in text.strip().split("\n")]
    ended = sum(line.endswith(SENTENCE_ENDS) for line in lines)
    return len(lines) > 1 and all(lines) and 2 * ended > len(lines)


def split_paragraphs(text: str, pattern: str | None) -> list[list[str]]:
    """Return the lines of each paragraph.

    A paragraph ends at a blank line, before a line with an ideographic indent, and around a line such as "第三章 风波"
    or one that the pattern matches.
    """
    matches = compile_pattern(pattern).fullmatch if pattern is not None else EASTERN_LINE.fullmatch
    line_by_line = is_line_by_line(text)
    found: list[list[str]] = [[]]
    for line in text.replace("\f", "\n\n").split("\n"):
        stripped = one_line(line)
        if not stripped:
            found.append([])
        elif matches(stripped):
            found += [[stripped], []]
        elif line_by_line or line.startswith(INDENT):
            found.append([stripped])
        else:
            found[-1].append(stripped)
    return [lines for lines in found if lines]


def _heading(lines: list[str]) -> Block | None:
    """Return the heading that the lines between two blank ones are, or None.

    Besides one line, it may be "CHAPTER I." with the chapter's title in one or two short lines below.
    """
    level = heading_level(lines[0])
    titled = 1 < len(lines) <= 3 and NUMBERED.fullmatch(lines[0]) and all(len(line) <= 60 for line in lines)
    if level and (len(lines) == 1 or titled):
        return Block("heading", one_line("\n".join([heading_text(lines[0]), *lines[1:]])), level)
    return None


def read_plain(text: str, title: str, chapter_pattern: str | None) -> Content:
    """Return the content of a plain text of this title; see document.read_document. Raises DocumentError."""
    flow = Flow()
    marks = {found.strip("[]［］〔〕注註") for found in MARK.findall(text)}
    groups = split_paragraphs(text, chapter_pattern)
    for number, lines in enumerate(groups, 1):
        form = form_of(one_line(" ".join(lines)), marks)
        heading = _heading(lines)
        if form is not None:
            flow.dropped.append(Mark(len(flow.blocks), form, excerpt(" ".join(lines))))
        elif heading is not None and number < len(groups):  # the last line is "THE END", if anything
            flow.blocks.append(heading)
        else:
            _add_paragraphs(flow, lines)
    if chapter_pattern is not None:
        starts = pattern_starts(flow, chapter_pattern)
    else:
        _, starts = heading_starts(flow, first_is_title=False)
    chapters, dropped = cut(flow, starts, title)
    return Content(title, "", "", None, chapters, dropped)


def _add_paragraphs(flow: Flow, lines: list[str]) -> None:
    """Add what is not a heading."""
    for paragraph in paragraphs(lines):
        text, dropped = strip_marks(paragraph)
        flow.dropped += [Mark(len(flow.blocks), kind, mark) for kind, mark in dropped]
        if is_break(text):
            flow.blocks.append(Block("break"))
        elif text:
            flow.blocks.append(Block("paragraph", text))
