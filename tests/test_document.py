"""Books to chapters: EPUB 2 and 3, Markdown, HTML and plain text, and what is not read aloud of them."""

import re
import sys

import pytest

from mlx_qwen3_tts.errors import DocumentError
from mlx_qwen3_tts.longform.document import Block, Document, read_document, select_chapters
from mlx_qwen3_tts.longform.lines import excerpt
from tests.support import epubs


def outline(document):
    """The chapters' titles, with the text of their blocks: "#" before a heading, "***" for a break."""
    return [(chapter.title, [show(block) for block in chapter.blocks]) for chapter in document.chapters]


def show(block):
    if block.kind == "break":
        return "***"
    return "#" * block.level + " " * bool(block.level) + block.text


def dropped(document):
    return [(part.kind, part.text, part.chapter) for part in document.dropped]


def read(tmp_path, name, text, **options):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Document.open(path, **options)


def titles(document):
    return [chapter.title for chapter in document.chapters]


def test_an_english_epub_3(tmp_path):
    book = read_document(epubs.write(tmp_path, epubs.alice()))
    assert isinstance(book, Document)
    assert (book.title, book.author, book.language) == ("Alice’s Adventures in Wonderland", "Lewis Carroll", "en-GB")
    assert book.cover == epubs.JPEG
    assert outline(book) == [
        ("Alice’s Adventures in Wonderland", ["# Alice’s Adventures in Wonderland", "by Lewis Carroll"]),
        (
            "I. Down the Rabbit-Hole",
            [
                "## CHAPTER I. Down the Rabbit-Hole",
                "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to "
                "do: once or twice she had peeped into the book her sister was reading, but it had no pictures or "
                "conversations in it.",
                "So she was considering in her own mind.",
                "***",
                "Down, down, down. There was nothing else to do.",
                "Down, down, down. Would the fall never come to an end?",
            ],
        ),
        (
            "II. The Pool of Tears",
            [
                "## CHAPTER II. The Pool of Tears",
                "“Curiouser and curiouser!” cried Alice (she was so much surprised).",
                "***",
                "“But then,” thought Alice.",
            ],
        ),
    ]


def test_what_is_dropped_from_an_epub_is_listed(tmp_path):
    book = read_document(epubs.write(tmp_path, epubs.alice()))
    first, pool = titles(book)[1:]
    assert sorted(dropped(book)) == sorted([
        ("navigation", "nav.xhtml", book.title),
        ("image", "Alice and the Duchess", book.title),
        ("page number", "1", first),
        ("image", "A", first),
        ("footnote mark", "1", first),
        ("footnote mark", "2", first),
        ("code", 'print("rabbit")', first),
        ("page number", "[2]", first),
        ("image", "Dinah", first),
        ("table", "miles 4000", first),
        ("footnote mark", "*", pool),
        ("footnote", "* Good English is forgotten.", pool),
        ("script", 'alert("tears")', pool),
        ("footnote", "Notes 1. The bank of the Thames. 2. A lesson book.", pool),
        ("file outside the text", "ad.xhtml", pool),
    ])  # fmt: skip


def test_a_chinese_epub_2(tmp_path):
    book = read_document(epubs.write(tmp_path, epubs.madman()))
    assert (book.title, book.author, book.language, book.cover) == ("狂人日记", "鲁迅", "zh-CN", epubs.PNG)
    assert outline(book) == [
        ("狂人日记", ["某君昆仲，今隐其名，皆余昔日在中学时良友；分隔多年，消息渐阙。"]),
        ("一", ["### 一", "今天晚上，很好的月光。", "我不见他，已是三十多年；今天见了，精神分外爽快。"]),
        ("二", ["### 二", "今天全没月光，我知道不妙。早上小心出门，赵贵翁的眼色便怪。"]),
    ]
    footnotes = [(part.kind, part.text) for part in book.dropped if part.kind == "footnote"]
    assert footnotes == [("footnote", "月光：月亮的光。"), ("footnote", "2 怪：奇怪。")]


def test_an_epub_without_contents_has_a_chapter_for_each_heading_or_file(tmp_path):
    parts = epubs.simple(a="<h1>One</h1><p>a</p><h1>Two</h1><p>b</p>", b="<p>c</p>")
    assert titles(read_document(epubs.write(tmp_path, parts))) == ["One", "Two"]
    parts = epubs.simple(a="<h1>A Book</h1><h2>One</h2><p>a</p>", b="<h2>Two</h2><p>b</p>")
    assert titles(read_document(epubs.write(tmp_path, parts))) == ["A Book", "One", "Two"]
    parts = epubs.simple(a="<p>a</p>", b="<p>b</p>")
    assert outline(read_document(epubs.write(tmp_path, parts))) == [("A Book", ["a"]), ("2", ["b"])]
    parts["OEBPS/a.xhtml"] = epubs.xhtml("<p>a</p>", "First")
    parts["OEBPS/b.xhtml"] = epubs.xhtml("<p>b</p>", "Second")
    assert titles(read_document(epubs.write(tmp_path, parts))) == ["First", "Second"]
    parts["OEBPS/b.xhtml"] = epubs.xhtml("<p>b</p>", "First")
    assert titles(read_document(epubs.write(tmp_path, parts))) == ["A Book", "2"]


def with_nav(entries, **chapters):
    parts = epubs.simple(**chapters)
    parts["OEBPS/nav.xhtml"] = epubs.nav(entries)
    opf = parts["OEBPS/book.opf"]
    parts["OEBPS/book.opf"] = opf.replace("<manifest>", "<manifest>" + epubs.item("nav", "nav.xhtml", properties="nav"))
    return parts


def test_a_missing_navigation_file_is_ignored(tmp_path):
    parts = with_nav('<li><a href="a.xhtml">One</a></li>', a="<h1>Two</h1><p>a</p>")
    del parts["OEBPS/nav.xhtml"]
    assert titles(read_document(epubs.write(tmp_path, parts))) == ["Two"]


def entry(href, title, below=""):
    return f'<li><a href="{href}">{title}</a>{below and f"<ol>{below}</ol>"}</li>'


@pytest.mark.parametrize(("entries", "expected"), [
    (entry("a.xhtml", "A") + entry("b.xhtml", "B"), ["A", "B"]),
    (entry("b.xhtml", "B") + entry("a.xhtml", "A"), ["A", "B"]),  # in the order of the text
    (entry("b.xhtml", "B"), ["Front", "B"]),
    (entry("a.xhtml", "Part", entry("a.xhtml", "A")) + entry("b.xhtml", "B"), ["A", "B"]),  # the deeper of one place
    (entry("a.xhtml", "A") + entry("a.xhtml#top", "Pictures") + entry("b.xhtml", "B"), ["A", "B"]),  # else the first
    (entry("a.xhtml#missing", "A") + entry("b.xhtml", "B"), ["A", "B"]),
    (entry("a.xhtml", "A") + entry("gone.xhtml", "G") + entry("http://x.org/b.xhtml", "H"), ["A"]),
    (entry("nav.xhtml", "Contents") + entry("a.xhtml", "A"), ["A"]),
    (entry("a.xhtml", "A") + entry("a.xhtml#mid", "M") + entry("b.xhtml", "B"), ["A", "M", "B"]),
    ("<li><span>Part One</span><ol>" + entry("a.xhtml", "A") + entry("b.xhtml", "B") + "</ol></li>", ["A", "B"]),
])  # fmt: skip
def test_entries_of_the_contents(tmp_path, entries, expected):
    a = '<h1 id="top">Front</h1><p>a</p><p>a <i id="mid">a</i></p>'
    book = read_document(epubs.write(tmp_path, with_nav(entries, a=a, b="<p>b</p>")))
    assert titles(book) == expected


def test_the_ncx_stands_in_for_a_navigation_file_that_leads_nowhere(tmp_path):
    parts = epubs.madman()
    parts["OEBPS/nav.xhtml"] = epubs.nav(entry("gone.html", "Gone"))
    parts["OEBPS/toc.ncx"] = parts["OEBPS/toc.ncx"].replace("<text>一", "<text>第一则")
    item = epubs.item("nav", "nav.xhtml", properties="nav")
    parts["OEBPS/book.opf"] = parts["OEBPS/book.opf"].replace("<manifest>", f"<manifest>{item}")
    assert titles(read_document(epubs.write(tmp_path, parts))) == ["狂人日记", "第一则", "二"]


def test_covers(tmp_path):
    parts = epubs.madman()
    opf = parts["OEBPS/book.opf"].replace('<meta name="cover" content="pic"/>', "")
    parts["OEBPS/book.opf"] = opf
    assert read_document(epubs.write(tmp_path, parts)).cover is None
    parts["OEBPS/book.opf"] = opf.replace(
        "</package>", '<guide><reference type="cover" href="c.html"/></guide></package>'
    )
    parts["OEBPS/c.html"] = epubs.xhtml('<svg><image xlink:href="cover.png"/></svg>')
    assert read_document(epubs.write(tmp_path, parts)).cover == epubs.PNG
    parts["OEBPS/cover.png"] = b"GIF89a"
    book = read_document(epubs.write(tmp_path, parts))
    assert book.cover is None
    assert ("cover", "OEBPS/cover.png", "狂人日记") in dropped(book)


def test_a_printed_table_of_contents_is_not_read(tmp_path):
    parts = epubs.simple(a='<h1>Contents</h1><p><a href="b.xhtml">One</a></p>', b="<h1>One</h1><p>b</p>")
    parts["OEBPS/book.opf"] = parts["OEBPS/book.opf"].replace(
        "</package>", '<guide><reference type="toc" href="a.xhtml"/></guide></package>'
    )
    book = read_document(epubs.write(tmp_path, parts))
    assert outline(book) == [("One", ["# One", "b"])]
    assert ("navigation", "a.xhtml", "One") in dropped(book)


MARKDOWN = """---
title: A Talk
author: [Ann Other, B. Sides]
lang: de
---
# On *Rabbits*

Text with a note[^1], `code`, and a [link](x.html).
Second line.

```python
print(1)
```

## First

Anna: Hello.
Ben: Hi [pause 0.5] there.

***

| a | b |
|---|---|
| 1 | 2 |

## Second ##

- one
- two

![A rabbit](r.png)

[^1]: The note.
"""


def test_markdown(tmp_path):
    talk = read(tmp_path, "talk.md", MARKDOWN)
    assert (talk.title, talk.author, talk.language) == ("A Talk", "Ann Other, B. Sides", "de")
    assert outline(talk) == [
        ("On Rabbits", ["# On Rabbits", "Text with a note, code, and a link. Second line."]),
        ("First", ["## First", "Anna: Hello.", "Ben: Hi [pause 0.5] there."]),
        ("Second", ["## Second", "one", "two"]),
    ]
    assert [(kind, text) for kind, text, _ in dropped(talk)] == [
        ("footnote mark", "[1]"), ("code", "print(1)"), ("table", "a b 1 2"), ("image", "A rabbit"),
        ("footnote", "The note."),
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "title", "chapters"), [
    ("# One\n\na\n\n# Two\n\nb", "name", ["One", "Two"]),
    ("# Title\n\n## One\n\na\n\n### x\n\nb\n\n## Two\n\nc", "Title", ["Title", "One", "Two"]),
    ("# Title\n\na", "Title", ["Title"]),
    ("## One\n\na\n\n## Two\n\nb", "name", ["One", "Two"]),
    ("a\n\n# One\n\nb\n\n# Two\n\nb", "name", ["name", "One", "Two"]),
    ("a", "name", ["name"]),
])  # fmt: skip
def test_headings_make_chapters(tmp_path, text, title, chapters):
    document = read(tmp_path, "name.md", text)
    assert document.title == title
    assert titles(document) == chapters


@pytest.mark.parametrize("front_matter", ["title: [", "- a", "title: {a: b}", "&a [*a]"])
def test_odd_front_matter(tmp_path, front_matter):
    try:
        document = read(tmp_path, "name.md", f"---\n{front_matter}\n---\n\nText.\n")
    except DocumentError as error:
        assert "not YAML" in str(error) and "\n" not in str(error)
    else:
        assert document.title == "name"


def test_markup_has_a_limit_of_its_own(tmp_path, monkeypatch):
    """A tag takes much more memory than a letter."""
    text = "Some text that is read.\n"
    monkeypatch.setattr("mlx_qwen3_tts.longform.document.MAX_MARKUP_BYTES", len(text) - 1)
    assert outline(read(tmp_path, "a.txt", text))[0][1] == [text.strip()]
    for name in ("a.md", "a.html", "a.markdown", "a.xhtml"):
        with pytest.raises(DocumentError, match=f"more than {len(text) - 1} bytes: split the file"):
            read(tmp_path, name, text)
    monkeypatch.setattr("mlx_qwen3_tts.longform.document.MAX_MARKUP_BYTES", len(text))
    assert outline(read(tmp_path, "a.md", text))[0][1] == [text.strip()]


def test_front_matter_is_limited(tmp_path):
    """A megabyte of YAML takes a minute."""
    title = "A Title That Takes Some More Than Fifty-Four Characters of the File"
    comment = "\n# " + 65_000 * "x"
    assert read(tmp_path, "a.md", f"---\ntitle: {title}{comment}\n---\n\nText.\n").title == title
    with pytest.raises(DocumentError, match="has more than 65,536 characters of front matter"):
        read(tmp_path, "a.md", f"---\ntitle: {title}{comment}{1000 * 'x'}\n---\n\nText.\n")


def test_html(tmp_path):
    page = read(
        tmp_path,
        "page.html",
        """<!doctype html><html lang=fr><head><title>Un <titre></title><meta name="Author" content="Moi">
        <script>x < y</script><body><!-- <p>no</p> --><h1>Titre</h1><nav><a href=x>Menu</a></nav>
        <p>One<p>Two &amp; a < b &lt;c&gt;<ul><li>Li<li>Lo</ul>
        <h2>First<p>Not closed.<h2>Second</h2>Bare text<div hidden>Hidden</div>
        <p style="display: none">Gone</p><img alt="x<y" src="data:image/png;base64,AAAA"></body></html>""",
    )
    assert (page.author, page.language) == ("Moi", "fr")
    assert outline(page) == [
        ("Titre", ["# Titre", "One", "Two & a < b <c>", "Li", "Lo"]),
        ("First", ["## First", "Not closed."]),
        ("Second", ["## Second", "Bare text"]),
    ]
    assert [(kind, text) for kind, text, _ in dropped(page)] == [
        ("navigation", "Menu"), ("hidden", "Hidden"), ("hidden", "Gone"), ("image", "x<y"),
    ]  # fmt: skip


@pytest.mark.parametrize(("markup", "text"), [
    ("<ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>を読む", "かんじを読む"),
    ("<ruby>東<rt>とう</rt>京<rt>きょう</rt></ruby>", "とうきょう"),
    ("<ruby><rb>本気</rb><rt>マジ</rt></ruby>", "マジ"),
    ("<ruby>汉<rt>hàn</rt>字<rt>zì</rt></ruby>", "汉字"),
    ("<ruby>汉字<rt><b>hàn</b>zì</rt></ruby>", "汉字"),
    ("<ruby>字<rt>か<rt>な</rt></rt></ruby>", "な"),
    ("<ruby>強<rt>・</rt></ruby>", "強"),
    ("<ruby>字</ruby>", "字"),
])  # fmt: skip
def test_ruby(tmp_path, markup, text):
    assert outline(read(tmp_path, "a.html", f"<p>{markup}</p>"))[0][1] == [text]


@pytest.mark.parametrize(("markup", "text", "kinds"), [
    ('a<a href="#n">[12]</a> b', "a b", ["footnote mark"]),
    ('a<a href="#n">*</a> b', "a b", ["footnote mark"]),
    ('a<a href="#n">†</a> b', "a b", ["footnote mark"]),
    ('a<a href="#fn3">3</a> b', "a b", ["footnote mark"]),
    ('a<a href="#x"><sup>3</sup></a> b', "a b", ["footnote mark"]),
    ('a<sup><a href="#x">3</a></sup> b', "a b", ["footnote mark"]),
    ('a<sup><a href="#x">3</a>, <a href="#y">4</a></sup> b', "a, b", ["footnote mark", "footnote mark"]),
    ('a<a role="doc-noteref" href="#x">3</a> b', "a b", ["footnote mark"]),
    ('a<a role="Doc-NoteRef" href="#x">3</a> b', "a b", ["footnote mark"]),
    ('a<a epub:type="NoteRef" href="#x">3</a> b', "a b", ["footnote mark"]),
    ("a <!-- b <!-- c --> d <!-- <i>e</i> --> f", "a d f", []),
    ("a city.[12] b", "a city. b", ["footnote mark"]),
    ('see <a href="#page3">3</a> and <a href="#c">Chapter 3</a>', "see 3 and Chapter 3", []),
    ("10<sup>2</sup> m<sup>2</sup>, 1<sup>st</sup>", "102 m2, 1st", []),
    ("on <a href='http://x.org'>*</a> [pause 0.5] [3]", "on * [pause 0.5] [3]", []),
    ('a<span class="pagenum">[Pg 5]</span> b', "a b", ["page number"]),
    ('a<span class="noteref">3</span> b', "a b", ["footnote mark"]),
    ('<span class="pagenum">never closed, a long text that is read', "never closed, a long text that is read", []),
    ('a <span role="doc-pagebreak" aria-label="7"></span>b', "a b", ["page number"]),
    ("soft\u00adhyphen zero\u200bwidth &#xD800; &#0;", "softhyphen zerowidth", []),
    ("a <code>name</code> b", "a name b", []),
    ("<![CDATA[a < b]]>", "a < b", []),
    ("<![cdata[a < b]]>", "a < b", []),
    ("<table role='presentation'><tr><td>a</td></tr></table>", "a", []),
    ("一\n 二 \n three", "一二 three", []),
])  # fmt: skip
def test_marks_in_html(tmp_path, markup, text, kinds):
    document = read(tmp_path, "a.html", f"<p>{markup}</p>")
    shown = [one.replace("\ufffd", "").strip() for one in outline(document)[0][1]]
    assert shown == [text]
    assert [part.kind for part in document.dropped] == kinds


@pytest.mark.parametrize(("text", "shown"), [
    ("x" * 200, "x" * 200), ("x" * 201, "x" * 200 + " ..."), ("a " + " " * 799, "a ..."), ("a\n b" + " " * 796, "a b"),
])  # fmt: skip
def test_excerpts(text, shown):
    assert excerpt(text) == shown


@pytest.mark.parametrize(("markup", "kinds"), [
    ("<aside>b</aside>", ["aside"]),
    ('<aside role="doc-footnote">b</aside>', ["footnote"]),
    ('<p class="footnote">3</p>', ["footnote"]),
    ('<span class="footnote">12345678</span>', ["footnote mark"]),
    ('<span class="footnote">123456789</span>', ["footnote"]),
    ('<div hidden="">b</div>', ["hidden"]),
    ('<p style="display : none">b</p>', ["hidden"]),
    ('<p role="doc-toc">b</p>', ["navigation"]),
    ("<form><button>b</button></form>", ["form"]),
])  # fmt: skip
def test_what_is_not_read(tmp_path, markup, kinds):
    document = read(tmp_path, "a.html", f"<p>a</p>{markup}")
    assert outline(document)[0][1] == ["a"]
    assert [part.kind for part in document.dropped] == kinds


@pytest.mark.parametrize("before", [
    "a note", "He went in", "the pool.", "the “pool”", "(see above)", "the pool)", "the <i>pool</i>", "in 1865.",
    "10 people", "漢字", "です。", "프랑스", "вода",
])  # fmt: skip
@pytest.mark.parametrize("number", ["1", "1–3"])
def test_a_raised_number_behind_a_word_is_a_footnote_mark(tmp_path, before, number):
    document = read(tmp_path, "a.html", f"<p>{before}<sup>{number}</sup> b</p>")
    assert outline(document)[0][1] == [re.sub("</?i>", "", before) + " b"]
    assert [(part.kind, part.text) for part in document.dropped] == [("footnote mark", number)]


@pytest.mark.parametrize("base", [
    "10", "m", "5 km", "per km", "60 in", "sin", "x", "(a + b)", "mc", "１０", "of ", "H<sub>2</sub>O", "<b>10</b>",
    "м", "3 µm",
])  # fmt: skip
def test_an_exponent_is_read(tmp_path, base):
    document = read(tmp_path, "a.html", f"<p>{base}<sup>2</sup></p>")
    assert outline(document)[0][1] == [re.sub("<.*?>", "", base) + "2"]
    assert document.dropped == ()


def test_a_page_number_is_listed_without_white_space(tmp_path):
    document = read(tmp_path, "a.html", "<p>a [Pg 17] b</p>")
    assert outline(document)[0][1] == ["a b"]
    assert [(part.kind, part.text) for part in document.dropped] == [("page number", "[Pg 17]")]


def test_a_footnote_is_listed_without_the_way_back_and_that_alone_as_it_is(tmp_path):
    markup = '<p>A</p><p class="footnote">Of salt. <a href="#r">↩</a></p><p>B<a href="#r">↩</a></p>'
    assert [part.text for part in read(tmp_path, "a.html", markup).dropped] == ["Of salt.", "↩"]


def test_superscripts_that_are_not_numbers_are_read(tmp_path):
    assert outline(read(tmp_path, "a.html", "<p>une M<sup>me</sup>, Ca<sup>2+</sup></p>"))[0][1] == ["une Mme, Ca2+"]


def test_notes_without_markup_are_known_by_their_marks(tmp_path):
    document = read(
        tmp_path,
        "a.html",
        """<p id="r1">12 people<a href="#n1">[1]</a> came.</p><p id="v">3 of them left.</p>
        <p><a href="#top">[3]</a> In the beginning.</p><p id="n1"><a href="#r1">[1]</a> Not 13.</p>
        <p>Two<sup><a href="#n2">2</a></sup>.</p><ol><li id="n2"><p>A list.</p><p>With two.</p></li></ol>
        <ol><li id="n3">No mark leads here.</li></ol>""",
    )
    assert outline(document)[0][1] == [
        "12 people came.", "3 of them left.", "In the beginning.", "Two.", "No mark leads here.",
    ]  # fmt: skip
    assert [part.text for part in document.dropped if part.kind == "footnote"] == ["Not 13.", "A list.", "With two."]


PLAIN = """ALICE'S ADVENTURES

by Lewis Carroll

CHAPTER I.
Down the Rabbit-Hole

Alice was beginning to get
very tired[1] of sitting.

Chapter 3 was the one she liked best, as everybody in the
world did.

    *    *    *

STOP!

[1] By the bank.

[Footnote 2: Of the Thames.]

- 17 -

Chapter Two: The Pool of Tears

A MAD TEA-PARTY

"Anna: Hello" is not a dialogue.

Anna: Hello.
Ben: Good evening,
my dear.

THE END
"""


def test_plain_text(tmp_path):
    text = read(tmp_path, "alice.txt", PLAIN)
    assert text.title == "alice"
    assert outline(text) == [
        ("ALICE'S ADVENTURES", ["## ALICE'S ADVENTURES", "by Lewis Carroll"]),
        (
            "CHAPTER I. Down the Rabbit-Hole",
            [
                "# CHAPTER I. Down the Rabbit-Hole",
                "Alice was beginning to get very tired of sitting.",
                "Chapter 3 was the one she liked best, as everybody in the world did.",
                "***",
                "STOP!",
            ],
        ),
        (
            "Chapter Two: The Pool of Tears",
            [
                "# Chapter Two: The Pool of Tears",
                "## A MAD TEA-PARTY",
                '"Anna: Hello" is not a dialogue.',
                "Anna: Hello.",
                "Ben: Good evening, my dear.",
                "THE END",
            ],
        ),
    ]
    assert [(kind, text) for kind, text, _ in dropped(text)] == [
        ("footnote mark", "[1]"), ("footnote", "[1] By the bank."), ("footnote", "[Footnote 2: Of the Thames.]"),
        ("page number", "- 17 -"),
    ]  # fmt: skip


def test_chinese_plain_text_without_blank_lines(tmp_path):
    text = "第一章 月光\n　　今天晚上，很好的月光。\n　　我不见他，已是\n三十多年；\n"
    text += "第二章\n　　今天全没月光。第三章也没有。\n"
    assert outline(read(tmp_path, "a.txt", text)) == [
        ("第一章 月光", ["# 第一章 月光", "今天晚上，很好的月光。", "我不见他，已是三十多年；"]),
        ("第二章", ["# 第二章", "今天全没月光。第三章也没有。"]),
    ]
    assert outline(read(tmp_path, "b.txt", "他来了。\n他走了。\n他又来了！\n")) == [
        ("b", ["他来了。", "他走了。", "他又来了！"])
    ]


@pytest.mark.parametrize(("line", "level"), [
    ("Chapter 3", 1), ("CHAPTER XII.", 1), ("Chapter Twenty-One", 1), ("Part the First", 1), ("Kapitel 4", 1),
    ("Chapter 3: The cat", 1), ("Chapter 3 The Cat", 1), ("Глава первая", 1), ("Capítulo 2", 1),
    ("第12章", 1), ("第３話", 1),
    ("제 3 장", 1), ("제3장 바람", 1), ("Prologue", 1), ("EPILOGUE", 1), ("序章", 1), ("# Title", 1), ("### Sub", 3),
    ("DOWN THE RABBIT-HOLE", 2), ("Chapter 3 was long.", 0), ("Part 2 of it", 0), ("Book I liked", 0), ("NO!", 0),
    ("IBM", 0), ("Hello", 0), ("1984", 0), ("第三章我们已经说过，他不在。", 0),
    ("MR. DARCY SAID:", 0), ("她说：“第三章。”", 0),
])  # fmt: skip
def test_lines_that_are_headings(tmp_path, line, level):
    document = read(tmp_path, "a.txt", f"Before.\n\n{line}\n\nAfter.\n")
    found = [block for chapter in document.chapters for block in chapter.blocks if block.kind == "heading"]
    assert found == ([Block("heading", line.lstrip("# "), level)] if level else [])


def test_a_chapter_pattern(tmp_path):
    plain = "One\na\nTwo\nb\n\nnot One\n"
    assert outline(read(tmp_path, "a.txt", plain, chapter_pattern="One|Two")) == [
        ("One", ["# One", "a"]),
        ("Two", ["# Two", "b", "not One"]),
    ]
    markup = "<h1>Title</h1><p>Day 1</p><p>a</p><h2>b</h2><p>Day 2</p><p>c</p>"
    for document in (
        read(tmp_path, "a.html", markup, chapter_pattern=r"Day \d"),
        read_document(epubs.write(tmp_path, with_nav(entry("a.xhtml", "A"), a=markup)), r"Day \d"),
    ):
        assert outline(document)[1:] == [("Day 1", ["# Day 1", "a", "## b"]), ("Day 2", ["# Day 2", "c"])]
    with pytest.raises(DocumentError, match="matches no heading or line") as caught:
        read(tmp_path, "a.txt", plain, chapter_pattern="Three")
    assert caught.value.arguments == ("chapter_pattern",)
    with pytest.raises(DocumentError, match="is not a regular expression"):
        read(tmp_path, "a.txt", plain, chapter_pattern="(")


@pytest.mark.parametrize(("chapters", "indices"), [
    ("1", [0]), ("3-5,9", [2, 3, 4, 8]), ("9, 3 - 5,4", [2, 3, 4, 8]), ("8-", [7, 8]),
    ("-2", [0, 1]), ("1-9", list(range(9))),
])  # fmt: skip
def test_a_list_of_chapters(tmp_path, chapters, indices):
    document = read(tmp_path, "a.md", "\n\n".join(f"# C{n}\n\ntext" for n in range(9)))
    assert select_chapters(document, chapters) == indices


@pytest.mark.parametrize("chapters", ["", "0", "10", "3-10", "5-3", "a", "1,,2", "-", "1-2-3", "1.5", "9" * 5000])
def test_a_list_of_chapters_that_is_invalid(tmp_path, chapters):
    document = read(tmp_path, "a.md", "\n\n".join(f"# C{n}\n\ntext" for n in range(9)))
    with pytest.raises(DocumentError) as caught:
        select_chapters(document, chapters)
    assert caught.value.arguments == ("chapters",)


@pytest.mark.parametrize(("name", "data", "text"), [
    ("a.txt", "é".encode(), "é"),
    ("a.txt", b"\xef\xbb\xbf" + "é".encode(), "é"),
    ("a.txt", "\ufeffé\r\n".encode("utf-16-le"), "é"),
    ("a.md", "\ufeffé".encode("utf-16-be"), "é"),
    ("a.html", b'<meta charset="iso-8859-1"><p>\xe9\x85', "é…"),
    ("a.html", b'<?xml version="1.0" encoding="Shift_JIS"?><p>' + "漢字".encode("cp932"), "漢字"),
    ("a.html", '<meta http-equiv="x" content="text/html; charset=gb2312"><p>朱镕基'.encode("gb18030"), "朱镕基"),
    ("a.html", b'<?xml version="1.0" encoding="utf-16"?><p>a', "a"),
])  # fmt: skip
def test_encodings(tmp_path, name, data, text):
    (tmp_path / name).write_bytes(data)
    assert outline(read_document(tmp_path / name))[0][1] == [text]


@pytest.mark.parametrize(("name", "data", "message"), [
    ("a.txt", b"caf\xe9", "not valid UTF-8 at byte 3"),
    ("a.html", b'<meta charset="utf-8"><p>caf\xe9', "not valid UTF-8"),
    ("a.html", b'<meta charset="punycode"><p>a', "'punycode', which is not supported"),
    ("a.html", b'<meta charset="zlib"><p>a', "'zlib', which is not supported"),
    ("a.html", b'<?xml encoding="shift_jis"?>\x81', "not valid CP932"),
    ("a.txt", b"", "has no text"),
    ("a.txt", b"* * *\n\n \n", "has no text"),
    ("a.html", b"<img alt='xx' src='y'>", "has no text"),
    ("a.md", b"---\ntitle: x\n---\n", "has no text"),
])  # fmt: skip
def test_files_that_cannot_be_read(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DocumentError, match=message):
        read_document(tmp_path / name)


def test_paths_that_cannot_be_read(tmp_path):
    (tmp_path / "folder.epub").mkdir()
    for path in (tmp_path / "none.txt", tmp_path / "none.epub", tmp_path, tmp_path / "folder.epub", "a\0b"):
        with pytest.raises(DocumentError, match="cannot read"):
            read_document(path)


@pytest.mark.parametrize(("module", "name"), [("bs4", "a.html"), ("markdown_it", "a.md")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DocumentError, match=r"pip install"):
        read(tmp_path, name, "text")


@pytest.mark.parametrize("suffix, text", [
    (".md", "# One\n\nText.\n\n```\ncode\n```\n\n# Two\n\n    more code\n\nText.\n"),
    (".html", "<h1>One</h1><p>Text.</p><pre>code</pre><h1>Two</h1><pre>more code</pre><p>Text.</p>"),
])  # fmt: skip
def test_what_ends_a_chapter_is_dropped_from_that_chapter(tmp_path, suffix, text):
    path = tmp_path / f"a{suffix}"
    path.write_text(text)
    dropped = [(one.chapter, one.text) for one in read_document(path).dropped]
    assert dropped == [("One", "code"), ("Two", "more code")]
