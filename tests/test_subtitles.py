"""Subtitles: pysubs2 reads them back, with the times of the samples."""

import json
import os
import resource

import numpy as np
import pysubs2
import pytest

from mlx_qwen3_tts.errors import BookError
from mlx_qwen3_tts.longform.cues import Cue, break_cue, sentence_cues, text_width
from mlx_qwen3_tts.longform.subtitles import SubtitleWriter, check_subtitles

RATE = 24_000
CUES = [
    Cue(0, 30_001, "It is noon."),
    Cue(30_001, 70_007, "Ham & eggs <fresh>: a --> b, 5 > 4.", True),
    Cue(80_000, 3_700 * RATE + 7, "第二章。「はい」と言った。", False, 2),
    Cue(3_701 * RATE, 3_701 * RATE + 3, "Ä", True, 3),
]


def write(path, cues=CUES, **options) -> str:
    with SubtitleWriter(path, RATE, "de", **options) as writer:
        for cue in cues:
            writer.write(cue)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_times_are_those_of_the_samples(tmp_path, suffix):
    write(tmp_path / f"book{suffix}")
    read = pysubs2.load(str(tmp_path / f"book{suffix}"), keep_unknown_html_tags=True)
    assert len(read) == len(CUES)
    for event, cue in zip(read, CUES, strict=True):
        assert event.start == round(1000 * cue.start_sample / RATE)
        assert event.end == max(event.start + 1, round(1000 * cue.end_sample / RATE))
    assert [event.text for event in read][2:] == [cue.text for cue in CUES][2:]


def test_srt_as_it_is_written(tmp_path):
    text = write(tmp_path / "book.srt")
    assert text.startswith(
        "1\n00:00:00,000 --> 00:00:01,250\nIt is noon.\n\n2\n00:00:01,250 --> 00:00:02,917\nHam & eggs"
    )
    assert "3\n00:00:03,333 --> 01:01:40,000\n第二章。" in text


def test_vtt_is_escaped(tmp_path):
    text = write(tmp_path / "book.vtt")
    header, cues = text.split("are estimated.\n\n")
    assert header.startswith("WEBVTT\n\nNOTE ")
    assert cues.startswith("1\n00:00:00.000 --> 00:00:01.250\nIt is noon.\n\n2\n00:00:01.250 --> ")
    assert "Ham &amp; eggs &lt;fresh&gt;: a --&gt; b, 5 &gt; 4." in cues
    assert text.count("-->") == len(CUES)


def test_json_has_samples(tmp_path):
    data = json.loads(write(tmp_path / "book.json"))
    assert (data["sample_rate"], data["language"]) == (RATE, "de")
    assert [
        Cue(c["start_sample"], c["end_sample"], c["text"], c["estimated"], c["chapter"]) for c in data["cues"]
    ] == CUES
    assert data["cues"][1]["start"] == pytest.approx(30_001 / RATE, abs=1e-6)
    assert json.loads(write(tmp_path / "none.json", []))["cues"] == []


def test_text_cannot_break_the_file(tmp_path):
    hostile = Cue(0, 1000, "a\n\n2\r\n00:00:01,000 -->\n\u2028x\0\ud800 NOTE")
    for suffix in (".srt", ".vtt"):
        text = write(tmp_path / f"book{suffix}", [hostile, CUES[0]])
        assert text.count("-->") == 2
        assert len(pysubs2.load(str(tmp_path / f"book{suffix}"))) == 2


def speech(parts: list[tuple[float, float]]) -> np.ndarray:
    """Noise of so many seconds, then silence of so many, and so on."""
    generator = np.random.default_rng(0)
    pieces = []
    for loud, quiet in parts:
        pieces.append(generator.normal(0, 0.1, round(loud * RATE)))
        pieces.append(np.zeros(round(quiet * RATE)))
    return np.concatenate(pieces).astype(np.float32)


def test_sentences_meet_in_the_pauses():
    # The second is spoken slowly, and has a pause for a comma.
    audio = speech([(2.0, 0.4), (1.5, 0.1), (1.5, 0.4), (1.0, 0)])
    sentences = ["a" * 40, "b" * 40, "c" * 20]
    cues = sentence_cues(audio, RATE, 1000, sentences, 4)
    expected = [(0, 2.0), (2.4, 5.5), (5.9, 6.9)]
    for cue, sentence, (start, end) in zip(cues, sentences, expected, strict=True):
        assert cue.text == sentence
        assert cue.start_sample == pytest.approx(1000 + start * RATE, abs=0.021 * RATE)
        assert cue.end_sample == pytest.approx(1000 + end * RATE, abs=0.021 * RATE)
        assert cue.estimated
        assert cue.chapter == 4
    assert cues[0].start_sample == 1000
    assert cues[-1].end_sample == 1000 + len(audio)


def test_a_long_pause_wins_over_a_short_one_nearer():
    audio = speech([(1.9, 0.1), (0.5, 0.5), (1.6, 0)])
    cues = sentence_cues(audio, RATE, 0, ["a" * 50, "b" * 50])
    assert cues[0].end_sample == pytest.approx(2.5 * RATE, abs=0.021 * RATE)
    assert cues[1].start_sample == pytest.approx(3.0 * RATE, abs=0.021 * RATE)


@pytest.mark.parametrize(("loud", "is_taken"), [(2.6, True), (2.95, False)])
def test_a_pause_too_far_away_is_another_ones(loud, is_taken):
    """Half of the text ends at 2 s; a pause is looked for up to 0.45 of the shorter sentence away."""
    cues = sentence_cues(speech([(loud, 0.2), (3.8 - loud, 0)]), RATE, 0, ["a" * 50, "b" * 50])
    assert (cues[0].end_sample == pytest.approx(loud * RATE, abs=0.021 * RATE)) == is_taken


def test_without_pauses_the_share_of_characters_counts():
    audio = speech([(10, 0)])
    cues = sentence_cues(audio, RATE, 0, ["x" * 30, "y" * 70])
    assert cues[0].end_sample == cues[1].start_sample
    assert cues[0].end_sample == pytest.approx(3 * RATE, abs=0.45 * 3 * RATE)


def test_one_sentence_is_exact():
    audio = speech([(1, 0.3)])
    assert sentence_cues(audio, RATE, 7, [" One. "]) == [Cue(7, 7 + len(audio), "One.")]
    assert sentence_cues(audio, RATE, 7, ["", " "]) == []
    assert sentence_cues(audio[:0], RATE, 7, ["One."]) == []


@pytest.mark.parametrize("seed", range(30))
def test_cues_are_in_order_whatever_the_sound_is(seed):
    generator = np.random.default_rng(seed)
    audio = speech([(generator.uniform(0, 0.5), generator.uniform(0, 0.5)) for _ in range(generator.integers(1, 9))])
    audio = audio[: generator.integers(1, len(audio) + 1)]
    sentences = ["x" * int(generator.integers(1, 60)) for _ in range(generator.integers(1, 12))]
    cues = sentence_cues(audio, RATE, 0, sentences)
    assert len(cues) == len(sentences)
    edges = [edge for cue in cues for edge in (cue.start_sample, cue.end_sample)]
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (0, len(audio))


def test_lines_are_short_and_even():
    text = "The quick brown fox jumps over the lazy dog, and then it sleeps for a while under a tree by the river."
    cues = break_cue(Cue(0, 100_000, text, False, 2), 42)
    lines = [line for cue in cues for line in cue.text.split("\n")]
    assert " ".join(lines) == text
    assert all(len(line) <= 42 for line in lines)
    assert max(map(len, lines)) - min(map(len, lines)) < 12
    assert all(cue.text.count("\n") <= 1 for cue in cues)
    assert [(cue.estimated, cue.chapter) for cue in cues] == [(True, 2)] * 2
    assert [cues[0].start_sample, cues[-1].end_sample] == [0, 100_000]
    assert cues[0].end_sample == cues[1].start_sample == pytest.approx(50_000, abs=20_000)


def test_short_cues_stay_exact():
    assert break_cue(Cue(0, 9, "One line."), 42) == [Cue(0, 9, "One line.")]
    two = break_cue(Cue(0, 9, "These are two lines because they are a little too long."), 42)
    assert two == [Cue(0, 9, "These are two lines because\nthey are a little too long.")]
    assert break_cue(Cue(0, 9, ""), 42) == [Cue(0, 9, "")]


def test_wide_characters_take_two_columns():
    text = "今天天气很好，我们去公园散步。他说：“你好！”然后我们一起吃了午饭，下午回家看书，晚上早早睡觉了。"
    cues = break_cue(Cue(0, 100_000, text), 20)
    lines = [line for cue in cues for line in cue.text.split("\n")]
    assert "".join(lines) == text
    assert all(text_width(line) <= 22 for line in lines)
    assert not [line for line in lines if line[0] in "，。！：”" or line[-1] == "“"]
    assert len(cues) > 1
    korean = "오늘은 날씨가 아주 좋아서 우리는 공원에 산책하러 갔습니다."
    lines = break_cue(Cue(0, 9, korean), 34)[0].text.split("\n")
    assert " ".join(lines) == korean
    assert text_width("e\u0301") == 1


def test_long_words_are_cut():
    word = "https://example.org/" + "x" * 200
    lines = [line for cue in break_cue(Cue(0, 10_000, word), 42) for line in cue.text.split("\n")]
    assert "".join(lines) == word
    assert max(map(len, lines)) <= 42


def test_broken_cues_in_a_file(tmp_path):
    write(tmp_path / "book.srt", [Cue(0, RATE, "word " * 40)], max_width=42)
    read = pysubs2.load(str(tmp_path / "book.srt"))
    assert len(read) == 3
    assert all(len(line) <= 42 for event in read for line in event.plaintext.split("\n"))
    assert (read[0].start, read[-1].end) == (0, 1000)
    with pytest.raises(BookError, match="max_width must be at least 10, not 3"):
        SubtitleWriter(tmp_path / "other.srt", RATE, max_width=3)


@pytest.mark.parametrize("suffix", [".srt", ".vtt", ".json"])
def test_nothing_is_left_of_a_failure(tmp_path, suffix):
    with pytest.raises(ZeroDivisionError), SubtitleWriter(tmp_path / f"a{suffix}", RATE) as writer:
        writer.write(CUES[0])
        raise ZeroDivisionError
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = SubtitleWriter(tmp_path / f"a{suffix}", RATE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(BookError, match=rf"cannot write .*a{suffix}: File too large"):
            for _ in range(1000):
                writer.write(CUES[0])
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_targets_that_are_refused(tmp_path):
    for name, message in [
        ("a.ass", r"end in .srt, .vtt, .json"),
        ("x/a.srt", "folder does not exist"),
        ("d.srt", "regular"),
    ]:
        if name == "d.srt":
            os.mkdir(tmp_path / name)
        with pytest.raises(BookError, match=message):
            check_subtitles(tmp_path / name)
        with pytest.raises(BookError, match=message):
            SubtitleWriter(tmp_path / name, RATE)


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(BookError, match=r"cannot write .*a\.srt: Too many open files$"):
        SubtitleWriter(tmp_path / "a.srt", RATE)
