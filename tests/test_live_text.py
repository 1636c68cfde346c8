"""Text in pieces gives the ids and codes of the whole text, wherever a pipe cuts it."""

import os
import random
import signal
import threading
import time

import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS, Request, RequestError
from mlx_qwen3_tts.text.feed import TextFeed
from mlx_qwen3_tts.text.incremental import IncrementalEncoder, encode_live
from mlx_qwen3_tts.text.segment import ParagraphSplitter, decode_pieces
from tests.support import checkpoints, sounds

TEXT = "Hello world,\n this is  a voice: 今天 25°C 🙂👍🏽👨‍👩‍👧 — naïve cafe\u0301, d\u0307\u0323 한국어 "
TEXT += "don't they'LL  go?\r\n\n No!!\n"
POOL = [
    "a", "b", "'", "r", "e", "s", "'s", " ", "  ", "\n", "\r\n", "\t", "é", "e\u0301", "\u0323", "\u0307", "d", "한",
    "\u1112", "\u1161", "\u11ab", "1", "23", ".", "!", "?\n", "…", "🙂", "👍🏽", "\u200d", "今", "天", "\u09be", "ক",
    "=", "\u0338", "\u00a0", "\u3000", "'ll", "I", "DON'T", "स", "्", "त", "े", "\u0301", "\ufe0f", "\x00",
    "<|im_end|>",
]  # fmt: skip


def cut(text, rng: random.Random) -> list:
    """Cut `text` (or bytes) into random pieces, some of them empty."""
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 2 * len(text))))
    return [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def ids(tokenizer, pieces) -> list[int]:
    return [id_ for batch in encode_live(tokenizer, "assistant\n", pieces) for id_ in batch]


def test_ids_of_pieces_equal_those_of_the_whole(demo):
    rng, tokenizer = random.Random(0), demo.engine.tokenizer
    texts = [TEXT, *("".join(rng.choices(POOL, k=rng.randint(1, 25))) for _ in range(2000))]
    for text in texts:
        pieces = cut(text, rng)
        assert ids(tokenizer, pieces) == tokenizer.encode("assistant\n" + text), pieces
    assert ids(tokenizer, list(TEXT)) == tokenizer.encode("assistant\n" + TEXT)


def test_ids_come_as_soon_as_they_are_certain(demo):
    tokenizer = demo.engine.tokenizer
    batches = list(encode_live(tokenizer, "", ["Hel", "lo", " wor", "ld. How", " are"]))
    assert [tokenizer.decode(batch) for batch in batches] == ["", "", "", "Hello", " world.", " How", " are"]


SPOKEN = "Hello, this 今天 25°C 🙂👍🏽 naïve cafe\u0301 한국어\n\n No!!\n"
MOST_FRAMES = 70
SPEECH = dict(seed=1, stop_runaway=False)  # the speech lasts longer than its text


@pytest.fixture(scope="module")
def miniature(tmp_path_factory) -> Qwen3TTS:
    """A smaller model with the vocabulary of the demo."""
    return Qwen3TTS.from_pretrained(checkpoints.write(tmp_path_factory.mktemp("live") / "c", "projected"))


@pytest.fixture(scope="module")
def expected_codes(miniature) -> np.ndarray:
    """Return the codes of SPOKEN given whole, beyond the end of the text."""
    codes = miniature.synthesize(SPOKEN, max_frames=MOST_FRAMES, non_streaming_mode=False, **SPEECH).codes
    assert len(codes) == MOST_FRAMES > len(miniature.engine.tokenizer.encode(SPOKEN))
    return codes


@pytest.mark.parametrize("seed", range(20))
def test_codes_of_pieces_equal_those_of_the_whole(miniature, expected_codes, seed):
    """This holds for twenty random cuts of the bytes, some inside characters, as in a pipe."""
    frames = MOST_FRAMES if seed < 2 else 6  # equal ids suffice, as two runs to the end of the text show
    pieces = decode_pieces(cut(SPOKEN.encode(), random.Random(seed)))
    result = miniature.synthesize(pieces, max_frames=frames, **SPEECH)
    np.testing.assert_array_equal(result.codes, expected_codes[:frames])


def test_in_context_cloning_takes_live_text(tmp_path):
    base = Qwen3TTS.from_pretrained(checkpoints.write(tmp_path / "base", "projected", "base"))
    voice = base.clone_voice(sounds.SOUNDS["speech"], "hello this voice")
    for text in ("Hi", TEXT):
        whole = base.synthesize(text, voice=voice, seed=3, max_frames=5, non_streaming_mode=False)
        live = base.synthesize(iter(text), voice=voice, seed=3, max_frames=5)
        np.testing.assert_array_equal(live.codes, whole.codes)


def test_iterator_with_the_whole_text_first(demo):
    whole = demo.synthesize("Hello world", seed=3, max_frames=4)
    live = demo.synthesize(iter(["Hel", "lo world"]), seed=3, max_frames=4, non_streaming_mode=True)
    np.testing.assert_array_equal(live.codes, whole.codes)


def test_speech_begins_before_the_text_has_ended(demo):
    asked = []

    def source():
        for word in TEXT.split(" "):
            asked.append(word)
            yield word + " "

    stream = demo.stream(source(), seed=3)
    first = next(stream)
    assert len(first.codes) == 1
    assert len(asked) <= 3
    next(stream)
    assert len(asked) < len(TEXT.split(" ")) / 2
    stream.close()


def test_audio_is_not_held_back_if_the_text_runs_dry(demo):
    """Each frame is emitted before the text of the next one is requested."""
    log = []

    def source():
        for letter in "Hello world this is a voice":
            log.append("asked")
            yield letter

    for _chunk in demo.stream(source(), seed=3, max_frames=6, chunk_frames=(8,)):
        log.append("chunk")
    assert log[-1] == "chunk"
    assert log.count("chunk") > 1, "not one chunk of 6 frames"


def test_a_frame_is_emitted_before_the_next_text_is_requested(demo):
    received = []

    def source():
        yield "a b "  # " b" is not certain yet: a letter may follow
        assert len(received) == 1
        yield "c "
        assert len(received) == 3  # " b" is two ids of the small vocabulary
        yield "d "

    for chunk in demo.stream(source(), seed=3, max_frames=6, chunk_frames=(1,)):
        received.append(chunk)
    assert len(received) == 6


def test_error_of_the_source_ends_the_stream_after_the_audio_so_far(demo):
    def source():
        yield from "Hello world, this"
        raise ConnectionError("the model went away")

    whole = demo.synthesize("Hello world, this", seed=3, max_frames=20, non_streaming_mode=False)
    received = []
    with pytest.raises(ConnectionError, match="went away"):
        for chunk in demo.stream(source(), seed=3):
            received.append(chunk)
    codes = np.concatenate([chunk.codes for chunk in received])
    assert len(codes) > 5
    assert not any(chunk.is_final for chunk in received)
    np.testing.assert_array_equal(codes, whole.codes[: len(codes)])


@pytest.mark.parametrize("pieces", [[], [""], [" ", "\n"], ["Hello", 5], [b"Hello"], [None], ["a", "\udcff"]])
def test_non_text_pieces(demo, pieces):
    with pytest.raises(RequestError, match="text"):
        list(demo.stream(iter(pieces), max_frames=20))


def test_non_utf8_bytes():
    assert "".join(decode_pieces([b"\xef\xbb", b"\xbfa\xc3", b"\xa9"])) == "aé"
    for pieces in ([b"ab\xff"], [b"ab\xc3"], [b"ab\xc3", b"a"], [b"a", b"b\xff\xff"]):
        good = []
        with pytest.raises(RequestError, match="UTF-8"):
            for piece in decode_pieces(pieces):
                good.append(piece)
        assert "".join(good) == "ab", "the text before the error is passed on"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("one\ntwo\n\nthree\n \n\n four \n", ["one\ntwo", "three", "four"]),
        ("one", ["one"]), ("one\n", ["one"]), ("\n\n one\r\n\r\ntwo", ["one", "two"]), ("", []), (" \n\n ", []),
        ("a \n\n b\n\n", ["a", "b"]),
    ],
)  # fmt: skip
def test_paragraphs(text, expected):
    for size in range(1, len(text) + 2):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert ["".join(paragraph) for paragraph in ParagraphSplitter(pieces)] == expected, size


def test_paragraphs_come_as_they_are_written():
    given = []

    def source():
        for piece in ("one ", "two\n\nth", "ree"):
            given.append(piece)
            yield piece

    texts = iter(ParagraphSplitter(source()))
    assert next(next(texts)) == "one"
    assert given == ["one "]
    assert list(next(texts)) == ["th", "ree"]
    assert list(texts) == []


def test_long_paragraphs_are_cut_after_a_sentence():
    sentence = "This is a sentence of some fifty characters, or so. "
    for size in (1, 7, 100, 5000, 10**6):
        text = sentence * 200
        parts = ["".join(p) for p in ParagraphSplitter([text[i : i + size] for i in range(0, len(text), size)])]
        assert " ".join(parts) == text.strip()
        assert all(part.endswith("so.") and len(part) < 2600 for part in parts)
        assert len(parts) in (5, 6)
    words = "word " * 2000
    assert all(len(part) <= 2500 for part in ("".join(p) for p in ParagraphSplitter([words])))
    assert " ".join("".join(p) for p in ParagraphSplitter([words])) == words.strip()


@pytest.mark.parametrize("size", [1, 7, 600, 2000, 10**6])
def test_where_a_long_paragraph_ends(size):
    """After the first sentence that ends beyond 2000 characters; within 2500 in any case."""

    def lengths(text: str) -> list[int]:
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        return [len("".join(paragraph)) for paragraph in ParagraphSplitter(pieces)]

    assert lengths("a" * 1999 + ". b") == [2000, 1]
    assert lengths("a" * 1998 + ". b") == [2001], "it has 1999 characters before the sentence's end"
    assert lengths("字" * 1999 + "。字") == [2000, 1]
    assert lengths("a" * 2498 + ". b") == [2499, 1]
    assert lengths("a" * 2500) == [2500]
    assert lengths("x" * 9000) == [2500, 2500, 2500, 1500]
    assert lengths("a" * 4000 + ". b") == [2500, 1503]
    assert lengths("a" * 4000 + "\n\nb") == [2500, 1500, 1]


def test_a_long_sentence_is_cut_after_a_word():
    """The first word that ends beyond 2000 characters, unless it ends beyond 2500."""
    for words, expected in (
        ((2100, 398), [2499]), ((2100, 400), [2100, 400]), ((2000, 600), [2000, 600]), ((1999, 600), [2500, 100]),
        ((2500, 9), [2500, 9]), ((2501, 9), [2500, 11]),
    ):  # fmt: skip
        text = " ".join("a" * length for length in words)
        assert [len("".join(paragraph)) for paragraph in ParagraphSplitter([text])] == expected, words
    pieces = ["a" * 2400, " " + "b" * 300]
    assert [len("".join(paragraph)) for paragraph in ParagraphSplitter(pieces)] == [2400, 300]


def test_waiting_for_text_does_not_count_as_generation_time(demo):
    def source():
        for word in ["Hello", "world", "this", "is"]:
            time.sleep(0.3)
            yield word + " "

    timing = demo.synthesize(source(), seed=3, max_frames=4).timing
    assert timing.total < 0.9, "1.2 s were spent waiting"


def test_chunks_report_when_the_text_ran_out(demo):
    chunks = list(demo.stream(iter("Hello world this is a voice"), seed=3, max_frames=12))
    assert any(chunk.text_ran_dry for chunk in chunks)
    assert not chunks[-1].text_ran_dry
    assert not any(chunk.text_ran_dry for chunk in demo.stream("Hello", seed=3, max_frames=6))


def test_text_feed():
    feed = TextFeed(iter([[1], [], [2, 3]]), end=8, pad=9)
    assert not feed.ready
    with pytest.raises(LookupError):
        feed.take()
    feed.require(3)
    assert not feed.ended, "no more is waited for than was asked for"
    assert [feed.take(), feed.take()] == [[1], [2]]
    assert (feed.known, feed.ready, feed.ended, feed.exhausted) == (1, True, False, False)
    feed.prepend([6, 7])
    feed.begin_speech()
    assert feed.take_rest() == [6, 7, 3, 8]
    assert (feed.ended, feed.exhausted, feed.ready, feed.length) == (True, True, True, 3)
    assert feed.take(2) == [9, 9]
    assert [feed.consumed_before(frame) for frame in range(6)] == [False] * 4 + [True] * 2


def test_text_feed_counts_the_time_that_it_waits(monkeypatch):
    """Also before an error of the source."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def batches():
        now[0] += 2
        yield [1]
        now[0] += 3
        raise OSError("gone")

    feed = TextFeed(batches(), end=8, pad=9)
    assert feed.waited == 0
    feed.pull()
    assert feed.waited == 2
    with pytest.raises(OSError, match="gone"):
        feed.pull()
    assert feed.waited == 5


def test_a_word_without_end_is_not_split_at_each_letter(demo, spy):
    """The work is linear in the length of the text, and the ids equal those of the whole."""
    tokenizer = demo.engine.tokenizer
    calls = spy(type(tokenizer), "last_word_start")
    text = "Hello " + "ab" * 5000 + " world"
    encoder = IncrementalEncoder(tokenizer)
    ids = [id_ for letter in text for id_ in encoder.feed(letter)] + encoder.finish()
    assert ids == tokenizer.encode(text)
    assert sum(len(searched) for _, (_, searched) in calls) < 20 * len(text)


def test_a_long_word_is_given_soon_after_its_end(demo):
    """When the text has grown by a quarter, at the latest; a shorter one at the second letter of the next word."""
    for length, most in ((400, 100), (200, 3)):
        encoder = IncrementalEncoder(demo.engine.tokenizer)
        assert not any(encoder.feed(letter) for letter in "ab" * (length // 2))
        assert any(encoder.feed(letter) for letter in (" is" * 40)[:most])


# --- a text that never comes ---


@pytest.fixture
def silence():
    """A source of a few words, which is then silent until the test ends; `is_silent` is set from then on."""
    ended = threading.Event()

    def source(words: int):
        for _ in range(words):
            yield "Hello "
        source.is_silent.set()
        ended.wait(60)

    source.is_silent = threading.Event()
    yield source
    ended.set()


@pytest.fixture
def interrupt():
    """Heed SIGINT, which a shell's background job ignores; the value sends it soon after an event."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)

    def send(event: threading.Event) -> None:
        event.wait(20)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    yield lambda event: threading.Thread(target=send, args=(event,)).start()
    signal.signal(signal.SIGINT, previous)


def no_rows_are_left(demo) -> None:
    deadline = time.monotonic() + 20
    while demo.scheduler.count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert demo.scheduler.count == 0


@pytest.mark.parametrize("words", [0, 4])
@pytest.mark.parametrize("kind", ["one", "batch"])
def test_interrupt_while_the_source_is_silent(demo, silence, interrupt, kind, words):
    before = threading.active_count()
    began = time.monotonic()
    interrupt(silence.is_silent)
    with pytest.raises(KeyboardInterrupt):
        if kind == "one":
            demo.synthesize(silence(words), seed=1, stop_runaway=False)
        else:
            demo.synthesize_batch([Request(silence(words), seed=1), Request("Hello", seed=1, max_frames=2)])
    assert time.monotonic() - began < 5
    no_rows_are_left(demo)
    assert threading.active_count() <= before + 2, "the one that waits for a batch's text, and the one that interrupts"


def test_closing_a_batch_while_a_source_is_silent(demo, silence):
    began = time.monotonic()
    speech = Request("Hello", seed=1, chunk_frames=1, stop_runaway=False)
    chunks = demo.stream_batch([Request(silence(1), seed=1), speech])
    for _ in range(9):  # the last of them after the text of the first request has run dry
        while next(chunks)[0] != 1:
            pass
    chunks.close()
    assert time.monotonic() - began < 5
    no_rows_are_left(demo)


def test_a_stream_that_is_dropped_in_another_thread(demo):
    expected = demo.synthesize("Hello world", seed=1, max_frames=4).codes
    for _ in range(3):
        stream = demo.stream("Hello world", seed=1, chunk_frames=(1,), stop_runaway=False)
        held = [stream]
        thread = threading.Thread(target=lambda held=held: (next(held[0]), held.clear()))
        next(stream)
        del stream
        thread.start()
        thread.join()
    no_rows_are_left(demo)
    np.testing.assert_array_equal(demo.synthesize("Hello world", seed=1, max_frames=4).codes, expected)
