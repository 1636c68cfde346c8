"""A document becomes segments: script marks, pauses, voices, seeds, and the options of a book."""

from dataclasses import asdict

import pytest
from hypothesis import given, settings, strategies as st

from mlx_qwen3_tts import RequestError
from mlx_qwen3_tts.errors import DocumentError
from mlx_qwen3_tts.longform.document import Block, Chapter, Document, Dropped
from mlx_qwen3_tts.longform.options import BookOptions
from mlx_qwen3_tts.longform.plan import Note, Plan, plan
from mlx_qwen3_tts.longform.pronounce import Pronunciation
from mlx_qwen3_tts.request import MAX_SEED

CAST = {"anna": "Serena", "Ben": "ryan"}
LONG = "The clock in the hall struck twelve. "
PAUSES = BookOptions(
    chapter_pause=7, break_pause=6, heading_pause=5, paragraph_pause=4, sentence_pause=3, clause_pause=2,
    min_chars=40, max_chars=80,
)  # fmt: skip


def document(*chapters: list[str | Block], dropped=()) -> Document:
    """A document of paragraphs; "# " begins a heading, "***" is a scene break."""
    made = []
    for index, blocks in enumerate(chapters):
        made.append(Chapter(f"Chapter {index + 1}", tuple(block(text) for text in blocks)))
    return Document("A book", "Somebody", "en", None, tuple(made), tuple(dropped))


def block(text: str) -> Block:
    if text == "***":
        return Block("break")
    return Block("heading", text[2:], 1) if text.startswith("# ") else Block("paragraph", text)


def planned(*paragraphs: str, **options) -> Plan:
    return plan(document(list(paragraphs)), BookOptions(**options))


def spoken(made: Plan) -> list[tuple[str, str | None]]:
    return [(segment.text, segment.voice) for segment in made.segments]


def pauses(made: Plan) -> list[float]:
    return [segment.pause_after for segment in made.segments]


def test_places_kinds_and_sentences():
    made = plan(document(["# One", LONG * 2], ["# Two", LONG]), BookOptions())
    assert [(s.place, s.kind) for s in made.segments] == [
        ("1:1", "heading"), ("1:2", "paragraph"), ("2:1", "heading"), ("2:2", "paragraph"),
    ]  # fmt: skip
    assert made.segments[1].sentences == (LONG.strip(), LONG.strip())
    assert made.chapters == (1, 2)
    assert made.find(" 2:2 ") is made.segments[3]
    assert made.seconds == pytest.approx(sum(s.seconds + s.pause_after for s in made.segments))


@pytest.mark.parametrize("place", ["3", "3:1", "1:0", "1:3", "1:2:3", "a:b", "", "-1:2", "0:1"])
def test_places_that_do_not_exist(place):
    made = plan(document(["# One", LONG]), BookOptions())
    with pytest.raises(DocumentError):
        made.find(place)


def test_pauses_follow_from_what_ends():
    text = "This sentence is of some sixty letters, so that it is alone. "
    long = "This is a sentence without an end, which is far too long for a segment of its own and is cut at a comma. "
    made = plan(document(["# One", text * 2, "***", long, LONG], [LONG, "***"], [LONG]), PAUSES)
    assert pauses(made) == [5, 3, 6, 2, 4, 7, 7, 0]
    assert [segment.pause_before for segment in made.segments] == [0] * 8


def test_the_scripts_pauses_take_the_place_of_the_books():
    made = planned(
        "[pause 2] " + LONG, "[pause 0.5]", LONG + "[pause 1][pause 0.25]", "***", f"It [PAUSE 0] {LONG}[pause 9]"
    )
    assert made.segments[0].pause_before == 2
    assert pauses(made) == [0.5, 1.25, 0, 9]
    assert [segment.shown for segment in made.segments] == [LONG.strip(), LONG.strip(), "It", LONG.strip()]
    assert made.notes == ()


def test_a_chapters_last_pause_may_be_the_scripts():
    made = plan(document([LONG + "[pause 0.5]"], [LONG]), BookOptions())
    assert pauses(made) == [0.5, 0]


def test_voices_span_paragraphs_and_nest():
    made = planned(
        "Before. [voice Serena]In the hall the clock", "struck twelve. [ voice  Uncle Fu ]It stopped,[ / voice ] she",
        "said at once to all.[/voice] After that, silence.",
    )  # fmt: skip
    assert spoken(made) == [
        ("Before.", None), ("In the hall the clock", "Serena"), ("struck twelve.", "Serena"),
        ("It stopped,", "Uncle Fu"), ("she", "Serena"), ("said at once to all.", "Serena"),
        ("After that, silence.", None),
    ]  # fmt: skip
    assert made.notes == ()


def test_quotes_stay_with_what_they_quote():
    made = planned('He said: "[voice Serena]It is noon.[/voice]" Then he left. [voice X]"So?"[/voice]')
    assert spoken(made) == [("He said:", None), ('"It is noon."', "Serena"), ("Then he left.", None), ('"So?"', "X")]


@pytest.mark.parametrize(
    "text", ["It is noon, he said (", "… [pause 1]“It is noon, he said.” [pause 2]— …", "It — [/voice] «"]
)
def test_punctuation_without_a_word_is_shown(text):
    shown = "".join(segment.shown for segment in planned(text).segments)
    for mark in ("[pause 1]", "[pause 2]", "[/voice]"):
        text = text.replace(mark, "")
    assert "".join(shown.split()) == "".join(text.split())


def test_a_voice_ends_with_its_chapter_and_is_reported():
    made = plan(document(["[voice Serena]" + LONG], [LONG + "[/voice]"]), BookOptions())
    assert [segment.voice for segment in made.segments] == ["Serena", None]
    assert tuple(map(str, made.notes)) == (
        "chapter 1: [voice Serena] has no [/voice]; it ends with the chapter",
        "chapter 2: [/voice] has no [voice NAME] before it in its chapter",
    )


@pytest.mark.parametrize(
    "mark", ["[sic]", "[foo bar]", "[pause]", "[pause x]", "[pause -1]", "[pause 61]", "[voice]", "[1]"]
)
def test_unknown_marks_are_text_and_reported(mark):
    made = planned(f"The clock {mark} struck {mark} twelve.")
    assert made.segments[0].text == f"The clock {mark} struck {mark} twelve."
    assert made.notes == (Note("mark", f"chapter 1: {mark} is read as text: it is not a script mark (2 times)"),)


def test_dialogues():
    made = planned(
        "Anna: Good morning. BEN: It is noon. anna: So it is.", "“Anna: no speaker,” he said to Ben: Anna.",
        "[pause 1] Ben： 你好。Anna：[voice Eric]It is[/voice] late.", "Carl: I am not in the cast of it.",
        "Anna:", "# Anna: a heading", cast=CAST,
    )  # fmt: skip
    assert spoken(made) == [
        ("Good morning.", "Serena"), ("It is noon.", "ryan"), ("So it is.", "Serena"),
        ("“Anna: no speaker,” he said to Ben: Anna.", None), ("你好。", "ryan"), ("It is", "Eric"), ("late.", "Serena"),
        ("Carl: I am not in the cast of it.", None), ("Anna: a heading", None),
    ]  # fmt: skip
    assert pauses(made)[:4] == [0.6, 0.6, 0.6, 1]


def test_names_of_several_words_and_in_any_case():
    made = planned("UNCLE FU: Good morning. İda: It is noon. Uncle Fu Jr.: So late.",
                   cast={"Uncle  Fu": "a", "ida": "b", "Uncle Fu Jr.": "c"})  # fmt: skip
    assert [segment.voice for segment in made.segments] == ["a", "b", "c"]


def test_a_name_of_the_cast_inside_a_voice():
    made = planned(
        "[voice Eric]" + LONG,
        "Anna: Good morning to you.",
        "So it went on.[/voice]",
        "[voice BEN]Yes.[/voice]",
        cast=CAST,
    )
    assert [segment.voice for segment in made.segments] == ["Eric", "Serena", "Eric", "ryan"]


def test_plain_reads_marks_as_text():
    text = "[pause 1] Anna: [voice X]It is noon.[/voice] [sic]"
    made = planned(text, plain=True)
    assert spoken(made) == [(text, None)]
    assert made.notes == ()


def test_short_paragraphs_are_read_together():
    made = planned("“Yes.”", "“No.”", LONG, "“Why?”", "***", "Oh.", "# Two", "So.", "[voice X]No.[/voice]")
    assert [segment.text for segment in made.segments] == [
        f"“Yes.”\n“No.”\n{LONG.strip()}\n“Why?”",
        "Oh.",
        "Two",
        "So.",
        "No.",
    ]
    assert made.segments[0].sentences == ("“Yes.”", "“No.”", LONG.strip(), "“Why?”")
    assert pauses(made) == [1.5, 0.6, 1.0, 0.6, 0]


def test_how_short_a_paragraph_is_that_is_read_with_the_next():
    assert len(planned("A" * 15, LONG).segments) == 1
    assert len(planned("A" * 16, LONG).segments) == 2


def test_a_short_last_paragraph_is_read_with_the_one_before():
    made = planned(LONG, f"Then {LONG}", "“Yes.”")
    assert [segment.text for segment in made.segments] == [LONG.strip(), f"Then {LONG.strip()}\n“Yes.”"]


def test_longer_paragraphs_are_segments_of_their_own():
    made = planned(*["It is noon, he said."] * 3)
    assert pauses(made) == [0.6, 0.6, 0]


def test_what_has_no_letter_is_a_scene_break():
    made = planned(LONG, "* * *", LONG, "—", "…")
    assert pauses(made) == [1.5, 0]


def test_pronunciations_are_spoken_and_not_shown():
    made = planned("Nguyen came at last.", pronounce=[Pronunciation("nguyen", "Win")], any_case=True)
    assert (made.segments[0].text, made.segments[0].shown) == ("Win came at last.", "Nguyen came at last.")
    assert made.segments[0].sentences == ("Nguyen came at last.",)


def test_a_pronunciation_list_is_read_from_its_file(tmp_path):
    (tmp_path / "words.tsv").write_text("Nguyen\tWin\n")
    assert planned("Nguyen came at last.", pronounce=tmp_path / "words.tsv").segments[0].text == "Win came at last."
    with pytest.raises(DocumentError, match="cannot read the pronunciation list"):
        planned(LONG, pronounce=str(tmp_path / "none.tsv"))


def seeds(made: Plan) -> dict[str, int]:
    return {f"{segment.text} {segment.voice}": segment.seed for segment in made.segments}


def test_an_edit_changes_no_other_seed():
    texts = [f"{LONG}It was day {day}." for day in range(6)]
    before = seeds(planned(*texts))
    assert len(set(before.values())) == 6
    after = seeds(planned("Something new, at the beginning.", *texts[:3], "A new line, in the middle.", *texts[4:]))
    assert {text: seed for text, seed in after.items() if text in before} == {
        text: seed for text, seed in before.items() if "day 3" not in text
    }


def test_seeds_depend_on_the_books_seed_the_voice_and_the_occurrence():
    first = planned(LONG, LONG, f"[voice X]{LONG}[/voice]").segments
    other = planned(LONG, LONG, f"[voice X]{LONG}[/voice]", seed=1).segments
    values = [segment.seed for segment in (*first, *other)]
    assert len(set(values)) == 6
    assert all(0 <= value <= MAX_SEED for value in values)
    assert max(values) > 2**40
    assert values[:3] == [segment.seed for segment in planned(LONG, LONG, f"[voice X]{LONG}[/voice]").segments]


def test_a_seed_does_not_depend_on_the_chapter():
    together = plan(document([LONG, "# Two", LONG, "It is noon, he said."]), BookOptions())
    apart = plan(document([LONG], ["# Two", LONG], ["It is noon, he said."]), BookOptions())
    assert [segment.seed for segment in apart.segments] == [segment.seed for segment in together.segments]


def test_a_cut_between_words_has_no_pause():
    made = planned("word " * 60, min_chars=40, max_chars=60)
    assert len(made.segments) > 3
    assert {segment.pause_after for segment in made.segments} == {0.0}


def test_a_seed_stays_what_it_is():
    """Books that are half made rely on it."""
    assert planned("It is noon, he said.").segments[0].seed == SEED


SEED = 8024522107874254503


def test_chosen_chapters_are_the_same_segments():
    book = document(
        ["# One", LONG], ["# Two", LONG], ["# Three", LONG + "[sic]"], dropped=[Dropped("footnote", "1", "Chapter 2")]
    )
    whole = plan(book, BookOptions())
    some = plan(book, BookOptions(), [2, 0, 2])
    assert some.chapters == (1, 3)
    assert [s.place for s in some.segments] == ["1:1", "1:2", "3:1", "3:2"]
    assert [s for s in whole.segments if s.chapter != 2] == list(some.segments)
    assert some.notes == (Note("mark", "chapter 3: [sic] is read as text: it is not a script mark"),)
    assert whole.notes[0] == Note("left out", "left out of 'Chapter 2': footnote: '1'")
    with pytest.raises(DocumentError, match="chapter 2 is not among those"):
        some.find("2:1")
    for index in (-1, 3):
        with pytest.raises(DocumentError, match="does not exist: the book has 3"):
            plan(book, BookOptions(), [index])


def test_what_is_left_out_is_reported_by_chapter_and_kind():
    dropped = [Dropped("code", f"x = {number}", "Chapter 1") for number in range(99)] + [
        Dropped("image", "", "Chapter 1")
    ]
    made = plan(document([LONG], dropped=dropped), BookOptions())
    assert made.notes[0].text.startswith("left out of 'Chapter 1': code (99 times): 'x = 0', 'x = 1', ")
    assert made.notes[0].text.endswith(" ...")
    assert len(made.notes[0].text) == len("left out of 'Chapter 1': code (99 times): ") + 200 + len(" ...")
    assert made.notes[1].text == "left out of 'Chapter 1': image"


@pytest.mark.parametrize("paragraphs", [[], ["***"], ["[pause 1]"], ["— …"]])
def test_nothing_to_read(paragraphs):
    with pytest.raises(DocumentError, match="there is nothing to read"):
        planned(*paragraphs)


PARTS = st.lists(
    st.sampled_from(
        ["Anna: ", "Ben:", "[pause 1]", "[voice X]", "[/voice]", "[sic]", "word", "Word.", "“", "”", "…", "No. 5", " ",
         " ", "他走了。", "—", "it is a longer part of a sentence, that goes on", "Dr.", "[", "]", ":"]
    ),
    min_size=1, max_size=30,
).map(lambda parts: " ".join("".join(parts).split()))  # fmt: skip


@given(st.lists(PARTS, min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost_or_doubled(texts):
    """All but the marks and the names is shown, in order."""
    texts = ["The beginning.", *texts]
    made = planned(*texts, cast=CAST, min_chars=20, max_chars=60)
    shown = "".join("".join(segment.shown.split()) for segment in made.segments)
    left = "".join("".join(texts).split())
    for mark in ("[pause1]", "[voiceX]", "[/voice]"):
        left = left.replace(mark, "")
    for name in ("Anna:", "Ben:"):
        left, shown = left.replace(name, ""), shown.replace(name, "")
    assert [c for c in shown if c.isalnum()] == [c for c in left if c.isalnum()]
    assert ["".join(segment.sentences).replace(" ", "") for segment in made.segments] == [
        "".join(segment.shown.split()) for segment in made.segments
    ]
    assert all(any(c.isalnum() for c in segment.text) for segment in made.segments)


@given(st.lists(PARTS.filter(lambda text: any(c.isalnum() for c in text)), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_plain_text_is_shown_as_it_is(texts):
    made = planned(*texts, plain=True, min_chars=20, max_chars=60)
    assert "".join("".join(s.shown.split()) for s in made.segments) == "".join("".join(texts).split())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("voice", 3, "voice must be"),
        ("language", 3, "language must be a string"),
        ("instruct", b"", "instruct must be a string"),
        ("sampling", None, "sampling must be"),
        ("seed", -1, "seed must be a whole number from 0"),
        ("seed", None, "seed must be a whole number"),
        ("plain", "yes", "plain must be True or False"),
        ("cast", {}, "cast must be a mapping"),
        ("cast", {"a": ""}, "cast must be a mapping"),
        ("cast", {"a:": "b"}, "cast must be a mapping"),
        ("cast", {"a": "b", "A": "c"}, "cast must be a mapping that names everybody once"),
        ("cast", "a=b", "cast must be a mapping"),
        ("cast", {"a": "\ud800"}, "cast"),
        ("pronounce", [("a", "b")], "pronounce must be a TSV file"),
        ("pronounce", 3, "pronounce must be a TSV file"),
        ("any_case", True, "any_case has no effect without pronounce"),
        ("max_chars", 39, "max_chars must be a whole number from 40 to 2000"),
        ("max_chars", 299, r"min_chars must be at most max_chars \(299\), not 300"),
        ("min_chars", 0, "min_chars must be a whole number"),
        *((f"{place}_pause", 61, f"{place}_pause must be a number from 0 to 60") for place in
          ("chapter", "break", "heading", "paragraph", "sentence", "clause")),
        ("paragraph_pause", float("nan"), "paragraph_pause must be a number"),
        ("speed", 0.79, "speed must be a number from 0.8 to 1.5"),
        ("loudness", 0, r"loudness must be a number from -40 to -8 \(LUFS\), or off"),
        ("attempts", 0, "attempts must be a whole number from 1"),
        ("batch_size", 17, "batch_size must be a whole number from 1 to 16"),
    ],
)  # fmt: skip
def test_wrong_options(name, value, message):
    with pytest.raises(RequestError, match=message) as caught:
        BookOptions(**{name: value})
    assert name in caught.value.arguments
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [
    {"max_chars": 2000}, {"max_chars": 40, "min_chars": 1}, {"max_chars": 300, "min_chars": 300}, {"speed": 0.8},
    {"speed": 1.5}, {"loudness": -40}, {"loudness": -8}, {"attempts": 1}, {"attempts": 100}, {"batch_size": 1},
    {"batch_size": 16}, {"chapter_pause": 60}, {"clause_pause": 0},
])  # fmt: skip
def test_bounds_are_allowed(values):
    assert asdict(BookOptions(**values)) == asdict(BookOptions()) | values


def test_cast_and_plain_exclude_each_other():
    with pytest.raises(RequestError, match="cast has no effect with plain=True"):
        BookOptions(cast=CAST, plain=True)
