"""Links between the files of a book: to a file and a place in it.

"../text/one.xhtml#note3" in "OEBPS/nav/nav.xhtml" ─ resolve ─ "OEBPS/text/one.xhtml", "note3"
"oebps\\Text\\One%2Exhtml" ─ loose ─ "oebps/text/one.xhtml", under which Archive.find compares names
"""

import posixpath
import unicodedata
from urllib.parse import unquote, urlsplit


def resolve(base: str, href: str) -> tuple[str, str]:
    """Return the name of the file that a link in the file `base` leads to, and the fragment in it.

    As in a browser, a backslash is a slash, "/" begins at the root of the archive, and ".." leads no higher. The name
    is "" if the link leads out of the archive.
    """
    try:
        parts = urlsplit(href.strip().replace("\\", "/"))
    except ValueError:
        return "", ""
    if parts.scheme or parts.netloc:
        return "", ""
    path = unquote(parts.path)
    fragment = unquote(parts.fragment)
    if not path:
        return base, fragment
    return _from_root(posixpath.join(posixpath.dirname(base), path.replace("\\", "/"))), fragment


def loose(name: str) -> str:
    """Return a name without what sloppy books confuse: case, slashes, percent-encoding, forms of accented letters."""
    return unicodedata.normalize("NFC", _from_root(unquote(name))).casefold()


def _from_root(path: str) -> str:
    """Return a path without "." and "..", which lead to the root at most."""
    return posixpath.normpath("/" + path.replace("\\", "/")).lstrip("/")
