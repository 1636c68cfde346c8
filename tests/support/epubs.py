"""EPUB files made for tests: their parts by name, and the archive that holds them.

alice()       EPUB 3, English: navigation with nested entries, footnotes, page numbers, pictures, a cover
madman()      EPUB 2, Chinese: an NCX, one file with several chapters, notes without markup, a cover by <meta>
"""

import io
import zipfile
from pathlib import Path

Parts = dict[str, str | bytes]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)
JPEG = b"\xff\xd8\xff\xe0" + bytes(24)
CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
METADATA = "<dc:title>A Book</dc:title><dc:creator>A. Writer</dc:creator><dc:language>en</dc:language>"
NS = 'xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"'


def package(manifest: str, spine: str, metadata: str = METADATA, version: str = "3.0", more: str = "") -> str:
    """Return a package file. spine: the entries, or the whole element."""
    if "<spine" not in spine:
        spine = f"<spine>{spine}</spine>"
    return f"""<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="{version}" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:opf="http://www.idpf.org/2007/opf">
<dc:identifier id="id">urn:isbn:0</dc:identifier>{metadata}</metadata>
<manifest>{manifest}</manifest>{spine}{more}</package>"""


def item(identifier: str, href: str, media_type: str = "application/xhtml+xml", properties: str = "") -> str:
    """Return an entry of a manifest."""
    return f'<item id="{identifier}" href="{href}" media-type="{media_type}" properties="{properties}"/>'


def xhtml(body: str, title: str = "", body_attributes: str = "") -> str:
    """Return an XHTML file."""
    return f"""<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html {NS} lang="en"><head><title>{title}</title><link rel="stylesheet" href="a.css"/><style>p {{}}</style></head>
<body{body_attributes}>{body}</body></html>"""


def nav(entries: str) -> str:
    """Return a navigation file. entries: list items."""
    return xhtml(f'<nav epub:type="toc" id="toc"><h1>Contents</h1><ol>{entries}</ol></nav>')


def simple(**chapters: str) -> Parts:
    """Return a book with one file a chapter and no table of contents. chapters: name to the body's markup."""
    parts: Parts = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER}
    manifest = "".join(item(name, f"{name}.xhtml") for name in chapters)
    parts["OEBPS/book.opf"] = package(manifest, "".join(f'<itemref idref="{name}"/>' for name in chapters))
    for name, body in chapters.items():
        parts[f"OEBPS/{name}.xhtml"] = xhtml(body)
    return parts


def archive(parts: Parts, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return the bytes of a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, content in parts.items():
            target.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def write(folder: Path, parts: Parts, name: str = "book.epub") -> Path:
    """Write a book to a folder and return its path."""
    path = folder / name
    path.write_bytes(archive(parts))
    return path


def alice() -> Parts:
    """Return parts of "Alice's Adventures in Wonderland" by Lewis Carroll (1865, public domain)."""
    files = [
        item("nav", "nav.xhtml", properties="nav"), item("cover", "images/cover.jpg", "image/jpeg", "cover-image"),
        item("title", "title.xhtml"), item("c1", "text/one.xhtml"), item("c1b", "text/one%20more.xhtml"),
        item("c2", "text/two.xhtml"), item("notes", "text/notes.xhtml"), item("ad", "ad.xhtml"),
        item("font", "font.otf", "font/otf"),
    ]  # fmt: skip
    spine = '<itemref idref="nav"/>' + "".join(f'<itemref idref="{name}"/>' for name in ("title", "c1", "c1b", "c2"))
    spine += '<itemref idref="notes"/><itemref idref="ad" linear="no"/>'
    metadata = """<dc:title>Alice&#8217;s Adventures in Wonderland</dc:title>
<dc:creator id="lc">Lewis Carroll</dc:creator><meta refines="#lc" property="role">aut</meta>
<dc:creator id="jt">John Tenniel</dc:creator><meta refines="#jt" property="role">ill</meta>
<dc:language>en-GB</dc:language>"""
    return {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "META-INF/encryption.xml": """<encryption><enc:EncryptedData xmlns:enc="e"><enc:EncryptionMethod
            Algorithm="http://www.idpf.org/2008/embedding"/></enc:EncryptedData></encryption>""",
        "OEBPS/book.opf": package("".join(files), spine, metadata),
        "OEBPS/images/cover.jpg": JPEG,
        "OEBPS/nav.xhtml": nav("""<li><a href="text/one.xhtml">I. <em>Down</em> the Rabbit-Hole</a>
            <ol><li><a href="text/one.xhtml#fall">The Fall</a></li></ol></li>
            <li><a href="text/two.xhtml#ch2">II. The Pool of Tears</a></li>"""),
        "OEBPS/title.xhtml": xhtml("""<h1>Alice&#8217;s Adventures in Wonderland</h1><p>by Lewis Carroll</p>
            <p><img src="images/cover.jpg" alt="Alice and the Duchess"/></p>"""),
        "OEBPS/text/one.xhtml": xhtml("""<section epub:type="chapter"><h2>CHAPTER I.<br/>Down the Rabbit-Hole</h2>
            <p><span epub:type="pagebreak" id="p1" title="1"/><img alt="A" src="a.png"/>lice was beginning to get very
            tired of sitting by her sister on the bank<a epub:type="noteref" href="notes.xhtml#n1">1</a>, and of having
            nothing to do: once or twice she had peeped into the book her sister was reading,<sup><a
            href="notes.xhtml#n2">2</a></sup> but it had no pictures or conversations in it.</p>
            <pre><code>print("rabbit")</code></pre>
            <p>So she was considering in her own mind.<span class="pagenum">[2]</span></p>
            <hr/><p id="fall">Down, down, down. There was nothing else to do.</p></section>"""),
        "OEBPS/text/one more.xhtml": xhtml("""<p>Down, down, down. Would the fall <em>never</em> come to an end?</p>
            <figure><img src="b.png" alt="The cat"/><figcaption>Dinah</figcaption></figure>
            <table><tr><td>miles</td><td>4000</td></tr></table>"""),
        "OEBPS/text/two.xhtml": xhtml("""<h2 id="ch2">CHAPTER II.<br/>The Pool of Tears</h2>
            <p>&#8220;Curiouser and curiouser!&#8221; cried Alice<a href="#star" id="back">*</a> (she was so much
            surprised).</p><p>* * *</p><p>&#8220;But then,&#8221; thought Alice.</p>
            <aside epub:type="footnote" id="star"><p>* Good English is forgotten.</p></aside>
            <script>alert("tears")</script>"""),
        "OEBPS/text/notes.xhtml": xhtml("""<section epub:type="endnotes"><h2>Notes</h2>
            <p id="n1">1. The bank of the Thames.</p><p id="n2">2. A lesson book.</p></section>"""),
        "OEBPS/ad.xhtml": xhtml("<p>Also by the same author.</p>"),
        "OEBPS/font.otf": b"OTTO",
    }  # fmt: skip


def madman() -> Parts:
    """Return parts of 狂人日记 by Lu Xun (1918, public domain)."""
    files = [
        item("ncx", "toc.ncx", "application/x-dtbncx+xml"), item("pic", "cover.png", "image/png"),
        item("text", "text.html"), item("notes", "notes.html"),
    ]  # fmt: skip
    metadata = """<dc:title>狂人日记</dc:title><dc:creator opf:role="aut">鲁迅</dc:creator>
<dc:creator opf:role="trl">某某</dc:creator><dc:language>zh-CN</dc:language><meta name="cover" content="pic"/>"""
    spine = '<spine toc="ncx"><itemref idref="text"/><itemref idref="notes"/></spine>'
    return {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": package("".join(files), spine, metadata, "2.0"),
        "OEBPS/cover.png": PNG,
        "OEBPS/toc.ncx": """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://www.daisy.org/z3986/2005/ncx-2005-1.dtd">
<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/" version="2005-1"><docTitle><text>狂人日记</text></docTitle><navMap>
<navPoint id="a" playOrder="1"><navLabel><text>一</text></navLabel><content src="text.html#one"/></navPoint>
<navPoint id="b" playOrder="2"><navLabel><text>二</text></navLabel><content src="text.html#two"/></navPoint>
</navMap></ncx>""",
        "OEBPS/text.html": xhtml("""<p>某君昆仲，今隐其名，皆余昔日在中学时良友；
            分隔多年，消息渐阙。</p>
            <h3><a id="one"></a>一</h3><p>今天晚上，很好的月光<a id="r1" href="notes.html#z1">[1]</a>。</p>
            <p>我不见他，已是三十多年；今天见了，精神分外爽快。</p>
            <h3 id="two">二</h3><p>今天全没月光，我知道不妙。早上小心出门，赵贵翁的眼色便怪<a id="r2"
            href="notes.html#z2"><sup>2</sup></a>。</p>"""),
        "OEBPS/notes.html": xhtml("""<p><a id="z1" href="text.html#r1">[1]</a> 月光：月亮的光。</p>
            <p id="z2"><a href="text.html#r2">2</a> 怪：奇怪。</p>"""),
    }  # fmt: skip
