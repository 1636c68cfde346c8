"""What an audio file of a book says about itself: title, author, language, cover and chapters.

Metadata, ChapterMark ─┬─ plain_tags        m4b, m4a, mp3, wav: FFmpeg translates them to atoms, ID3 or INFO
                       ├─ vorbis_comments   flac, opus: chapters, too
                       └─ open_cover        a stream for the muxer; opus: picture_block, a comment
"""

import base64
import io
import struct
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..audio.pyav import load_pyav
from ..errors import BookError

GENRE = "Audiobook"
_FRONT_COVER = 3  # RFC 9639, 8.8
# Containers name languages by ISO 639-2 (terminological codes).
_LANGUAGES = {
    "de": "deu", "en": "eng", "es": "spa", "fr": "fra", "it": "ita", "ja": "jpn", "ko": "kor", "pt": "por", "ru": "rus",
    "zh": "zho",
}  # fmt: skip


@dataclass(frozen=True)
class Metadata:
    """What is known of a book; "" or None if nothing.

    language: BCP 47, as in "de" or "zh-TW". cover: the bytes of a JPEG or PNG file.
    """

    title: str = ""
    author: str = ""
    language: str = ""
    cover: bytes | None = None


@dataclass(frozen=True)
class ChapterMark:
    """A chapter of an audio file, from the sample `start` up to `end`."""

    title: str
    start: int
    end: int


def clean(text: str) -> str:
    """Return `text` on one line, without characters that a tag cannot hold."""
    kept = [" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text]
    return " ".join("".join(kept).split())


def language_code(language: str) -> str:
    """Return the ISO 639-2 code of a BCP 47 tag, "" if it is not known."""
    primary = language.replace("_", "-").split("-")[0].lower()
    if len(primary) == 3 and primary.isascii() and primary.isalpha():
        return primary
    return _LANGUAGES.get(primary, "")


def plain_tags(metadata: Metadata, chapter_title: str | None = None, track: str = "") -> dict[str, str]:
    """Return the tags under FFmpeg's names.

    chapter_title: of the file, if the book has a file for each chapter; else the file has the book's title.
    track: "2/12" for the second of them.
    """
    tags = {
        "title": metadata.title if chapter_title is None else chapter_title,
        "artist": metadata.author,
        "album_artist": metadata.author,
        "album": metadata.title,
        "genre": GENRE,
        "language": language_code(metadata.language),
        "track": track,
    }
    return {name: clean(value) for name, value in tags.items() if clean(value)}


def vorbis_comments(tags: dict[str, str], chapters: list[ChapterMark], sample_rate: int) -> dict[str, str]:
    """Return tags for FLAC and Opus, with chapters to the millisecond as players read them (CHAPTER000, ...)."""
    comments = dict(tags)
    for index, chapter in enumerate(chapters):
        milliseconds = round(1000 * chapter.start / sample_rate)
        seconds, milliseconds = divmod(milliseconds, 1000)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        comments[f"CHAPTER{index:03}"] = f"{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}"
        comments[f"CHAPTER{index:03}NAME"] = chapter.title
    return comments


def open_cover(cover: bytes) -> Any:
    """Open a JPEG or PNG file as a PyAV container with one video stream. Raises BookError."""
    av = load_pyav("a cover")
    kind = image_type(cover)
    if kind:
        with suppress(av.FFmpegError, IndexError, StopIteration):
            container = av.open(io.BytesIO(cover), format=f"{kind}_pipe")
            next(container.decode(video=0))
            container.seek(0)
            return container
    raise BookError("the cover is not a JPEG or PNG image that can be read: replace it, or leave it out")


def image_type(cover: bytes) -> str:
    """Return "jpeg" or "png" by the first bytes of a file, "" for anything else."""
    if cover.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if cover.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return ""


def picture_block(cover: bytes) -> str:
    """Return a cover as the comment METADATA_BLOCK_PICTURE of an Ogg file. Raises BookError. Source: RFC 9639, 8.8."""
    with open_cover(cover) as container:
        stream = container.streams.video[0]
        width = stream.width
        height = stream.height
    mime = f"image/{image_type(cover)}".encode()
    description = b""
    block = struct.pack(">II", _FRONT_COVER, len(mime)) + mime + struct.pack(">I", len(description)) + description
    block += struct.pack(">IIIII", width, height, 24, 0, len(cover)) + cover  # 24 bits a pixel, no palette
    return base64.b64encode(block).decode()
