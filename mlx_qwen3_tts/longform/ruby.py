"""Ruby text: small letters beside a word that say how it is read.

<ruby>漢字<rt>かんじ</rt></ruby>   ─ かんじ: a reading in kana replaces the word, since it is what is spoken
<ruby>汉字<rt>hànzì</rt></ruby>    ─ 汉字: any other is left out, since the model reads Chinese, and not pinyin
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import Tag

KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa\u30fc\s]+")  # without the dots that only stress a word


class RubyText:
    """Collects the words and readings of a <ruby> element."""

    def __init__(self) -> None:
        self._read = ""
        self._word = ""
        self._reading: str | None = None

    def enter(self, tag: "Tag") -> bool:
        """Begin an element in it; return whether to go into it."""
        if tag.name == "rt":
            self._reading = ""
        return tag.name not in ("rp", "rtc")

    def leave(self, tag: "Tag") -> None:
        """End an element in it."""
        if tag.name == "rt" and self._reading is not None:
            in_kana = self._reading.strip() and KANA.fullmatch(self._reading)
            self._read += self._reading.strip() if in_kana else self._word
            self._word = ""
            self._reading = None

    def text(self, text: str) -> None:
        """Take a piece of a word or of a reading."""
        if self._reading is None:
            self._word += text
        else:
            self._reading += text

    def spoken(self) -> str:
        """Return the text as it is spoken."""
        return self._read + self._word
