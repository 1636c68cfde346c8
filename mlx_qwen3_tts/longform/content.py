"""What a book holds, whichever kind of file it comes from.

Content ─┬─ title, author, language, cover
         ├─ Chapter ── Block   heading | paragraph | break
         └─ Dropped            what is not read aloud: footnotes, code, images, ...
"""

from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["heading", "paragraph", "break"]


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, or a scene break (which has no text).

    text: one line whose white space is collapsed. level: of a heading, from 1 (the top) to 6; else 0.
    """

    kind: BlockKind
    text: str = ""
    level: int = 0


@dataclass(frozen=True)
class Chapter:
    """A chapter; if it has a heading of its own, that is the first block."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Dropped:
    """Something that stands in the book and is not read aloud.

    kind: "footnote", "footnote mark", "page number", "code", "image", "table", "navigation", ... text: its beginning,
    or the description of an image. chapter: the title of the chapter that it stood in.
    """

    kind: str
    text: str
    chapter: str


@dataclass(frozen=True)
class Content:
    """A book as a reader returns it.

    title: the file's name if it has no other. author: "" if the file names none. language: the tag in the file, such as
    "en-GB", or "". cover: the bytes of a JPEG or PNG file.
    """

    title: str
    author: str
    language: str
    cover: bytes | None
    chapters: tuple[Chapter, ...]
    dropped: tuple[Dropped, ...]
