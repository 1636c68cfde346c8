"""What EPUB files get wrong or say in several ways: names of files, parts and sections, metadata, covers, contents."""

import pytest

from mlx_qwen3_tts.longform.document import read_document
from mlx_qwen3_tts.longform.links import resolve
from tests.support import epubs

OPF = "OEBPS/book.opf"
A = "OEBPS/a.xhtml"
SENTENCE = "It was a bright cold day in April, and the clocks were striking thirteen. " * 3


def read(tmp_path, parts):
    return read_document(epubs.write(tmp_path, parts))


def titles(document):
    return [chapter.title for chapter in document.chapters]


def headings(document):
    return [[block.text for block in chapter.blocks if block.kind == "heading"] for chapter in document.chapters]


def dropped(document, kind):
    return [part.text for part in document.dropped if part.kind == kind]


def edited(parts, *pairs):
    """The book with other text in its package file."""
    for old, new in pairs:
        assert old in parts[OPF]
        parts[OPF] = parts[OPF].replace(old, new)
    return parts


def chapter(name, text=SENTENCE):
    return f"<h2>{name}</h2><p>{text}</p>"


def two():
    return epubs.simple(a="<h1>A</h1><p>Text of a.</p>", b="<h1>B</h1><p>Text of b.</p>")


@pytest.mark.parametrize("href", [
    "A.XHTML", "..\\OEBPS\\a.xhtml", "%61%2Exhtml", "..%5cOEBPS%5ca.xhtml", "/OEBPS/a.xhtml", "\\oebps\\a.xhtml",
    "../../../OEBPS/a.xhtml", "../OEBPS/./x/../a.xhtml", " a.xhtml ",
])  # fmt: skip
def test_a_link_is_found_by_a_similar_name(tmp_path, href):
    book = read(tmp_path, edited(two(), ('"a.xhtml"', f'"{href}"')))
    assert titles(book) == ["A", "B"]
    assert not book.dropped


@pytest.mark.parametrize("rename", [
    lambda name: name.replace("/", "\\"),
    lambda name: name.replace("a.xhtml", "%61.xhtml"),
    lambda name: name.replace("OEBPS", "oebps").replace("META-INF", "meta-inf"),
    lambda name: f"./{name}",
    lambda name: f"/{name}",
])  # fmt: skip
def test_an_archive_with_odd_names(tmp_path, rename):
    book = read(tmp_path, {rename(name): text for name, text in two().items()})
    assert titles(book) == ["A", "B"]
    assert not book.dropped


def test_accented_names_in_two_forms(tmp_path):
    parts = edited(two(), ('"a.xhtml"', '"cafe\u0301.xhtml"'))
    parts["OEBPS/caf\u00e9.xhtml"] = parts.pop(A)
    assert titles(read(tmp_path, parts)) == ["A", "B"]


def test_a_name_that_matches_two_files_is_missing(tmp_path):
    parts = edited(two(), ('"a.xhtml"', '"A.xhtml"'))
    parts["OEBPS/a.XHTML"] = parts[A]
    book = read(tmp_path, parts)
    assert titles(book) == ["B"]
    assert dropped(book, "missing file") == ["A.xhtml"]


def test_similar_names_lead_to_footnotes_and_chapters(tmp_path):
    parts = epubs.simple(
        a='<p id="x">Text.<a epub:type="noteref" href="\\OEBPS\\Notes.xhtml#n">1</a></p>' + chapter("A"),
        notes='<p id="n">1. A note.</p><p>More text.</p>',
    )
    parts = with_nav(parts, '<li><a href="NOTES.xhtml">Rest</a></li>')
    book = read(tmp_path, parts)
    assert titles(book) == ["A", "Rest"]
    assert dropped(book, "footnote") == ["1. A note."]


def entry(name, *below, href=None):
    href = name.lower() + ".xhtml" if href is None else href
    label = f'<a href="{href}">{name}</a>' if href else f"<span>{name}</span>"
    nested = f"<ol>{''.join(below)}</ol>" if below else ""
    return f"<li>{label}{nested}</li>"


def point(markup):
    """The list items as points of an NCX."""
    for old, new in {
        "<li>": "<navPoint>", "</li>": "</navPoint>", "<span>": "<navLabel><text>", "</span>": "</text></navLabel>",
        '<a href="': '<content src="', '">': '"/><navLabel><text>', "</a>": "</text></navLabel>",
    }.items():  # fmt: skip
        markup = markup.replace(old, new)
    return f"<ncx><navMap>{markup}</navMap></ncx>"


def with_nav(parts, entries):
    parts["OEBPS/nav.xhtml"] = epubs.nav(entries)
    return edited(parts, ("<manifest>", "<manifest>" + epubs.item("nav", "nav.xhtml", properties="nav")))


def with_ncx(parts, entries):
    parts["OEBPS/toc.ncx"] = point(entries)
    return edited(parts, ("<manifest>", "<manifest>" + epubs.item("ncx", "toc.ncx", "application/x-dtbncx+xml")))


def parted(**changes):
    chapters = {
        "one": "<h1>Part One</h1>", "a": chapter("A"), "b": chapter("B"),
        "two": "<h1>Part Two</h1>", "c": chapter("C"), "end": chapter("End"),
    }  # fmt: skip
    return epubs.simple(**{**chapters, **changes})


PARTS = [entry("One", entry("A"), entry("B")), entry("Two", entry("C")), entry("End")]


@pytest.mark.parametrize("with_contents", [with_nav, with_ncx])
def test_parts_are_opened(tmp_path, with_contents):
    book = read(tmp_path, with_contents(parted(), "".join(PARTS)))
    assert titles(book) == ["A", "B", "C", "End"]
    assert headings(book) == [["Part One", "A"], ["B"], ["Part Two", "C"], ["End"]]


@pytest.mark.parametrize(("entries", "expected"), [
    ([entry("Volume", *PARTS[:2], href="one.xhtml"), PARTS[2]], ["A", "B", "C", "End"]),
    ([entry("One", entry("A"), entry("B"), href=""), entry("C")], ["A", "B", "C"]),
    ([entry("A"), entry("Two", entry("B"), entry("C"), href="")], ["A", "B", "C"]),
    ([entry("A"), entry("Two", entry("Three", entry("B"), href=""), href="gone.xhtml"), entry("C")], ["A", "B", "C"]),
    ([entry("1", href=""), entry("A"), entry("Empty", entry("Gone"), href="")], ["A"]),
    (["<li><span>1.</span> <a href='a.xhtml'>A</a> <a href='b.xhtml'>b</a></li>", entry("C")], ["A", "C"]),
    (["<li><span><a href='a.xhtml'>A</a></span></li>", entry("C")], ["A", "C"]),
    ([entry("One"), entry("A"), entry("B"), entry("Two"), entry("C"), entry("End")], ["A", "B", "C", "End"]),  # flat
])  # fmt: skip
@pytest.mark.parametrize("with_contents", [with_nav, with_ncx])
def test_groups(tmp_path, entries, expected, with_contents):
    if with_contents is with_ncx and any("1." in line or "<span><a" in line for line in entries):
        pytest.skip("an NCX has no such labels")
    found = titles(read(tmp_path, with_contents(parted(), "".join(entries))))
    assert [title for title in found if title not in ("A Book", "Part One")] == expected


def test_a_part_with_an_epigraph_and_one_with_an_introduction(tmp_path):
    parts = parted(one="<h1>Part One</h1><p>To M.</p>", b=chapter("B", SENTENCE * 9))
    parts |= {
        "OEBPS/two.xhtml": epubs.xhtml(chapter("Part Two")),
        "OEBPS/c.xhtml": epubs.xhtml(chapter("C", SENTENCE * 6)),
    }
    book = read(tmp_path, with_nav(parts, "".join(PARTS)))
    assert titles(book) == ["A", "B", "Two", "C", "End"]
    assert [block.text for block in book.chapters[0].blocks[:3]] == ["Part One", "To M.", "A"]


def sectioned(name, introduction):
    body = f"<h1>{name}</h1><p>{introduction}</p><h2 id='x'>X</h2><p>{SENTENCE}</p><h2 id='y'>Y</h2><p>{SENTENCE}</p>"
    parts = epubs.simple(a=body, b=body, c=chapter("C"))
    sections = [[entry("X", href=f"{file}.xhtml#x"), entry("Y", href=f"{file}.xhtml#y")] for file in "ab"]
    return parts, [entry(f"{name} {file}", *sections[n], href=f"{file}.xhtml") for n, file in enumerate("ab")]


@pytest.mark.parametrize(("name", "introduction"), [
    ("The Sea", SENTENCE), ("Chapter 1", ""), ("第一章", ""), ("KAPITEL 1", ""), ("Глава 1", ""), ("제1장", ""),
])  # fmt: skip
def test_sections_stay_in_their_chapters(tmp_path, name, introduction):
    parts, entries = sectioned(name, introduction)
    book = read(tmp_path, with_nav(parts, "".join(entries) + entry("C")))
    assert titles(book) == [f"{name} a", f"{name} b", "C"]


def test_a_chapter_among_others_may_begin_with_a_section(tmp_path):
    parts, entries = sectioned("The Sea", SENTENCE)
    parts["OEBPS/b.xhtml"] = parts["OEBPS/b.xhtml"].replace(SENTENCE, "", 1)
    assert titles(read(tmp_path, with_nav(parts, "".join(entries)))) == ["The Sea a", "The Sea b"]


def test_a_book_of_headings_only(tmp_path):
    parts = with_nav(epubs.simple(a="<h1>A</h1>", b="<h2>B</h2>"), entry("A") + entry("B"))
    assert titles(read(tmp_path, parts)) == ["A", "B"]


def creator(name, role="", number=0):
    """A creator of EPUB 2, or with a number of EPUB 3."""
    if number:
        meta = f'<meta refines="#c{number}" property="role" scheme="marc:relators">{role}</meta>'
        return f'<dc:creator id="c{number}">{name}</dc:creator>{meta}'
    return f'<dc:creator opf:role="{role}">{name}</dc:creator>' if role else f"<dc:creator>{name}</dc:creator>"


@pytest.mark.parametrize(("creators", "author"), [
    ([creator("A", "aut"), creator("B", "aut")], "A, B"),
    ([creator("A"), creator("B", "AUT")], "B, A"),
    ([creator("A", "edt"), creator(" B\n C ")], "B C"),
    ([creator("A", "edt"), creator("B", "trl")], "A, B"),
    ([creator("A", "ill", 1), creator("B", "aut", 2), creator("C", "aut", 3)], "B, C"),
    ([creator("A", "ill", 1), creator("A", "aut", 2), "<meta refines='#c1' property='role'>aut</meta>"], "A"),
    ([creator("A", "ill", 1), creator("B", "edt", 2)], "A, B"),
    ([f"<dc-metadata>{creator('A')}</dc-metadata>"], "A"),
    (["<dc:creator/>"], ""),
    ([], ""),
])  # fmt: skip
def test_authors(tmp_path, creators, author):
    book = read(tmp_path, edited(two(), (epubs.METADATA, "".join(creators))))
    assert (book.title, book.author, book.language) == ("book", author, "")


def test_the_main_title(tmp_path):
    metadata = """<dc:title id="s">A Tale</dc:title><meta refines="#s" property="title-type">subtitle</meta>
    <dc:title id="m">The Sea</dc:title><meta refines="#m" property="title-type">main</meta>"""
    assert read(tmp_path, edited(two(), (epubs.METADATA, metadata))).title == "The Sea"
    metadata = metadata.replace(">main<", ">edition<")
    assert read(tmp_path, edited(two(), (epubs.METADATA, metadata))).title == "A Tale"


GUIDE = '<guide><reference type="cover" href="{}"/></guide></package>'
PAGE = '<svg><image xlink:href="good.jpg"/></svg>'


@pytest.mark.parametrize(("property_", "meta", "guide", "unusable"), [
    ("good.jpg", "", "", []),
    ("", "i", "", []),
    ("", "good.jpg", "", []),
    ("", "p", "", []),  # the page instead of the picture
    ("", "", "page.xhtml", []),
    ("", "", "PAGE.HTML", []),
    ("gone.jpg", "", "page.xhtml", ["OEBPS/gone.jpg"]),
    ("bad.jpg", "", "good.jpg", ["OEBPS/bad.jpg"]),
    ("bad.jpg", "stale", "good.jpg", ["OEBPS/bad.jpg", "stale"]),
    ("bad.jpg", "i", "", ["OEBPS/bad.jpg"]),
    ("", "t", "good.jpg", []),  # a page of text is no cover, and nothing is wrong with it
])  # fmt: skip
def test_the_first_good_cover_is_taken(tmp_path, property_, meta, guide, unusable):
    parts = {**two(), "OEBPS/good.jpg": epubs.JPEG, "OEBPS/bad.jpg": b"GIF89a", "OEBPS/page.xhtml": epubs.xhtml(PAGE)}
    parts["OEBPS/PAGE.HTML"] = parts["OEBPS/page.xhtml"]
    items = epubs.item("i", "good.jpg", "image/jpeg") + epubs.item("p", "page.xhtml") + epubs.item("t", "a.xhtml")
    if property_:
        items += epubs.item("c", property_, "image/jpeg", "cover-image")
    parts = edited(parts, ("<manifest>", f"<manifest>{items}"))
    if meta:
        parts = edited(parts, ("</metadata>", f'<meta name="cover" content="{meta}"/></metadata>'))
    if guide:
        parts = edited(parts, ("</package>", GUIDE.format(guide)))
    book = read(tmp_path, parts)
    assert book.cover == epubs.JPEG
    assert dropped(book, "cover") == unusable


@pytest.mark.parametrize(("guide", "reasons"), [("gone.jpg", ["OEBPS/gone.jpg"]), ("a.xhtml", [])])
def test_a_book_without_a_good_cover(tmp_path, guide, reasons):
    book = read(tmp_path, edited(two(), ("</package>", GUIDE.format(guide))))
    assert book.cover is None
    assert dropped(book, "cover") == reasons


CONTENTS = '<h1>Contents</h1><p><a href="a.xhtml">A</a></p><p><a href="b.xhtml">B</a></p>'


@pytest.mark.parametrize("way", ["guide", "body", "section", "nav"])
def test_a_contents_page_is_not_read(tmp_path, way):
    body = f'<section epub:type="toc">{CONTENTS}</section>' if way == "section" else CONTENTS
    parts = {**epubs.simple(c=body, a=chapter("A"), b=chapter("B"))}
    if way == "body":
        parts["OEBPS/c.xhtml"] = epubs.xhtml(CONTENTS, "", ' epub:type="toc"')
    if way == "guide":
        reference = '<guide><reference type="toc" href="C.xhtml#x"/></guide></package>'
        parts = edited(parts, ("</package>", reference))
    if way == "nav":
        parts = edited(parts, ('href="c.xhtml" media-type="application/xhtml+xml" properties=""',
                               'href="c.xhtml" media-type="application/xhtml+xml" properties="nav"'))  # fmt: skip
    book = read(tmp_path, parts)
    assert headings(book) == [["A"], ["B"]]
    assert len(dropped(book, "navigation")) == 1


def test_contents_within_the_text_are_not_the_whole_file(tmp_path):
    """A book in one file, which has its table of contents, too."""
    body = f'<nav epub:type="toc"><ol>{entry("A", href="a.xhtml#a")}{entry("B", href="a.xhtml#b")}</ol></nav>'
    parts = epubs.simple(a=body + "<h2 id='a'>A</h2><p>Text.</p><h2 id='b'>B</h2><p>Text.</p>")
    book = read(tmp_path, edited(parts, ('properties=""', 'properties="nav"')))
    assert titles(book) == ["A", "B"]


def test_what_begins_a_file_is_dropped_from_its_chapter(tmp_path):
    parts = epubs.simple(a="<p>Text of a.</p><pre>end of a</pre>", b="<pre>top of b</pre><p>Text of b.</p>")
    code = [(part.chapter, part.text) for part in read(tmp_path, parts).dropped if part.kind == "code"]
    first, second = (name for name, _ in code)
    assert first != second
    assert [text for _, text in code] == ["end of a", "top of b"]


@pytest.mark.parametrize(("link", "target"), [
    ("one.xhtml#n", ("text/one.xhtml", "n")), (" ../a%20b.xhtml ", ("a b.xhtml", "")), ("../../../a", ("a", "")),
    ("/a", ("a", "")), ("..\\a", ("a", "")), ("#n", ("text/two.xhtml", "n")), ("", ("text/two.xhtml", "")),
    ("http://x.org/a", ("", "")), ("//x.org/a", ("", "")), ("mailto:a", ("", "")), ("http://[", ("", "")),
])  # fmt: skip
def test_links(link, target):
    assert resolve("text/two.xhtml", link) == target


def test_the_older_contents_stand_in_for_a_navigation_file_that_is_missing(tmp_path):
    parts = with_ncx(epubs.simple(a=chapter("A"), b=chapter("B")), entry("First", href="a.xhtml"))
    gone = epubs.item("nav", "gone.xhtml", properties="nav")
    assert titles(read(tmp_path, edited(parts, ("<manifest>", f"<manifest>{gone}")))) == ["First"]
