"""How long a text takes to speak, before it is spoken.

text ─ letters (one of Latin script is 1, others count by the time they take) ─ seconds

The rates are those of calm reading: 15 letters of English with their spaces a second (150 words a minute), 250 Chinese
characters, 300 Japanese ones (kana and kanji mixed) and 330 Korean syllables a minute. Speakers differ by a quarter and
more, so these are good for sorting, for progress, and for telling a runaway from speech, not for anything exact.
"""

LETTERS_PER_SECOND = 15
ONSET = 0.2  # seconds, before and after any speech

# Letters that a character of a script counts as: its first and last code point, and the letters.
SCRIPTS = (
    ("\u1100", "\u11ff", 1.3),  # Hangul, in parts
    ("\u3000", "\u303f", 3.0),  # punctuation, which is a pause
    ("\u3040", "\u30ff", 2.2),  # kana
    ("\u3100", "\u312f", 2.2),  # bopomofo
    ("\u3400", "\u4dbf", 3.5),  # Han
    ("\u4e00", "\u9fff", 3.5),
    ("\uac00", "\ud7a3", 2.7),  # Hangul
    ("\uf900", "\ufaff", 3.5),
    ("\uff00", "\uff0f", 3.0),
    ("\uff1a", "\uff20", 3.0),
    ("\uff66", "\uff9f", 2.2),  # kana of half width
    ("\U00020000", "\U000323af", 3.5),
)
DIGIT = 4.0  # "1984" is read with some twenty letters
# Letters of scripts without spaces between words, or, in Korean, with particles at the word's end; for `[...]` in a
# regular expression.
UNSPACED = "\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
UNSPACED += "\uff66-\uff9f\U00020000-\U000323af"


def letters_in(text: str) -> float:
    """Return the length of a text in letters of Latin script that take the same time."""
    return sum(letters_of(character) for character in text)


def letters_of(character: str) -> float:
    """Return how many letters of Latin script a character counts as."""
    if character >= "\u1100":
        for first, last, letters in SCRIPTS:
            if first <= character <= last:
                return letters
    if character.isdigit():
        return DIGIT
    return 1.0


def expected_seconds(text: str) -> float:
    """Return the seconds that a text is expected to take when it is read calmly."""
    return ONSET + letters_in(text) / LETTERS_PER_SECOND
