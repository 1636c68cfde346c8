"""Links between the files of a book: to a file and a place in it.

"../text/one.xhtml#note3" in "OEBPS/nav/nav.xhtml" ─ "OEBPS/text/one.xhtml", "note3"
"""

import posixpath
from urllib.parse import unquote, urlsplit


def resolve(base: str, href: str) -> tuple[str, str]:
    """Return the name of the file that a link in the file `base` leads to, and the fragment in it.

    The name is "" if the link leads out of the archive.
    """
    try:
        parts = urlsplit(href.strip())
    except ValueError:
        return "", ""
    path = unquote(parts.path)
    if parts.scheme or parts.netloc or path.startswith("/"):
        return "", ""
    fragment = unquote(parts.fragment)
    if not path:
        return base, fragment
    name = posixpath.normpath(posixpath.join(posixpath.dirname(base), path))
    return ("" if name.startswith("..") else name), fragment
