"""Sentences in ten languages, and texts cut into segments: at good places, of good lengths, with nothing lost."""

import re

import pytest
from hypothesis import given, settings, strategies as st

from mlx_qwen3_tts.longform.cut import End, cut
from mlx_qwen3_tts.longform.lengths import expected_seconds, letters_in, letters_of
from mlx_qwen3_tts.longform.sentences import clause_ends, ends_sentence, split_sentences
from tests.support.sentence_cases import CASES, sentences_of, text_of

ALL_CASES = [(language, case) for language, cases in CASES.items() for case in cases]
# Text of the characters on which the rules turn, so that few examples meet many of them.
TEXTS = st.lists(
    st.sampled_from(
        [
            *(
                "Mr.",
                "word",
                "Word",
                "a",
                "I",
                "U.S.",
                "3.14",
                "12",
                "5.",
                "z. B.",
                "т. е.",
                "Слово",
                "https://a.b/c.d?e",
            ),
            *("。", "！", "」", "「", "他", "走", "かな", "漢字", "한국", "e\u0301", "👩\u200d🚀", "x" * 70, "。" * 50),
            *(
                "?",
                "!",
                "...",
                "…",
                "“",
                "”",
                '"',
                "»",
                "«",
                "(",
                ")",
                ",",
                ";",
                ":",
                "—",
                "-",
                " ",
                " ",
                "\n",
                "\u00a0",
            ),
        ]
    ),
    max_size=120,
).map("".join)


def sentence(letters: int) -> str:
    """A sentence of so many letters, without a clause."""
    words = ("word " * letters)[: letters - 1].rstrip()
    return f"W{words[1:]}".ljust(letters - 1, "x") + "."


def shape(text: str, shortest=300, longest=500) -> list[tuple[int, str]]:
    return [(len(piece.text), piece.end.name) for piece in cut(text, shortest, longest)]


@pytest.mark.parametrize(("language", "case"), ALL_CASES)
def test_sentences(language, case):
    assert [found.strip() for found in split_sentences(text_of(case))] == sentences_of(case)


def test_every_language_has_cases_enough():
    assert len(CASES) == 10
    assert min(len(cases) for cases in CASES.values()) >= 8


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_sentences_are_the_text(text):
    sentences = split_sentences(text)
    assert "".join(sentences) == text
    assert all(sentences)
    assert all(0 < end < len(text) for end in clause_ends(text))


@given(TEXTS, st.integers(1, 60), st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_pieces_are_the_text_and_none_is_too_long(text, shortest, more):
    longest = max(40, shortest + more)
    pieces = cut(text, shortest, longest)
    assert "".join("".join(piece.text.split()) for piece in pieces) == "".join(text.split())
    assert all(letters_in(piece.text) <= longest for piece in pieces)
    assert all(piece.text == piece.text.strip() != "" for piece in pieces)


def test_a_text_that_fits_is_one_piece():
    assert shape(f"{sentence(240)} {sentence(259)}") == [(500, "PARAGRAPH")]
    assert shape("Yes.") == [(4, "PARAGRAPH")]
    assert shape("") == []


def test_sentences_fill_pieces_evenly():
    assert shape(" ".join([sentence(99)] * 6)) == [(299, "SENTENCE"), (299, "PARAGRAPH")]
    assert shape(" ".join([sentence(80)] * 10)) == [(404, "SENTENCE"), (404, "PARAGRAPH")]
    lengths = [length for length, _ in shape(" ".join([sentence(80)] * 60))]
    assert min(lengths) >= 300
    assert max(lengths) <= 500


def test_the_last_sentence_is_not_an_orphan():
    """It is balanced with the sentence before it, at a sentence's end or, if there is none, at a clause's."""
    assert shape(" ".join([sentence(120)] * 4 + [sentence(30)])) == [(241, "SENTENCE"), (272, "PARAGRAPH")]
    clauses = f"{sentence(240)[:-1]}, {sentence(250)}"
    (first, end), (second, _) = shape(f"{clauses} Yes, he does.")
    assert (first, end) == (240, "CLAUSE")
    assert second > 250


def test_no_piece_is_mere_punctuation():
    for text in (f"{sentence(490)} — — — — — — — —", f"{'— ' * 200}{sentence(490)}"):
        pieces = cut(text, 300, 500)
        assert len(pieces) >= 2
        assert all("ord" in piece.text for piece in pieces)


def test_a_clause_is_kept_if_the_sentences_are_long_enough():
    text = f"{sentence(200)} {sentence(230)[:-1]}, {sentence(240)}"
    assert shape(text) == [(200, "SENTENCE"), (471, "PARAGRAPH")]


def test_a_long_sentence_is_cut_at_clauses_then_words_then_anywhere():
    assert shape("; ".join([sentence(130)[:-1]] * 6) + ".")[0][1] == "CLAUSE"
    assert [end for _, end in shape(sentence(1200))] == ["WORD", "WORD", "PARAGRAPH"]
    assert [end for _, end in shape("x" * 1200)] == ["CHARACTER", "CHARACTER", "PARAGRAPH"]


@pytest.mark.parametrize(
    "clause", ["他来了，", "她走了、", "彼は、", "and so, ", "und doch; ", "но — ", "(so it was) ", "он: ", "then… "]
)
def test_clauses(clause):
    text = clause * 3
    assert clause_ends(text)[:2] == [len(clause), 2 * len(clause)]


def test_numbers_are_not_clauses():
    assert clause_ends("1,000 and 3:17 and 5-6 and well-known") == []


def test_a_character_of_chinese_takes_the_time_of_several_letters():
    """A Chinese segment has fewer characters than an English one, and takes as long."""
    english = cut(sentence(99) * 20, 300, 500)
    chinese = cut("他在这里住了很久，" * 120 + "。", 300, 500)
    assert max(len(piece.text) for piece in chinese) < 180
    for piece in (*english[:-1], *chinese[:-1]):
        assert 15 < expected_seconds(piece.text) < 35


def test_a_piece_does_not_begin_with_a_mark_that_belongs_to_the_one_before():
    for text in ("ちょっと" * 200, "字。」" * 200, "e\u0301" * 900, "👩\u200d🚀" * 500, "ラーメン" * 200):
        for piece in cut(text, 300, 500):
            assert not re.match("[ょっゃー。」\u0301\u200d]", piece.text)


def test_a_japanese_phrase_is_not_cut_in_the_middle():
    pieces = cut("私達は昔話を何度も聞きながら山道を歩いて東京へ" * 30, 300, 500)
    assert {piece.end for piece in pieces[:-1]} == {End.WORD}
    assert all(piece.text[0] in "私昔何聞山歩東" for piece in pieces)


def test_line_ends_separate_paragraphs():
    assert shape(f"{sentence(300)}\n{sentence(300)}") == [(300, "PARAGRAPH"), (300, "PARAGRAPH")]


def test_expected_seconds():
    """150 English words, or 250 Chinese characters, a minute."""
    assert expected_seconds("five words of six letters " * 30) == pytest.approx(52, abs=3)
    assert expected_seconds("字" * 250) == pytest.approx(58.5, abs=2)
    assert expected_seconds("1984") > expected_seconds("abcd")


@pytest.mark.parametrize("sentences", [['他说："好。"她走了。'], ["他走了。", '"好。"'], ["他走了。", "“好。”"]])
def test_straight_quotes_close_what_they_have_opened(sentences):
    assert split_sentences("".join(sentences)) == sentences


@pytest.mark.parametrize(
    ("characters", "letters"),
    [
        ("aé. яａ", 1.0), ("5५５", 4.0), ("字㐀豈𠀀", 3.5), ("かカｶㄅー", 2.2), ("한", 2.7), ("ᄒ", 1.3),
        ("。、，：", 3.0),
    ],
)  # fmt: skip
def test_letters_of_each_script(characters, letters):
    """A book that is half made relies on them: they decide where a text is cut."""
    assert [letters_of(character) for character in characters] == [letters] * len(characters)


@pytest.mark.parametrize(
    ("text", "ends"), [("So.", True), ("So?” ", True), ("好。」", True), ("So,", False), ("so", False)]
)
def test_ends_sentence(text, ends):
    assert ends_sentence(text) is ends


@pytest.mark.parametrize(("letters", "place"), [(130, (240, "CLAUSE")), (140, (491, "SENTENCE"))])
def test_how_short_a_last_sentence_may_be(letters, place):
    """With fewer letters it takes a clause from the one before. A book that is half made relies on it."""
    assert shape(f"{sentence(240)[:-1]}, {sentence(250)} {sentence(letters)}")[0] == place
