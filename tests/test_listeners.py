"""The three listeners by themselves: a scheduler that plays a script takes the place of the model."""

import threading
import time
import warnings
import weakref
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue

import numpy as np
import pytest

from mlx_qwen3_tts import BatchError, GenerationError, Request, RequestError
from mlx_qwen3_tts.generation.listen import BatchListener
from mlx_qwen3_tts.generation.push import PushedSpeech
from mlx_qwen3_tts.generation.runaway import retry_seed
from mlx_qwen3_tts.generation.speech import NeedsText
from mlx_qwen3_tts.generation.stream import stream_attempts, stream_chunks
from mlx_qwen3_tts.result import AudioChunk, SynthesisTiming

TIMING = SynthesisTiming(0.1, 0.1, 0.1, 0.1, 0.3, 1, 0.08, 0)


def chunk(number: int, reason: str | None = None, **options) -> AudioChunk:
    """Return a chunk of one frame, whose codes are `number`."""
    codes = np.full((1, 16), number)
    return AudioChunk(
        np.zeros(4), codes, 24000, 7, TIMING, is_final=reason is not None, finish_reason=reason, **options
    )


class NotedSpeech:
    """Notes what a listener does with it."""

    def __init__(self, engine, resolved, prompt, sizes, outbox, clock):
        self.request, self.seed = resolved.request, resolved.seed
        self.prompt, self.sizes, self.outbox, self.clock = prompt, sizes, outbox, clock
        self.asked = self.resumed = 0
        self.cancelled = False
        self.most_frames = 10

    def ask(self):
        self.asked += 1

    def resume(self):
        self.resumed += 1

    def cancel(self):
        self.cancelled = True

    def put(self, message):
        self.outbox.put((self, message))


class Script:
    """A scheduler that answers each request with messages, one for each chunk that is asked for."""

    memory = 10**9

    def __init__(self, engine):
        self.engine = engine
        self.speeches: list[NotedSpeech] = []
        self.messages: list[list] = []  # of each request, in the order of their arrival
        self.wakes = 0
        self.fitting = 16
        self.backwards = False  # the last request is served first
        self.others = threading.enumerate()  # of other tests

    def add(self, speech):
        self.speeches.append(speech)

    def wake(self):
        self.wakes += 1

    def receive(self, outbox):
        for _ in range(500):
            with suppress(Empty):
                return outbox.get_nowait()
            pairs = list(zip(self.speeches, self.messages, strict=False))
            for speech, messages in reversed(pairs) if self.backwards else pairs:
                if messages and speech.asked and not speech.cancelled:
                    message = messages.pop(0)
                    speech.asked -= not isinstance(message, NeedsText)
                    return speech, message
            time.sleep(0.01)  # a thread reads a text
        raise AssertionError("nothing comes any more")

    def texts(self) -> list[threading.Thread]:
        """Return the threads that read texts at present."""
        return [thread for thread in threading.enumerate() if thread.name == "text" and thread not in self.others]

    def join_texts(self) -> None:
        """Wait for the threads that read texts, which nobody waits for at exit."""
        for thread in self.texts():
            assert thread.daemon
            thread.join(5)
            assert not thread.is_alive()

    def positions_of(self, speech):
        return 10

    def rows_in_memory(self, positions):
        return self.fitting


@pytest.fixture
def script(demo, monkeypatch) -> Script:
    for module in ("push", "stream", "listen"):
        monkeypatch.setattr(f"mlx_qwen3_tts.generation.{module}.Speech", NotedSpeech)
    return Script(demo.engine)


def numbers(chunks) -> list[int]:
    return [int(one.codes[0, 0]) for one in chunks]


def numbers_so_far(found: list[tuple]) -> list[int]:
    return [item[-1] for item in found]


# --- one request, for a caller that waits ---


def test_a_stream_asks_for_each_chunk(script):
    """The scheduler is woken each time; the end frees the row before the last chunk is used."""
    script.messages = [[chunk(1), chunk(2), chunk(3, "stop")]]
    stream = stream_chunks(script, Request("Hello", seed=5))
    assert script.speeches == [], "nothing begins before the first chunk is asked for"
    assert numbers([next(stream)]) == [1]
    (speech,) = script.speeches
    assert (speech.asked, script.wakes, speech.cancelled, speech.seed) == (0, 1, False, 5)
    assert numbers([next(stream)]) == [2]
    assert (script.wakes, speech.cancelled) == (2, False)
    assert numbers([next(stream)]) == [3]
    assert (script.wakes, speech.cancelled) == (4, True)
    assert list(stream) == []


def test_the_sizes_of_chunks(script):
    for sizes, expected in ((None, (3,)), ((5, 6), (5, 6))):
        script.messages.append([chunk(1, "stop")])
        list(stream_chunks(script, Request("Hello", chunk_frames=3), sizes))
        assert script.speeches[-1].sizes == expected


def test_closing_a_stream_cancels(script):
    script.messages = [[chunk(1), chunk(2)]]
    stream = stream_chunks(script, Request("Hello"))
    next(stream)
    stream.close()
    assert script.speeches[0].cancelled
    assert script.wakes == 2


def test_a_stream_raises_what_comes(script):
    script.messages = [[chunk(1), GenerationError("not finite")]]
    stream = stream_chunks(script, Request("Hello"))
    next(stream)
    with pytest.raises(GenerationError, match="not finite"):
        next(stream)
    assert script.speeches[0].cancelled


def test_a_stream_lets_go_of_the_error(script):
    """Its traceback holds arrays: a cycle would keep them until the garbage collector runs."""
    error = GenerationError("not finite")
    kept = weakref.ref(error)
    script.messages = [[error]]
    del error
    with suppress(GenerationError):
        next(stream_chunks(script, Request("Hello")))
    assert kept() is None


def test_a_stream_of_a_model_that_was_unloaded(script, monkeypatch):
    script.messages = [[chunk(1), chunk(2)]]
    begun, new = (stream_chunks(script, Request("Hello")) for _ in range(2))
    next(begun)

    def closed():
        raise RequestError("the model was unloaded")

    monkeypatch.setattr(script.engine, "check_open", closed)
    for stream in (begun, new):
        with pytest.raises(RequestError, match="unloaded"):
            next(stream)
    (speech,) = script.speeches
    assert (speech.cancelled, speech.asked) == (True, 0)


def test_a_stream_pulls_the_text_that_is_needed(script):
    """Until the next id is known, which empty pieces do not tell."""
    taken = []

    def text():
        for piece in ("Hello ", "world ", "", "", "this ", "is "):
            taken.append(piece)
            yield piece

    needs = NeedsText()
    script.messages = [[chunk(1), needs, chunk(2, "stop")]]
    stream = stream_chunks(script, Request(text()))
    next(stream)
    (speech,) = script.speeches
    feed = speech.prompt.feed
    feed.take(feed.known)
    before = len(taken)
    assert numbers(stream) == [2]
    assert feed.ready
    assert before < len(taken) < 6
    assert (speech.resumed, script.wakes) == (1, 4)


def test_the_wait_for_the_text_is_left_out(script, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def text():
        now[0] += 4
        yield "Hello world, this is "

    script.messages = [[chunk(1, "stop")], [], [chunk(1, "stop")]]
    stream = stream_chunks(script, Request(text()))
    now[0] += 2  # before anybody asks
    list(stream)
    PushedSpeech(script, Request(text()), print).start()
    script.join_texts()
    for _ in BatchListener(script, [Request(text())], 1).chunks():
        pass
    assert len(script.speeches) == 3
    assert [speech.clock.total for speech in script.speeches] == [0, 0, 0]


def test_the_wait_for_a_place_counts(script, monkeypatch):
    """And the work on its prompt; not the time between the two."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    build = script.engine.prompts.build

    def slow_build(request):
        now[0] += 8
        return build(request)

    monkeypatch.setattr(script.engine.prompts, "build", slow_build)
    stream = stream_chunks(script, Request("Hello"))
    pushed = PushedSpeech(script, Request("Hello"), print)
    batch = BatchListener(script, [Request("Hello")], 1).chunks()
    now[0] += 2
    script.messages = [[chunk(1)], [], [chunk(1)]]
    next(stream)
    pushed.start()
    next(batch)
    now[0] += 3
    for speech in script.speeches:
        speech.clock.book("prefill")
    assert [speech.clock.total for speech in script.speeches] == [11, 11, 11]


@pytest.mark.parametrize("seed, reason, attempts", [(None, "runaway", 2), (None, "length", 1), (5, "runaway", 1)])
def test_a_runaway_has_a_second_attempt(script, seed, reason, attempts):
    """Also if its text came in pieces; it never has a third one."""
    script.messages = [[chunk(1), chunk(2, reason)], [chunk(3, "runaway")]] * 2
    script.messages = [list(messages) for messages in script.messages]
    for text in ("Hello world", iter(["Hello ", "world"])):
        script.speeches.clear()
        found = []
        for number, one in stream_attempts(script, Request(text, seed=seed), (4,)):
            script.speeches[-1].prompt.feed.require_all()
            found.append((number, *numbers([one])))
        assert found == [(0, 1), (0, 2), (1, 3)][: attempts + 1]
        assert isinstance(script.speeches[0].request.text, str) is isinstance(text, str), "a text stays whole"
        if attempts == 2:
            second = script.speeches[1]
            assert second.request.seed == retry_seed(7)
            assert "".join(second.request.text) == "Hello world"
            assert second.sizes == (4,)
        script.messages = script.messages[2:]


# --- one request, pushed to an event loop ---


def test_a_pushed_speech_keeps_what_is_asked_before_it_starts(script):
    delivered = []
    pushed = PushedSpeech(script, Request("Hello", seed=5, chunk_frames=3), delivered.append)
    assert (pushed.seed, pushed.text_tokens) == (5, 0)
    pushed.ask()
    pushed.ask(2)
    pushed.start()
    (speech,) = script.speeches
    assert (speech.asked, speech.sizes, script.wakes) == (3, (3,), 1)
    pushed.ask(2)
    assert (speech.asked, script.wakes) == (5, 2)
    assert pushed.text_tokens == speech.prompt.feed.length > 0
    pushed.cancel()
    assert (speech.cancelled, script.wakes) == (True, 3)
    other = PushedSpeech(script, Request("Hello", chunk_frames=3), delivered.append, sizes=(4, 5))
    other.start()
    assert script.speeches[1].sizes == (4, 5)
    assert delivered == []


def test_a_pushed_speech_that_was_cancelled_never_starts(script):
    pushed = PushedSpeech(script, Request("Hello"), print)
    pushed.cancel()
    pushed.start()
    assert script.speeches == []


def test_a_pushed_speech_delivers(script):
    """After a chunk at which the text ran dry it wakes the scheduler, which says so at the next frame."""
    delivered = []
    PushedSpeech(script, Request("Hello"), delivered.append).start()
    (speech,) = script.speeches
    error = GenerationError("x")
    messages = [chunk(1), chunk(2, text_ran_dry=True), error]
    wakes = []
    for message in messages:
        speech.put(message)
        wakes.append(script.wakes)
    assert delivered == messages
    assert wakes == [1, 2, 2]


def test_a_pushed_speech_waits_for_its_text_on_another_thread(script):
    written = SimpleQueue()
    log = []
    request = Request(iter(lambda: written.get(timeout=5), None))
    pushed = PushedSpeech(script, request, log.append, log.append)
    pushed.start()
    written.put("Hello world, this ")
    script.join_texts()
    (speech,) = script.speeches
    assert log == [True, False]
    feed = speech.prompt.feed
    feed.take(feed.known)
    speech.put(NeedsText())
    assert [thread.daemon for thread in script.texts()] == [True]
    assert speech.resumed == 0
    for piece in ("", "is ", "a "):
        written.put(piece)
    script.join_texts()
    assert feed.ready
    assert log == [True, False] * 2
    assert (speech.resumed, script.wakes) == (1, 2)
    feed.take(feed.known)
    written.put("voice ")
    pushed.cancel()
    speech.put(NeedsText())
    script.join_texts()
    assert not written.empty(), "nothing is read after the cancellation"


def test_a_pushed_speech_ends_with_the_error_of_its_text(script):
    def text():
        yield "Hello world, "
        raise OSError("gone")

    delivered = []
    PushedSpeech(script, Request(text()), delivered.append).start()
    script.join_texts()
    (speech,) = script.speeches
    feed = speech.prompt.feed
    feed.take(feed.known)
    speech.put(NeedsText())
    script.join_texts()
    assert speech.cancelled
    assert [str(error) for error in delivered] == ["gone"]


def test_nobody_is_left_to_wake_at_exit(script, monkeypatch):
    """The scheduler cannot be woken while the interpreter shuts down; a listener that ends does not care."""
    script.messages = [[chunk(1), chunk(2)]] * 2
    stream = stream_chunks(script, Request("Hello"))
    batch = BatchListener(script, [Request("Hello")], 1).chunks()
    pushed = PushedSpeech(script, Request("Hello"), print)
    next(stream)
    next(batch)
    pushed.start()

    def ended():
        raise GenerationError("the interpreter is shutting down")

    monkeypatch.setattr(script, "wake", ended)
    stream.close()
    batch.close()
    pushed.cancel()
    assert all(speech.cancelled for speech in script.speeches)


# --- many requests ---


def requests_of(count: int) -> list[Request]:
    return [Request("Hello", seed=number) for number in range(count)]


def test_a_batch_in_the_order_of_its_chunks(script):
    """At most two requests are under way; the next one begins when one has ended."""
    script.messages = [[chunk(1), chunk(2), chunk(3, "stop")], [chunk(4, "stop")], [chunk(5, "length")]]
    listener = BatchListener(script, requests_of(3), 2)
    found = []
    for index, attempt, one in listener.chunks():
        found.append((index, attempt, *numbers([one])))
        assert listener.is_under_way(index) is not one.is_final
        assert len(script.speeches) <= 2 + len({3, 4} & set(numbers_so_far(found)))
    assert found == [(0, 0, 1), (0, 0, 2), (0, 0, 3), (1, 0, 4), (2, 0, 5)]
    assert listener.frames == 5
    assert [speech.seed for speech in script.speeches] == [0, 1, 2]
    assert not any(speech.cancelled for speech in script.speeches), "they had ended"


def test_the_results_of_a_batch(script):
    script.messages = [[chunk(1), chunk(2, "stop")], [chunk(4, "stop")]]
    first, second = BatchListener(script, requests_of(2), 2).results(2)
    assert (first.codes[:, 0].tolist(), second.codes[:, 0].tolist()) == ([1, 2], [4])
    script.speeches.clear()
    script.messages = [[chunk(1), chunk(2, "runaway")], [chunk(3), chunk(4, "stop")]]
    (again,) = BatchListener(script, [Request("Hello")], 2, retries=True).results(1)
    assert again.codes[:, 0].tolist() == [3, 4], "the first attempt is void"


def test_a_batch_reads_texts_on_other_threads(script):
    """One that never comes holds up neither the other requests nor the end of the program."""
    release = threading.Event()

    def text():
        release.wait(5)
        yield "Hello world, this "

    script.messages = [[chunk(1, "stop")], [chunk(2, "stop")]]
    batch = BatchListener(script, [Request(text()), Request("Hello")], 2).chunks()
    assert next(batch)[0] == 1
    assert [thread.daemon for thread in script.texts()] == [True]
    release.set()
    assert [index for index, _, _ in batch] == [0]


def test_a_batch_that_is_closed_while_it_reads_a_text(script):
    release = threading.Event()

    def text():
        release.wait(5)
        yield "Hello world, this "

    script.messages = [[chunk(1), chunk(2)]]
    batch = BatchListener(script, [Request(text()), Request("Hello")], 2).chunks()
    next(batch)
    batch.close()
    release.set()
    script.join_texts()
    assert len(script.speeches) == 2
    assert all(speech.cancelled for speech in script.speeches)


def test_a_batch_pulls_the_text_that_is_needed(script):
    """The scheduler is woken for each request, each further chunk, the text, and the end."""
    request = Request(iter(["Hello world, ", "this ", "", "is ", "a "]))
    script.messages = [[chunk(1), NeedsText(), chunk(2, "stop")]]
    batch = BatchListener(script, [request], 1).chunks()
    next(batch)
    (speech,) = script.speeches
    feed = speech.prompt.feed
    feed.take(feed.known)
    assert numbers([one for _, _, one in batch]) == [2]
    script.join_texts()
    assert feed.ready
    assert (speech.resumed, script.wakes) == (1, 4)


@pytest.mark.parametrize("pieces", [[], ["Hello world, this "]])
def test_the_text_of_a_request_of_a_batch_fails(script, pieces):
    """Before its prompt is known, or while it speaks."""

    def text():
        yield from pieces
        raise OSError("gone")

    script.messages = [[chunk(1), NeedsText()]]
    errors = {}
    found = []
    for _, _, one in BatchListener(script, [Request(text())], 1, on_error=errors.__setitem__).chunks():
        found += numbers([one])
        feed = script.speeches[0].prompt.feed
        feed.take(feed.known)
    assert found == [1] * len(pieces)
    assert str(errors[0]) == "gone"
    assert [speech.cancelled for speech in script.speeches] == [True] * len(pieces)


def test_a_batch_that_is_closed_reads_no_further(script):
    """Though the text goes on with pieces that tell nothing."""

    def text():
        yield "Hello world, this "
        for _ in range(1000):
            time.sleep(0.01)
            yield ""

    def requests():
        yield Request(text())
        script.join_texts()  # its prompt is known: it is the first of the script
        yield Request("Hello")

    script.messages = [[chunk(1), NeedsText()], [chunk(2), chunk(3)]]
    batch = BatchListener(script, requests(), 2).chunks()
    next(batch)
    feed = script.speeches[0].prompt.feed
    feed.take(feed.known)
    next(batch)
    batch.close()
    script.join_texts()
    assert not feed.ready


def test_a_failed_request_of_a_batch(script):
    """The others end first; on_error takes the error in place of a BatchError."""
    error = GenerationError("x")
    for on_error in (None, {}):
        script.speeches.clear()
        script.messages = [[chunk(1), error], [chunk(2), chunk(3, "stop")]]
        take = None if on_error is None else on_error.__setitem__
        listener = BatchListener(script, requests_of(2), 2, on_error=take)
        if on_error is None:
            with pytest.raises(BatchError) as raised:
                listener.results(2)
            assert raised.value.errors == {0: error}
            nothing, found = raised.value.results
            assert nothing is None
            assert found.codes[:, 0].tolist() == [2, 3]
        else:
            assert [index for index, _, _ in listener.chunks()] == [0, 1, 1]
            assert on_error == {0: error}


def test_a_runaway_of_a_batch(script):
    """It is generated once more if that was asked for, and its chunks are void."""
    for options, expected in (({"retries": True}, [[3], [2]]), ({}, [[1], [2]])):
        retries = bool(options)
        script.speeches.clear()
        script.messages = [[chunk(1, "runaway")], [chunk(2, "stop")], [chunk(3, "runaway")]]
        requests = [Request(iter(["Hello ", "world"])), Request("Hello")]
        listener = BatchListener(script, requests, 2, sizes=(4,), **options)
        chunks = [[], []]
        attempts = []
        for index, attempt, one in listener.chunks():
            if attempt:
                chunks[index].clear()
            chunks[index].append(int(one.codes[0, 0]))
            attempts.append(attempt)
            if index == 0:
                assert listener.is_under_way(0) is (retries and attempt == 0)
            for speech in script.speeches:
                speech.prompt.feed.require_all()
            script.join_texts()
        assert chunks == expected
        assert sum(attempts) == retries
        assert {speech.sizes for speech in script.speeches} == {(4,)}
        if retries:
            assert script.speeches[2].seed == retry_seed(7)


def test_a_batch_in_the_order_of_its_requests(script):
    """Chunks of later requests are kept; no request begins that is two beyond the first one under way."""
    for backwards in (False, True):
        script.speeches.clear()
        script.backwards = backwards
        script.messages = [[chunk(4, "stop")], [chunk(1), NeedsText(), chunk(2), chunk(3, "stop")], [chunk(5, "stop")]]
        found = []
        for index, _, one in BatchListener(script, requests_of(3), 3, window=2).chunks_in_order():
            found.append((index, *numbers([one])))
            if index == 0:
                assert len(script.speeches) == 2
        assert found == [(0, 4), (1, 1), (1, 2), (1, 3), (2, 5)]


def test_an_error_in_the_order_of_requests(script):
    """It is raised after all audio before it, and ends the others."""
    error = GenerationError("x")
    script.messages = [[chunk(1), chunk(2, "stop")], [error], [chunk(3), chunk(4, "stop")]]
    script.messages[0].insert(0, NeedsText())
    found = []
    with pytest.raises(GenerationError, match="x"):
        for index, _, one in BatchListener(script, requests_of(3), 3).chunks_in_order():
            found.append((index, *numbers([one])))
    assert found == [(0, 1), (0, 2)]
    assert script.speeches[2].cancelled or not script.messages[2]


def test_the_source_of_a_batch_fails(script):
    """Those under way end first."""

    def requests():
        yield Request("Hello")
        raise OSError("gone")

    script.messages = [[chunk(1), chunk(2, "stop")]]
    found = []
    with pytest.raises(OSError, match="gone"):
        for _, _, one in BatchListener(script, requests(), 4).chunks():
            found += numbers([one])
    assert found == [1, 2]


def test_a_batch_beyond_the_memory_is_reported_once(script):
    script.fitting = 2
    for size, count in ((2, 0), (3, 1)):
        script.speeches.clear()
        script.messages = [[chunk(1, "stop")] for _ in range(3)]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            list(BatchListener(script, requests_of(3), size).chunks())
        assert len(told) == count


def test_requests_of_a_batch_are_checked(script):
    bad = [Request("Hello"), replace(Request("Hello"), voice="nobody")]
    with pytest.raises(RequestError, match="request 1: unknown voice"):
        BatchListener(script, bad, 2)
    for size in (0, 17, True, 2.5):
        with pytest.raises(RequestError, match="batch_size"):
            BatchListener(script, [], size)
    for size in (1, 16):
        BatchListener(script, [], size)
