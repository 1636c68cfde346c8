"""Markdown to HTML, and from there on as HTML.

---                  front matter: title, author, language
title: A Talk        │
---                  │
# A Talk [^1] ...    ┴─ markdown-it ─ HTML ─ html ─ Content
"""

from dataclasses import replace
from typing import Any

from ..errors import DocumentError
from .content import Content
from .html import read_html
from .lines import one_line

MAX_FRONT_MATTER = 64 << 10  # characters


def read_markdown(text: str, name: str, fallback: str, chapter_pattern: str | None) -> Content:
    """Return the content of a Markdown file; see document.read_document. Raises DocumentError.

    name: of the file, for messages. fallback: the title if the file has none.
    """
    markup, front_matter = _to_html(text)
    values = _values(front_matter, name)
    title = _value(values, "title")
    content = read_html(markup, name, title or fallback, chapter_pattern)
    return replace(
        content,
        title=title or content.title,
        author=_value(values, "author", "authors") or content.author,
        language=_value(values, "language", "lang") or content.language,
    )


def _to_html(text: str) -> tuple[str, str]:
    """Return the text as HTML, and its front matter."""
    try:
        from markdown_it import MarkdownIt
        from mdit_py_plugins.footnote import footnote_plugin
        from mdit_py_plugins.front_matter import front_matter_plugin
    except ImportError:
        raise DocumentError(
            "Markdown needs markdown-it-py: install this package with its extra [book], "
            "or `pip install markdown-it-py mdit-py-plugins`"
        ) from None
    # A line end becomes <br>, so that a dialogue can have a line for each speaker.
    parser = MarkdownIt("commonmark", {"breaks": True, "html": True}).enable(["table", "strikethrough"])
    parser.use(front_matter_plugin).use(footnote_plugin)
    tokens = parser.parse(text)
    front_matter = next((token.content for token in tokens if token.type == "front_matter"), "")
    return parser.renderer.render(tokens, parser.options, {}), front_matter


def _values(front_matter: str, name: str) -> dict[str, Any]:
    """Return the values in the front matter. Raises DocumentError."""
    import yaml

    if len(front_matter) > MAX_FRONT_MATTER:
        raise DocumentError(f"{name} has more than {MAX_FRONT_MATTER:,} characters of front matter")
    try:
        values = yaml.safe_load(front_matter)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DocumentError(f"{name} has front matter that is not YAML ({error})") from None
    return values if isinstance(values, dict) else {}


def _value(values: dict[str, Any], *names: str) -> str:
    """Return the value of the first name that is there, several joined by commas, or ""."""
    value = next((values[name] for name in names if values.get(name)), "")
    parts = value if isinstance(value, list) else [value]
    return ", ".join(one_line(str(part)) for part in parts if isinstance(part, (str, int, float)))
