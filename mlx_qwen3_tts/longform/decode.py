"""Bytes to text, by byte order mark, by declaration, else as UTF-8."""

import codecs
import re

from ..errors import DocumentError

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# The encodings that a file may declare; Python has others that decode in quadratic time or are not for text.
ENCODINGS = {
    "ascii", "big5", "big5hkscs", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1257", "cp932", "cp949",
    "euc_jp", "euc_kr", "gb18030", "gb2312", "gbk", "iso2022_jp", "iso8859-1", "iso8859-15", "iso8859-2", "iso8859-5",
    "koi8-r", "koi8-u", "mac-roman", "shift_jis", "utf-16-be", "utf-16-le", "utf-8",
}  # fmt: skip
# As in browsers: what is declared is often a part of what is used.
WIDER = {"ascii": "cp1252", "iso8859-1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
DECLARATION = re.compile(
    rb"""<\?xml[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([\w.:-]{1,40})|<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?([\w.:-]{1,40})""",
    re.IGNORECASE,
)
DECLARATION_WITHIN = 4096  # bytes from the beginning


def decode(data: bytes, name: str, declared: bool = False) -> str:
    """Return the text of a file with uniform line ends.

    name: of the file, for messages. declared: the file may declare its encoding, as XML and HTML do. Raises
    DocumentError if the text is not in its encoding.
    """
    encoding = "utf-8"
    for mark, marked in MARKS.items():
        if data.startswith(mark):
            return _decode(data[len(mark) :], marked, name)
    if declared:
        encoding = _declaration(data, name) or encoding
    return _decode(data, encoding, name)


def _declaration(data: bytes, name: str) -> str | None:
    """Return the encoding that the beginning of an XML or HTML file declares, or None."""
    found = DECLARATION.search(data, 0, DECLARATION_WITHIN)
    if found is None:
        return None
    label = (found[1] or found[2]).decode("ascii", "replace")
    try:
        encoding = codecs.lookup(label).name
    except LookupError:
        encoding = ""
    if encoding == "utf-16":  # without a byte order mark, and the declaration itself could be read: it is wrong
        return "utf-8"
    if encoding not in ENCODINGS:
        raise DocumentError(f"{name} declares the encoding {label!r}, which is not supported: save it as UTF-8")
    return WIDER.get(encoding, encoding)


def _decode(data: bytes, encoding: str, name: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentError(f"{name} is not valid {encoding.upper()} at byte {error.start}: save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
