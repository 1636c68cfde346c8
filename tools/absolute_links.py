"""Make the relative links of a Markdown file absolute, for where it is read without the repository.

usage: python tools/absolute_links.py FILE URL

URL is where the repository's files are, such as https://github.com/OWNER/NAME/blob/v1.0.0. A package index shows
README.md alone, in which `docs/server.md` would lead nowhere.
"""

import re
import sys
from pathlib import Path

# The target in `[text](target)`, unless it is an address or a heading of the same file.
RELATIVE = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")


def absolute_links(text: str, url: str) -> str:
    """Return Markdown with each relative link appended to a URL."""
    return RELATIVE.sub(lambda match: f"{url.rstrip('/')}/{match[1]}", text)


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(absolute_links(path.read_text(encoding="utf-8"), sys.argv[2]), encoding="utf-8")


if __name__ == "__main__":
    main()
