"""synthesize_batch, stream_batch and threads: many requests of one model, as users ask for them."""

import itertools
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import BatchError, GenerationError, Qwen3TTS, Request, RequestError, SynthesisResult
from mlx_qwen3_tts.codec.codec import Codec
from mlx_qwen3_tts.device import device_memory
from mlx_qwen3_tts.generation import engine, listen
from mlx_qwen3_tts.generation.batch import MAX_ROWS, Batch
from mlx_qwen3_tts.generation.engine import PREFILL_STEP, Engine
from mlx_qwen3_tts.generation.frames import FrameFunctions
from mlx_qwen3_tts.generation.listen import BatchListener
from mlx_qwen3_tts.generation.runaway import retry_seed
from mlx_qwen3_tts.generation.scheduler import Scheduler
from mlx_qwen3_tts.models.cache import MIN_CAPACITY
from mlx_qwen3_tts.models.talker import NO_CODE
from tests.support import checkpoints
from tests.support.batches import requests_of
from tests.support.engine import on_mlx_thread

KINDS = ("custom_voice", "voice_design", "base")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    directory = tmp_path_factory.mktemp("listeners")
    return {kind: Qwen3TTS.from_pretrained(checkpoints.write(directory / kind, "projected", kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def tts(models) -> Qwen3TTS:
    return models["custom_voice"]


def assert_equal(found: SynthesisResult, expected: SynthesisResult) -> None:
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.audio, expected.audio)
    assert (found.seed, found.finish_reason) == (expected.seed, expected.finish_reason)


def row_counts(begun: list[tuple[str, tuple]]) -> list[int]:
    """Return the number of rows of each frame. begun: the calls of `Batch.begin`, as `spy` lists them."""
    return [len(rows) for _, (_, rows) in begun]


@pytest.mark.parametrize("kind, batch_size", [("custom_voice", 3), ("voice_design", 16), ("base", 16)])
def test_results_are_those_of_each_request_alone(models, spy, kind, batch_size):
    """Codes and samples are equal and in order."""
    tts = models[kind]
    requests = [replace(request, max_frames=request.max_frames + 6) for request in requests_of(tts, 8)]
    alone = [tts.run(request) for request in requests]
    begun = spy(Batch, "begin")
    results = tts.synthesize_batch(requests, batch_size=batch_size)
    assert min(batch_size, 6) <= max(row_counts(begun)) <= min(batch_size, 8)
    for found, expected in zip(results, alone, strict=True):
        assert_equal(found, expected)


def test_streamed_chunks_are_those_of_each_stream_alone(tts):
    """Their sizes, too; the chunks of different requests are interleaved."""
    requests = [replace(request, max_frames=12) for request in requests_of(tts, 5)]
    alone = [list(tts.stream_request(request)) for request in requests]
    order = []
    chunks = [[] for _ in requests]
    for index, chunk in tts.stream_batch(requests, batch_size=4):
        order.append(index)
        chunks[index].append(chunk)
    for found, expected in zip(chunks, alone, strict=True):
        assert [len(chunk.codes) for chunk in found] == [len(chunk.codes) for chunk in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.audio, other.audio)
    assert order != sorted(order)


def test_an_endless_iterator(tts):
    """It is asked for a request when a place is free, not earlier; closing ends the work."""
    asked = []

    def requests():
        for i in itertools.count():
            asked.append(i)
            yield Request("Hello", seed=i, max_frames=3)

    ended = []
    stream = tts.stream_batch(requests(), batch_size=2)
    for index, chunk in stream:
        assert len(asked) <= len(ended) + 2
        if chunk.is_final:
            ended.append(index)
        if len(ended) == 6:
            break
    stream.close()
    on_mlx_thread(tts, lambda: None)
    assert tts.scheduler.count == 0
    assert sorted(ended) == list(range(6))


def test_empty(tts):
    assert tts.synthesize_batch([]) == []
    assert list(tts.stream_batch(iter([]))) == []


def test_a_request_joins_and_leaves_a_running_batch(tts, spy):
    """Eight threads that begin at different times share one batch by themselves."""
    requests = requests_of(tts, 8)
    requests = [replace(request, max_frames=10) for request in requests]
    alone = [tts.run(request) for request in requests]
    begun = spy(Batch, "begin")

    def speak(number: int) -> SynthesisResult:
        time.sleep(0.01 * number)
        return SynthesisResult.from_chunks(list(tts.stream_request(requests[number])))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(speak, range(8)))
    for found, expected in zip(results, alone, strict=True):
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_allclose(found.audio, expected.audio, atol=1e-5)
    assert max(row_counts(begun)) > 4


@contextmanager
def busy_rows(tts: Qwen3TTS, count: int):
    """Keep some rows of a batch busy meanwhile; yields when all of them speak."""
    speaking = threading.Event()
    stop = threading.Event()

    def listen() -> None:
        requests = [Request("Hello", seed=i, max_frames=5000, stop_runaway=False) for i in range(count)]
        begun = set()
        chunks = tts.stream_batch(requests)
        for index, _ in chunks:
            begun.add(index)
            if len(begun) == count:
                speaking.set()
            if stop.is_set():
                chunks.close()

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        assert speaking.wait(60)
        yield
    finally:
        stop.set()
        thread.join()


def test_first_audio_takes_a_prompt_and_two_steps_of_the_batch(tts, spy):
    calls = []
    with busy_rows(tts, 7):
        spy(Batch, "begin", calls)
        spy(Engine, "prefill", calls)
        spy(Scheduler, "add", calls)
        for seed in range(5):
            stream = tts.stream("Hello world", seed=seed)
            next(stream)
            calls.append(("audio", ()))
            stream.close()
    names = [name for name, _ in calls]
    added = [i for i, name in enumerate(names) if name == "add"]
    assert len(added) == 5
    for start in added:
        waited = names[start : names.index("audio", start)]
        assert waited.count("prefill") == 1
        # One may be under way, and one may begin before the listener wakes up.
        assert waited.count("begin") <= 1 + 2 + 1


def test_long_prompts_run_in_pieces_between_frames(tts, spy):
    """Running rows wait for one piece at most, and the codes are those of the request alone."""
    request = Request("Hello world. " * 80, seed=1, max_frames=3)
    prompt = tts.engine.prompts.build(request)
    assert len(prompt) > 2 * PREFILL_STEP
    alone = tts.run(request)
    calls = []
    with busy_rows(tts, 2):
        spy(Batch, "begin", calls)
        spy(engine, "embed", calls)
        found = tts.run(request)
    np.testing.assert_array_equal(found.codes, alone.codes)
    pieces = [i for i, (name, _) in enumerate(calls) if name == "embed"]
    sizes = [stop - start for start, stop in (calls[i][1][2:] for i in pieces)]
    assert max(sizes) <= PREFILL_STEP
    assert sum(sizes) == len(prompt)
    assert all(later > earlier + 1 for earlier, later in itertools.pairwise(pieces)), "a frame between two pieces"


def test_a_waiting_text_does_not_delay_other_rows(tts):
    """Its source is silent until all others have ended; it takes no code meanwhile."""
    others_ended = threading.Event()

    def slow_text():
        yield "Hello world, this "
        assert others_ended.wait(60)
        yield "is a voice."

    others = [Request("Hello world", seed=i, max_frames=9) for i in range(3)]
    live = Request(slow_text(), seed=7, max_frames=30, stop_runaway=False)
    whole = Request("Hello world, this is a voice.", seed=7, max_frames=30, stop_runaway=False)
    expected = tts.run(replace(whole, non_streaming_mode=False))
    codes = []
    ended = set()
    for index, chunk in tts.stream_batch([live, *others], batch_size=4):
        if index == 0:
            codes.append(chunk.codes)
        if chunk.is_final:
            ended.add(index)
        if ended == {1, 2, 3} and not others_ended.is_set():
            assert sum(map(len, codes)) < 20
            others_ended.set()
    np.testing.assert_array_equal(np.concatenate(codes), expected.codes)


def fail_in_frame(monkeypatch, row: int, number: int) -> None:
    """Let the codes of one slot be those of logits that are not finite, in one frame."""
    frame = FrameFunctions.frame
    calls = []

    def failing(self, *args):
        codes, *rest = frame(self, *args)
        if len(args[3]) > row:
            calls.append(row)
        if len(calls) == number:
            codes[row] = NO_CODE
        return codes, *rest

    monkeypatch.setattr(FrameFunctions, "frame", failing)


def test_a_failing_row_fails_alone(tts, monkeypatch):
    """The others go on to their ends; the error has the index and the results of the others."""
    requests = [Request("Hello world", seed=i, max_frames=9) for i in range(4)]
    alone = [tts.run(request) for request in requests]
    with monkeypatch.context() as patch:
        fail_in_frame(patch, row=2, number=4)
        with pytest.raises(BatchError, match=r"^request \d failed: the logits of a frame are not finite") as raised:
            tts.synthesize_batch(requests)
    (failed,) = raised.value.errors
    assert isinstance(raised.value.errors[failed], GenerationError)
    for i, (found, expected) in enumerate(zip(raised.value.results, alone, strict=True)):
        if i == failed:
            assert found is None
        else:
            assert_equal(found, expected)


def test_on_error(tts, monkeypatch):
    """The errors of requests are handed over at once, and nothing is raised."""
    requests = [Request("Hello world", seed=i, max_frames=9) for i in range(3)]
    errors = {}
    with monkeypatch.context() as patch:
        fail_in_frame(patch, row=1, number=3)
        finals = [index for index, chunk in tts.stream_batch(requests, on_error=errors.__setitem__) if chunk.is_final]
    assert sorted([*finals, *errors]) == [0, 1, 2]
    assert len(errors) == 1


def test_the_source_of_a_text_fails_alone(tts):
    def broken():
        yield "Hello "
        raise OSError("the line is dead")

    errors = {}
    requests = [Request(broken(), max_frames=40), Request("Hello", seed=1, max_frames=5)]
    finals = [index for index, chunk in tts.stream_batch(requests, on_error=errors.__setitem__) if chunk.is_final]
    assert finals == [1]
    assert isinstance(errors[0], OSError)


@pytest.mark.parametrize(
    "bad, message",
    [
        (Request("Hello", voice="nobody"), "request 1: unknown voice 'nobody'"),
        (Request("Hello", language="klingon"), "request 1: unknown language"),
        ("Hello", "request 1 is not a Request but str"),
    ],
)
def test_an_invalid_request_raises_before_anything_is_made(tts, spy, bad, message):
    frames = spy(FrameFunctions, "frame")
    for call in (tts.synthesize_batch, tts.stream_batch):
        with pytest.raises(RequestError, match=message):
            call([Request("Hello"), bad])
    assert frames == []


def test_an_invalid_request_of_an_iterator(tts):
    """Those before it are spoken to their ends."""
    finals = []
    requests = iter([Request("Hello", seed=1, max_frames=3), Request("Hello", voice="nobody"), Request("Hello")])
    with pytest.raises(RequestError, match="request 1: unknown voice"):
        finals += [index for index, chunk in tts.stream_batch(requests) if chunk.is_final]
    with pytest.raises(RequestError, match="request 0: unknown voice"):
        list(tts.stream_batch(iter([Request("Hello", voice="nobody")])))


@pytest.mark.parametrize("size", [0, 17, -1, 2.5, "8", True])
def test_an_invalid_batch_size(tts, size):
    with pytest.raises(RequestError, match="batch_size must be a whole number from 1 to 16"):
        tts.synthesize_batch([Request("Hello")], batch_size=size)


def test_memory_admits_what_fits(tts, monkeypatch, spy):
    """The others wait in order; one request is served always; a batch size beyond what fits is told once."""
    requests = [Request("Hello world", seed=i, max_frames=6) for i in range(6)]
    alone = [tts.run(request) for request in requests]
    config = tts.config.talker_config
    row = MIN_CAPACITY * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    monkeypatch.setattr(tts.scheduler, "memory", 3 * row)
    begun = spy(Batch, "begin")
    with pytest.warns(
        RuntimeWarning,
        match="batch_size 6: the .* GB for keys and values hold 3 at a time of requests of up to 6 frames",
    ) as told:
        results = tts.synthesize_batch(requests, batch_size=6)
    assert len(told) == 1
    assert max(row_counts(begun)) == 2, "three would take four slots"
    for found, expected in zip(results, alone, strict=True):
        assert_equal(found, expected)
    tts.batch_memory = 1
    assert tts.batch_memory == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(tts.synthesize_batch(requests[:1], batch_size=1)[0], alone[0])
    assert max(row_counts(begun)) == 2
    with pytest.raises(RequestError, match="batch_memory must be"):
        tts.batch_memory = 0


def test_a_long_request_waits_for_memory(tts, monkeypatch, spy):
    """Its keys and values would double those of all rows."""
    short = Request("Hello", seed=1, max_frames=8)
    long = Request("Hello", seed=2, max_frames=300, stop_runaway=False)
    config = tts.config.talker_config
    row = MIN_CAPACITY * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    monkeypatch.setattr(tts.scheduler, "memory", 2 * row)
    begun = spy(Batch, "begin")
    listener = BatchListener(tts.scheduler, [short, long], 2)
    chunks = listener.chunks()
    frames = [0, 0]
    with pytest.warns(RuntimeWarning, match="batch_size 2: .* hold 1 at a time of requests of up to 300 frames"):
        for index, _, chunk in chunks:
            frames[index] += len(chunk.codes)
            if index == 1:
                break
    assert frames[0] == 8, "the short one has ended"
    assert frames[1] > 0
    chunks.close()
    assert max(row_counts(begun)) == 1


def test_more_streams_than_slots(tts, spy):
    """Rows whose listeners are busy elsewhere give up their slots, and come back where they were."""
    calls = [dict(text="Hello world", seed=seed, max_frames=6, stop_runaway=False) for seed in range(MAX_ROWS + 2)]
    alone = [tts.synthesize(**call) for call in calls]
    streams = [tts.stream(**call, chunk_frames=1 + seed % 2) for seed, call in enumerate(calls)]
    parked = spy(Batch, "take")
    codes = [[] for _ in streams]
    for _ in range(7):
        for stream, made in zip(streams, codes, strict=True):
            chunk = next(stream, None)
            if chunk is not None:
                made.append(chunk.codes)
    for made, one in zip(codes, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(made), one.codes)
    assert parked
    assert tts.scheduler.count == 0


def test_cancelling_frees_the_slot_at_the_next_frame(tts, spy):
    begun = spy(Batch, "begin")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(tts.synthesize, "Hello world", seed=1, max_frames=60, stop_runaway=False)
        stream = tts.stream("Hello", seed=2, max_frames=300, chunk_frames=1, stop_runaway=False)
        for _ in range(3):
            next(stream)
        stream.close()
        on_mlx_thread(tts, begun.clear)
        other.result()
    assert set(row_counts(begun)) == {1}


def test_a_listener_that_does_not_listen_does_not_delay_others(tts):
    """Its row waits after the chunk that it asked for and one more."""
    lazy = tts.stream("Hello", seed=2, max_frames=12, chunk_frames=2, stop_runaway=False)
    first = next(lazy)
    other = tts.synthesize("Hello world", seed=1, max_frames=12, stop_runaway=False)
    assert len(other.codes) == 12
    assert tts.scheduler.frames_of_rows() == [5], "and a frame while the chunk was decoded"
    rest = list(lazy)
    codes = np.concatenate([chunk.codes for chunk in [first, *rest]])
    whole = tts.synthesize("Hello", seed=2, max_frames=12, stop_runaway=False)
    np.testing.assert_array_equal(codes, whole.codes)


def test_a_runaway_is_generated_once_more(tts, monkeypatch):
    """As by `synthesize`: if the request has no seed, with the seed that follows."""
    monkeypatch.setattr("secrets.randbits", lambda bits: 41)
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 2)
    requests = [
        Request(text, frames_per_token=0.5, seed=seed)
        for text, seed in (("Hello world", None), (iter(["Hello ", "world"]), None), ("Hello world", 5))
    ]
    asked = []

    def as_after_a_runaway(request, last, text):
        asked.append(last.seed)
        return second_attempt(request, replace(last, finish_reason="runaway"), text)

    second_attempt = listen.second_attempt
    monkeypatch.setattr(listen, "second_attempt", as_after_a_runaway)
    results = tts.synthesize_batch(requests)
    assert [result.seed for result in results] == [retry_seed(41), retry_seed(41), 5]
    assert sorted(asked) == [5, 41, 41]
    again = [
        Request("Hello world", frames_per_token=0.5, seed=retry_seed(41), non_streaming_mode=mode)
        for mode in (None, False)
    ]
    for found, request in zip(results, again, strict=False):
        np.testing.assert_array_equal(found.codes, tts.run(request).codes)


def test_chunk_frames_has_no_effect_on_whole_results(tts):
    with pytest.raises(RequestError, match="chunk_frames has no effect on synthesize"):
        tts.synthesize_batch([Request("Hello", chunk_frames=4)])


def test_unloading_ends_all_rows(tmp_path):
    tts = Qwen3TTS.from_pretrained(checkpoints.write(tmp_path / "c", "projected"))
    stream = tts.stream_batch([Request("Hello", seed=i, stop_runaway=False) for i in range(4)])
    next(stream)
    tts.unload()
    with pytest.raises(BatchError, match=r"request \d failed: the model was unloaded"):
        list(stream)


def test_an_error_of_mlx_ends_all_rows(tts, monkeypatch):
    """After the audio so far, in each thread; the next request is served."""
    step = FrameFunctions.step
    calls = []

    def failing(self, *args):
        calls.append(len(args[0]))
        if len(calls) == 6:
            raise RuntimeError("out of memory")
        return step(self, *args)

    finish = Batch.finish
    collected = []

    def noted(self, flight):
        frames = finish(self, flight)
        collected.extend(frames)
        return frames

    requests = [Request("Hello world", seed=i, max_frames=12, stop_runaway=False) for i in range(3)]
    alone = [tts.run(request).codes for request in requests]
    errors = {}
    codes = [[], [], []]
    with monkeypatch.context() as patch:
        patch.setattr(FrameFunctions, "step", failing)
        patch.setattr(Batch, "finish", noted)
        for index, chunk in tts.stream_batch(requests, on_error=errors.__setitem__):
            codes[index].append(chunk.codes)
    assert set(errors) == {0, 1, 2}
    for found, expected in zip(codes, alone, strict=True):
        found = np.concatenate(found)
        assert 0 < len(found) < 9
        np.testing.assert_array_equal(found, expected[: len(found)])
    assert sum(len(found) for chunks in codes for found in chunks) == len(collected), "every frame before the error"
    assert len(tts.synthesize("Hello", seed=1, max_frames=3).codes) == 3
    assert mx.get_cache_memory() == 0


def test_requests_in_order(tts):
    """Chunks come request by request, however the requests end; the window bounds how far the work runs ahead."""
    lengths = [30, 2, 2, 2, 2, 2]
    began = []

    def requests():
        for i, length in enumerate(lengths):
            began.append(i)
            yield Request("Hello world", seed=i, max_frames=length, stop_runaway=False)

    listener = BatchListener(tts.scheduler, requests(), 2, window=4)
    order = []
    for index, _, chunk in listener.chunks_in_order():
        if index == 0 and not chunk.is_final:
            assert max(began) < 4
        order.append(index)
    assert order == sorted(order)
    assert set(order) == set(range(6))
    assert listener.frames == sum(lengths)


def test_requests_on_the_mlx_thread_itself(tts):
    """The work is done there while the request waits for it."""
    request = Request("Hello world", seed=3, max_frames=5)
    found = on_mlx_thread(tts, tts.run, request)
    np.testing.assert_array_equal(found.codes, tts.run(request).codes)


@pytest.mark.parametrize(
    "info, expected",
    [({"max_recommended_working_set_size": 8, "memory_size": 16}, 8), ({"total_memory": 80}, 80), ({}, None)],
)
def test_the_memory_of_a_device(monkeypatch, info, expected):
    """Metal recommends a limit, CUDA names the GPU's memory; the CPU has the system's."""
    monkeypatch.setattr(mx, "device_info", lambda _device: info)
    found = device_memory(mx.Device(mx.cpu))
    assert found == expected if expected is not None else found > 2**28


def test_the_runaway_detector_acts_per_row(tts, monkeypatch):
    """Two rows fall silent at the same frame; each ends by its own limit, as it does alone."""
    decode = Codec.decode_async
    samples = tts.codec.samples_per_frame

    def silent_after_five_frames(codec, codes, state=None):
        start, state = state or (0, None)
        wait, state = decode(codec, codes, state)
        gain = np.repeat(np.arange(start, start + len(codes)) < 5, samples).astype(np.float32)
        return lambda: wait() * gain, (start + len(codes), state)

    monkeypatch.setattr(Codec, "decode_async", silent_after_five_frames)
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SILENCE_BUFFERED", 2)
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.FRAMES_PER_SECOND", 2.5)  # 10 and 5 frames of silence
    requests = [Request("Hello", seed=1, max_silence=4), Request("Hello", seed=1, max_silence=2)]
    requests.append(Request("Hello", seed=1, max_frames=18, stop_runaway=False))
    alone = [tts.run(request) for request in requests]
    assert [one.finish_reason for one in alone] == ["runaway", "runaway", "length"]
    frames = {}
    for index, chunk in tts.stream_batch([replace(request, chunk_frames=1) for request in requests]):
        if chunk.is_final:
            frames[index] = (chunk.finish_reason, chunk.timing.frames)
    assert [frames[i] for i in range(3)] == [(one.finish_reason, len(one.codes)) for one in alone]
    order = list(frames)
    assert order.index(1) < order.index(0)


def test_the_timing_is_the_time_that_passes(tts, monkeypatch):
    """A row waits for the codec's work on all others, which is the larger part here."""
    decode = Codec.decode_async

    def slow(codec, codes, state=None):
        wait, state = decode(codec, codes, state)

        def wait_longer():
            time.sleep(0.02)
            return wait()

        return wait_longer, state

    monkeypatch.setattr(Codec, "decode_async", slow)
    began = time.perf_counter()
    requests = [Request("Hello", seed=seed, max_frames=12, chunk_frames=2) for seed in range(6)]
    for _, chunk in tts.stream_batch(requests):
        passed = time.perf_counter() - began
        if chunk.is_final:
            assert 0.8 * passed < chunk.timing.total <= passed
            assert chunk.timing.decode < 0.5 * chunk.timing.total
