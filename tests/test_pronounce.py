"""Pronunciation lists: what they match, and what is wrong with them."""

import pytest

from mlx_qwen3_tts import Qwen3TTSError
from mlx_qwen3_tts.errors import DocumentError
from mlx_qwen3_tts.longform.pronounce import Pronouncer, Pronunciation, read_pronunciations


def spoken(text: str, *words: tuple, any_case: bool = False) -> str:
    return Pronouncer([Pronunciation(*word) for word in words], any_case).apply(text)


@pytest.mark.parametrize(
    ("text", "word", "then"),
    [
        ("Nguyen came.", ("Nguyen", "Win"), "Win came."),
        ("Nguyens, nguyen, xNguyen, Nguyen2, Nguyen_", ("Nguyen", "Win"), "Nguyens, nguyen, xNguyen, Nguyen2, Nguyen_"),
        ("(Nguyen)—Nguyen's “Nguyen”", ("Nguyen", "Win"), "(Win)—Win's “Win”"),
        ("Naïveté naïv", ("naïv", "na-if"), "Naïveté na-if"),
        ("Cafe\u0301 Cafe", ("Cafe", "Kaff"), "Café Kaff"),  # the accent belongs to the word, composed or not
        ("Cafe\u0301 Café", ("Café", "Kaffay"), "Kaffay Kaffay"),
        ("Чехов и Чехова", ("Чехов", "Чехаф"), "Чехаф и Чехова"),
        ("他在重庆。", ("重庆", "崇庆"), "他在崇庆。"),
        ("我爱NASA的火箭", ("NASA", "奈萨"), "我爱奈萨的火箭"),
        ("서울은 크다", ("서울", "서을"), "서을은 크다"),
        ("New  York, NewYork", ("New York", "Noo Yawk"), "Noo Yawk, NewYork"),
        ("C++ and C+++", ("C++", "see plus plus"), "see plus plus and see plus plus+"),
        ("a.b axb", ("a.b", "dot"), "dot axb"),
        ("\\1 x", ("x", r"\1 \g<0>"), r"\1 \1 \g<0>"),  # a spoken form is no template
        ("nguyen NGUYEN", ("Nguyen", "Win", True), "Win Win"),
        ("STRASSE", ("Straße", "x", True), "STRASSE"),
    ],
)  # fmt: skip
def test_words(text, word, then):
    assert spoken(text, word) == then


def test_case_counts_unless_asked():
    words = [("Polish", "Poh-lish"), ("lead", "led", True), ("Read", "red", False)]
    assert spoken("polish Polish Lead read", *words) == "polish Poh-lish led read"
    assert spoken("polish Polish Lead read Read", *words, any_case=True) == "Poh-lish Poh-lish led read red"


def test_the_longest_word_counts_and_is_not_looked_up_again():
    words = [("York", "A"), ("New York", "York"), ("A", "B")]
    assert spoken("New York, York, A", *words) == "York, A, B"
    assert spoken("New York, New", ("New", "x"), ("New York", "y")) == "y, x"


def test_an_exact_word_goes_before_one_in_any_case():
    assert spoken("us US Us", ("us", "uss", True), ("US", "you ess")) == "uss you ess uss"


def test_no_list_changes_nothing():
    assert spoken("Cafe\u0301") == "Cafe\u0301"


@pytest.mark.parametrize(
    "words", [[("", "x")], [("x", " ")], [("x", "y"), ("x", "z")], [("x", "y", True), ("X", "z", True)]]
)
def test_lists_that_contradict_themselves(words):
    with pytest.raises(DocumentError, match="pronunciation"):
        spoken("x", *words)


def test_a_file(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_bytes(
        "\ufeff# names\r\nNguyen\tWin\r\n\r\n  # more\r\nNew York\tNoo Yawk\tany\r\nUS\tyou ess\texact\r\n".encode()
    )
    assert read_pronunciations(path) == [
        Pronunciation("Nguyen", "Win"),
        Pronunciation("New York", "Noo Yawk", True),
        Pronunciation("US", "you ess", False),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# x\nNguyen Win\n", "words.tsv, line 2: write a word, a tab and its spoken form, not 'Nguyen Win'"),
        (b"Nguyen\t\n", "words.tsv, line 1: write a word, a tab"),
        (b"\tWin\n", "words.tsv, line 1: write a word, a tab"),
        (b"a\tb\tany\td\n", "words.tsv, line 1: write a word, a tab"),
        (b"a\tb\n\na\tc\n", "words.tsv, line 3: 'a' is in line 1 already; leave one out"),
        (b"a\tb\tloud\n", "words.tsv, line 1: the third column is 'any' or 'exact' (case), not 'loud'"),
        (b"a\t\xff\n", "words.tsv is not UTF-8"),
        (None, "cannot read the pronunciation list .*words.tsv: No such file"),
    ],
)
def test_wrong_files(tmp_path, content, message):
    path = tmp_path / "words.tsv"
    if content is not None:
        path.write_bytes(content)
    pattern = message if ".*" in message else message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(Qwen3TTSError, match=pattern) as caught:
        read_pronunciations(path)
    assert "\n" not in str(caught.value)


def test_case_counts_by_default():
    assert Pronouncer([Pronunciation("Polish", "Poh-lish")]).apply("polish Polish") == "polish Poh-lish"
