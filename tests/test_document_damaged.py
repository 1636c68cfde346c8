"""Damaged and hostile books end in one line, or are read rightly: no traceback, no hang, no gigabytes, no files."""

import os
import random
import re
import struct
import time
import tracemalloc
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mlx_qwen3_tts.errors import DocumentError
from mlx_qwen3_tts.longform import archive, package, toc
from mlx_qwen3_tts.longform.document import read_document
from mlx_qwen3_tts.longform.markup import simplify
from tests.support import epubs

SECONDS = 20  # two orders of magnitude above what each takes, and below what a quadratic one takes
DRM = """<encryption><EncryptedData><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes256-cbc"/>
<CipherData><CipherReference URI="OEBPS/a.xhtml"/></CipherData></EncryptedData></encryption>"""
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)
EXTERNAL = '<!DOCTYPE x [<!ENTITY j SYSTEM "file:///etc/passwd">]>'
OPF = "OEBPS/book.opf"
A = "OEBPS/a.xhtml"


def base():
    return epubs.simple(a="<h1>A</h1><p>Text of a.</p>", b="<h1>B</h1><p>Text of b.</p>")


def changed(name, old, new):
    """The base book with something else in a part."""
    parts = base()
    assert old in parts[name]
    return {**parts, name: parts[name].replace(old, new)}


def without(name):
    parts = base()
    del parts[name]
    return parts


def attempt(folder, data):
    """The book that is read, or the line that says why not; fails if it is slow or leaves a file."""
    path = folder / "book.epub"
    path.write_bytes(data)
    before = sorted(folder.rglob("*"))
    start = time.monotonic()
    try:
        return read_document(path)
    except DocumentError as error:
        assert "\n" not in str(error)
        return str(error)
    finally:
        assert time.monotonic() - start < SECONDS
        assert sorted(folder.rglob("*")) == before


def spoken(book):
    assert not isinstance(book, str), book
    return [block.text for chapter in book.chapters for block in chapter.blocks]


def flipped(data, marker):
    """The data with one bit changed behind a marker."""
    position = data.index(marker) + len(marker)
    return data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :]


def with_flag(data):
    """The archive with all files marked as encrypted."""
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        position = data.find(signature)
        while position >= 0:
            data = data[: position + offset] + b"\x01" + data[position + offset + 1 :]
            position = data.find(signature, position + 1)
    return data


def many_entries():
    """An archive that lists 60,000 files, in 5 MB."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0) + b"a" * 40
    directory = entry * 60_000
    return directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, len(directory), 0, 0)


def wrong_size():
    """An archive whose list says that the chapter has one byte."""
    data = epubs.archive(base())
    position = data.index(b"PK\x01\x02", data.index(A.encode()))
    while data[position + 46 : position + 46 + len(A)] != A.encode():
        position = data.index(b"PK\x01\x02", position + 1)
    return data[: position + 24] + struct.pack("<L", 1) + data[position + 28 :]


NAV = epubs.item("nav", "nav.xhtml", properties="nav")
NOISE = random.Random(0).randbytes(5000)
WHOLE = epubs.archive(base())
STORED = epubs.archive(base(), zipfile.ZIP_STORED)
ERRORS = {
    "an empty file": (b"", "is not an EPUB, or is damaged"),
    "not an archive": (b"Chapter 1\n" * 100, "is not an EPUB, or is damaged"),
    "cut off": (WHOLE[: len(WHOLE) // 2], "is not an EPUB, or is damaged"),
    "cut off in its list": (WHOLE[:-30], "is not an EPUB, or is damaged"),
    "no list but its end": (b"PK\x05\x06" + bytes(18), "container.xml is missing"),
    "too many files": (many_entries(), "lists too many files"),
    "a bit in a stored file": (flipped(STORED, b"Text of "), "a.xhtml in .* is damaged"),
    "a bit in a deflated file": (flipped(WHOLE, A.encode()), "is damaged"),
    "a size that lies": (wrong_size(), "a.xhtml in .* is damaged"),
    "a password": (with_flag(WHOLE), "damaged or encrypted"),
    "LZMA": (epubs.archive(base(), zipfile.ZIP_LZMA), "compressed in a way that EPUB does not allow"),
    "a bomb": (epubs.archive({**base(), A: bytes(100 << 20)}), "has more than 8,388,608 bytes"),
    "a bomb as container": (epubs.archive({**base(), package.CONTAINER: bytes(100 << 20)}), "has more than"),
    "no container": (without(package.CONTAINER), "container.xml is missing"),
    "an empty container": ({**base(), package.CONTAINER: ""}, "names no package file"),
    "a container without a path": ({**base(), package.CONTAINER: "<rootfile/>"}, "names no package file"),
    "a path out of the archive": (changed(package.CONTAINER, OPF, "../../../etc/passwd"), "passwd is missing"),
    "an absolute path": (changed(package.CONTAINER, OPF, "/etc/passwd"), "passwd is missing"),
    "no package file": (without(OPF), "book.opf is missing"),
    "a package file of noise": ({**base(), OPF: bytes(range(256))}, "not valid UTF-8"),
    "an empty package file": ({**base(), OPF: ""}, "the spine in OEBPS/book.opf lists no files"),
    "no spine": (changed(OPF, "itemref", "nothing"), "the spine in OEBPS/book.opf lists no files"),
    "no file of the spine": (changed(OPF, 'href="', 'href="x'), "has no text"),
    "DRM": ({**base(), package.ENCRYPTION: DRM}, "is encrypted"),
    "an entity bomb": ({**base(), OPF: BOMB + f"]>{base()[OPF]}"}, "defines its own entities"),
    "an entity bomb in a chapter": ({**base(), A: BOMB + "]><p>&j;</p>"}, "defines its own entities"),
    "an external entity": ({**base(), A: EXTERNAL + "<p>&j;</p>"}, "defines its own entities"),
    "an entity in odd places": ({**base(), A: "<!DOCTYPE x [<!-- ]> --><!entity a ''>]><p>&a;"}, "its own entities"),
    "the wrong encoding": ({**base(), A: "<p>café".encode("latin-1")}, "a.xhtml in .* is not valid UTF-8 at byte 6"),
    "an unknown encoding": ({**base(), A: '<?xml encoding="x-rot13"?><p>a'}, "'x-rot13', which is not supported"),
    "nothing to read": (epubs.simple(a="", b="<p><img src='x.png'/></p>"), "has no text to read aloud"),
    "nothing in the linear text": (changed(OPF, "<itemref", '<itemref linear="no"'), "has no text to read aloud"),
    "20,001 files": (epubs.archive({f"x{n}": "" for n in range(20_001)}, zipfile.ZIP_STORED), "more than 20,000 files"),
    "a spine of 20,001 files": (changed(OPF, "<spine>", "<spine>" + "<itemref/>" * 20_000), "more than 20,000 files"),
    "a manifest of 20,001 files": (changed(OPF, "<manifest>", "<manifest>" + "".join(
        f'<item id="{n}"/>' for n in range(20_001))), "more than 20,000 files"),
    "a package file of 200,000 elements": (changed(OPF, "</package>", "<x/>" * 200_000), "more than 100,000 tags"),
    "noise where the encryption would be told": ({**base(), A: NOISE, package.ENCRYPTION: NOISE}, "DRM"),
    "an encryption of no method": ({**base(), A: NOISE, package.ENCRYPTION: "<EncryptedData/>"}, "a.xhtml .*DRM"),
    "too many tags": ({**base(), A: "<b>" * 400_001}, "has more than 400,000 tags"),
    "a character of 5,000 digits": ({**base(), A: f"<p>&#{'9' * 5000};"}, "cannot be parsed"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ERRORS)
def test_damage_ends_in_one_line(tmp_path, kind):
    content, message = ERRORS[kind]
    found = attempt(tmp_path, content if isinstance(content, bytes) else epubs.archive(content))
    assert isinstance(found, str), found
    assert re.search(message, found), found


BOTH = ["A", "Text of a.", "B", "Text of b."]
ONLY_B = BOTH[2:]
DEEP = 3_000  # elements, more than Python's stack holds
READINGS = {
    "a missing file": (without(A), ONLY_B, ("missing file", "a.xhtml")),
    "an unknown id": (changed(OPF, 'idref="a"', 'idref="z"'), ONLY_B, ("missing file", "z")),
    "a path out of the archive": (changed(OPF, "a.xhtml", "../../../../etc/passwd"), ONLY_B,
                                  ("missing file", "../../../../etc/passwd")),
    "a URL": (changed(OPF, "a.xhtml", "https://example.org/a.xhtml"), ONLY_B,
              ("missing file", "https://example.org/a.xhtml")),
    "a URL without a host": (changed(OPF, "a.xhtml", "https:a.xhtml"), ONLY_B, ("missing file", "https:a.xhtml")),
    "a file URL": (changed(OPF, "a.xhtml", "file:///etc/passwd"), ONLY_B, ("missing file", "file:///etc/passwd")),
    "an impossible URL": (changed(OPF, "a.xhtml", "http://[x"), ONLY_B, ("missing file", "http://[x")),
    "an id twice": (changed(OPF, 'id="b"', 'id="a"'), BOTH[:2], ("missing file", "b")),
    "a file twice": (changed(OPF, "<spine>", '<spine><itemref idref="a"/>'), BOTH, None),
    "a picture in the spine": (changed(OPF, 'href="a.xhtml" media-type="application/xhtml+xml"',
                                       'href="a.xhtml" media-type="image/png"'), BOTH, None),
    "a PDF in the spine": ({**changed(OPF, 'href="a.xhtml" media-type="application/xhtml+xml"',
                                      'href="a.pdf" media-type="application/pdf"'), "OEBPS/a.pdf": b"%PDF"},
                           ONLY_B, ("media", "a.pdf")),
    "tags that do not match": ({**base(), A: "<h1>A</h2></div><p>Text <b>of</i> a.</b></p></body>"}, None, None),
    "tags that are not closed": ({**base(), A: "<body><h1>A</h1><p>Text <i>of a."}, BOTH, None),
    "a stray ampersand": (changed(OPF, "A Book", "A & B &nbsp; <i>"), BOTH, None),
    "prefixes": ({**base(), OPF: base()[OPF].replace("<item", "<o:item").replace("<spine", "<o:spine")}, BOTH, None),
    "no DOCTYPE's end": ({**base(), A: f"<!DOCTYPE html [{base()[A]}"}, BOTH, None),
    "a comment that never ends": ({**base(), A: f"<!-- {base()[A]}"}, ["A", "Text of a.", *ONLY_B], None),
    "a CDATA section that never ends": ({**base(), A: f"{base()[A]}<![CDATA["}, BOTH, None),
    "deep nesting": ({**base(), A: "<div>" * DEEP + "<h1>A</h1><p>Text of a."}, BOTH, None),
    "deep nesting of marks": ({**base(), A: "<h1>A</h1><p>Text of a." + "<sup>" * DEEP}, BOTH, None),
    "deep ruby": ({**base(), A: "<h1>A</h1><p>Text of a.</p>" + "<ruby>" * DEEP}, BOTH, None),
    "a huge attribute": (changed(A, "<h1>", f'<h1 title="{"x" * (4 << 20)}">'), BOTH, None),
    "a million attributes": (changed(A, "<h1>", f"<h1 {'a=1 ' * 1_000_000}>"), BOTH, None),
    "links that are not closed": ({**base(), A: f"{base()[A]}{'<a ' * 100_000}"}, None, None),
    "quotes that are not closed": ({**base(), A: f"{base()[A]}{'<a b=' * 50_000}"}, None, None),
    "declarations that are not closed": ({**base(), A: f"{base()[A]}{'<!DOCTYPE [' * 50_000}"}, None, None),
    "comments that are not closed": ({**base(), A: f"{base()[A]}{'<!--' * 100_000}"}, None, None),
    "a script that is not closed": (changed(A, "</body>", "<script>"), BOTH, ("script", "")),
    "fonts that are obscured": ({**base(), package.ENCRYPTION: DRM.replace(
        "http://www.w3.org/2001/04/xmlenc#aes256-cbc", "http://ns.adobe.com/pdf/enc#RC")}, BOTH, None),
    "an encryption file of bytes": ({**base(), package.ENCRYPTION: NOISE}, BOTH, None),
    "an encryption file of bytes and a missing file": (
        {**without(A), package.ENCRYPTION: NOISE}, ONLY_B, ("missing file", "a.xhtml")),
    "an encryption file of bytes and an unknown id": (
        {**changed(OPF, 'idref="a"', 'idref="z"'), package.ENCRYPTION: NOISE}, ONLY_B, ("missing file", "z")),
    "an encryption of nothing": ({**base(), package.ENCRYPTION: "<encryption/>"}, BOTH, None),
    "an encryption file of noise": ({**base(), package.ENCRYPTION: "<" * 1000}, BOTH, None),
    "names that lead out": ({**base(), "../../evil.txt": "x", "/evil.txt": "x", "C:\\evil.txt": "x"}, BOTH, None),
    "a wrong mimetype": ({**base(), "mimetype": "text/plain"}, BOTH, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", READINGS)
def test_damage_that_loses_no_text_is_read(tmp_path, kind):
    parts, text, listed = READINGS[kind]
    book = attempt(tmp_path, epubs.archive(parts))
    if text is None:
        assert " ".join(spoken(book)).startswith("A")
        assert spoken(book)[-2:] == ONLY_B
    else:
        assert spoken(book) == text
    if listed is not None:
        assert listed in [(part.kind, part.text) for part in book.dropped]


CONTENTS = {
    "itself": epubs.nav('<li><a href="nav.xhtml">1</a><ol><li><a href="nav.xhtml#toc">2</a></li></ol></li>'),
    "one another": epubs.nav(
        '<li><a href="b.xhtml">b</a><ol><li><a href="a.xhtml">a</a><ol><li><a href="b.xhtml">b</a>'
    ),
    "nothing": epubs.nav(""),
    "noise": "<nav epub:type='toc'" * 1000,
    "elsewhere": epubs.nav(
        '<li><a href="http://[x">1</a></li><li><a>2</a></li><li><a href="../../../etc/passwd">3</a>'
    ),
    "depth": epubs.nav("<ol><li>" * DEEP + '<a href="b.xhtml">b</a>'),
    "links in links": epubs.nav('<li><a href="b.xhtml">' * DEEP),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("ncx", [False, True])
def test_contents_that_lead_nowhere(tmp_path, kind, ncx):
    markup = CONTENTS[kind]
    entry = epubs.item("toc", "nav.xhtml", properties="nav")
    if ncx:
        entry = epubs.item("toc", "nav.xhtml", "application/x-dtbncx+xml")
        names = {"<a href=": "<navPoint><content src=", "</a>": "</content></navPoint>", "nav epub": "navMap x"}
        for old, new in names.items():
            markup = markup.replace(old, new)
    parts = changed(OPF, "<manifest>", f"<manifest>{entry}")
    assert spoken(attempt(tmp_path, epubs.archive({**parts, "OEBPS/nav.xhtml": markup}))) == BOTH


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", bytes(17 << 20), None])
def test_a_cover_that_is_not_a_picture(tmp_path, data):
    parts = changed(OPF, "<manifest>", f"<manifest>{epubs.item('c', 'c.png', 'image/png', 'cover-image')}")
    if data is not None:
        parts["OEBPS/c.png"] = data
    book = attempt(tmp_path, epubs.archive(parts))
    assert spoken(book) == BOTH
    assert book.cover is None
    assert [part.text for part in book.dropped if part.kind == "cover"] == ["OEBPS/c.png"]


@pytest.mark.parametrize(("limit", "piece"), [("MAX_TEXT", " "), ("MAX_TAGS", "<b>"), ("MAX_ENTITIES", "&amp;")])
def test_all_files_together_are_limited(tmp_path, monkeypatch, limit, piece):
    monkeypatch.setattr(archive, limit, 2000)
    parts = epubs.simple(a="<p>a" + piece * 800, b="<p>b" + piece * 100)
    parts = {name: text for name, text in parts.items() if name != "mimetype"}
    if limit != "MAX_TEXT":
        assert spoken(attempt(tmp_path, epubs.archive(parts)))
    parts["OEBPS/b.xhtml"] = epubs.xhtml("<p>b" + piece * 1300)
    assert "has more than" in attempt(tmp_path, epubs.archive(parts))


def test_contents_are_limited(tmp_path, monkeypatch):
    parts = {
        **changed(OPF, "<manifest>", f"<manifest>{NAV}"),
        "OEBPS/nav.xhtml": epubs.nav("<li><a href='x'/></li>" * 9),
    }
    monkeypatch.setattr(toc, "MAX_ENTRIES", 9)
    assert spoken(attempt(tmp_path, epubs.archive(parts))) == BOTH
    monkeypatch.setattr(toc, "MAX_ENTRIES", 8)
    assert "lists more than 8 chapters" in attempt(tmp_path, epubs.archive(parts))


@pytest.mark.parametrize("name", ["a.epub", "a.txt", "a.md"])
def test_a_pipe_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DocumentError, match="is a pipe or a device"):
        read_document(tmp_path / name)


def test_a_device_is_refused():
    with pytest.raises(DocumentError, match="is a pipe or a device"):
        read_document("/dev/zero")


def test_a_name_twice_in_the_archive(tmp_path):
    path = tmp_path / "twice.epub"
    with zipfile.ZipFile(path, "w") as target, pytest.warns(UserWarning, match="Duplicate"):
        for name, content in [(A, "<p>Old."), *base().items()]:
            target.writestr(name, content)
    assert spoken(read_document(path)) == BOTH


def test_a_bomb_takes_little_memory(tmp_path):
    data = epubs.archive({**base(), A: bytes(100 << 20)})
    tracemalloc.start()
    try:
        attempt(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("piece", [
    "<!--", "<![CDATA[", "<?", "<!", "<a ", "</a", "<a b='", '<a b="c" ', '="<', "='<", "<!DOCTYPE",
    "<!DOCTYPE [", "<a\n",
    '"data:', "<a " + "b " * 3000 + ">",
])  # fmt: skip
def test_markup_is_simplified_in_linear_time(piece):
    def seconds(size):
        start = time.perf_counter()
        simplify(piece * (size // len(piece)), "x")
        return time.perf_counter() - start

    seconds(1000)
    assert seconds(500_000) < 5  # a quadratic expression takes many minutes


TEXT = st.text(max_size=60)
PIECES = st.sampled_from([
    "<p>", "</p>", "<h1>", "</h1>", "<br>", "<hr/>", "<a href='#n'>", "[1]", "*", "</a>", "<sup>",
    "<ruby>", "<rt>", "か",
    "</ruby>", "<aside>", "<pre>", "<li id=n>", "<table>", "<title>", "<head>", "<body>", "\n\n", "# ", "Chapter 1",
    "第一章", "Anna: a\n", "Ben: b\n", "---\n", "[^1]", "[^1]: ", "<!--", "-->", "<![CDATA[", "]]>",
    "&amp;", "&#xD800;",
    "<", ">", "\f",
])  # fmt: skip
MIXTURE = st.lists(st.one_of(PIECES, TEXT), max_size=30).map("".join)
EASY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(path):
    """Read a file; what is read must be lines that can be written and spoken."""
    try:
        document = read_document(path)
    except DocumentError as error:
        assert "\n" not in str(error)
        return
    assert document.title and document.chapters
    for chapter in document.chapters:
        assert chapter.title and chapter.blocks
        assert chapter.blocks[0].kind != "break" and chapter.blocks[-1].kind != "break"
        for block in chapter.blocks:
            assert block.text == " ".join(block.text.split())
            assert bool(block.text) == (block.kind != "break")
            assert (block.level > 0) == (block.kind == "heading")
            block.text.encode()
    for part in document.dropped:
        assert "\n" not in part.text
        part.text.encode()


@EASY
@given(text=MIXTURE, name=st.sampled_from(["a.txt", "a.md", "a.html"]))
def test_any_text_is_read(tmp_path, text, name):
    (tmp_path / name).write_bytes(text.encode("utf-8", "replace"))
    check(tmp_path / name)


@EASY
@given(data=st.binary(max_size=200), name=st.sampled_from(["a.txt", "a.md", "a.html", "a.epub"]))
def test_any_bytes_are_read(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name)


@EASY
@given(data=st.data())
def test_any_bytes_in_any_part_of_a_book(tmp_path, data):
    parts = data.draw(st.sampled_from([epubs.alice(), epubs.madman()]))
    name = data.draw(st.sampled_from(sorted(parts)))
    content = parts[name].encode() if isinstance(parts[name], str) else parts[name]
    position = data.draw(st.integers(0, len(content)))
    noise = data.draw(st.one_of(st.binary(max_size=20), MIXTURE.map(lambda text: text.encode("utf-8", "replace"))))
    length = data.draw(st.integers(0, 100))
    parts[name] = content[:position] + noise + content[position + length :]
    check(epubs.write(tmp_path, parts))


@EASY
@given(data=st.data())
def test_any_bytes_in_the_archive(tmp_path, data):
    content = epubs.archive(epubs.madman())
    position = data.draw(st.integers(0, len(content) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    (tmp_path / "a.epub").write_bytes(content[:position] + noise + content[position + len(noise) :])
    check(tmp_path / "a.epub")
