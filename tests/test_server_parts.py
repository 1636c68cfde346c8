"""Parts of the server by themselves: the gate, the pushed speech, models that come and go."""

import asyncio
import base64
import errno
import os
import signal
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

import pytest

from mlx_qwen3_tts import Qwen3TTS, Request, RequestError
from mlx_qwen3_tts.audio.encode import StreamEncoder
from mlx_qwen3_tts.errors import CheckpointError
from mlx_qwen3_tts.generation.push import PushedSpeech
from mlx_qwen3_tts.generation.speech import RUN_AHEAD
from mlx_qwen3_tts.result import AudioChunk, SynthesisResult
from mlx_qwen3_tts.server import speech
from mlx_qwen3_tts.server.app import page_files
from mlx_qwen3_tts.server.gate import Gate, QueueFull
from mlx_qwen3_tts.server.metrics import Metrics
from mlx_qwen3_tts.server.models import LoadOptions, Models, describe
from mlx_qwen3_tts.server.problem import Problem, fault
from mlx_qwen3_tts.server.protocol import parse_call
from mlx_qwen3_tts.server.reply import Hangup, Patience, SpeechEncoder
from mlx_qwen3_tts.server.run import listen, run_server, serve_until
from mlx_qwen3_tts.server.service import Service
from mlx_qwen3_tts.server.settings import Settings
from mlx_qwen3_tts.server.speech import SpeechStream, whole_speech
from mlx_qwen3_tts.server.utterance import LiveText
from mlx_qwen3_tts.server.voices import Voices
from mlx_qwen3_tts.server.workers import FAST_THREADS, SLOW_THREADS, Workers
from tests.support import checkpoints
from tests.support.server import eventually


def test_the_gate_serves_in_order_and_refuses():
    async def run():
        gate = Gate(1, 2)
        order = []

        async def visit(name, **options):
            await gate.enter(**options)
            order.append(name)

        await visit("a")
        waiting = [asyncio.ensure_future(visit(name)) for name in "bc"]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await gate.enter()
        waiting.append(asyncio.ensure_future(visit("d", patient=True)))
        waiting.append(asyncio.ensure_future(visit("e", patient=True, first=True)))
        await asyncio.sleep(0)
        waiting[0].cancel()  # b leaves the queue
        for _ in range(3):
            gate.leave()
            await asyncio.sleep(0.001)
        assert order == ["a", "e", "c", "d"]
        assert (gate.inside, gate.waiting) == (1, 0)

    asyncio.run(run())


@pytest.mark.parametrize("cancel_first", [True, False])
def test_a_place_that_comes_with_a_cancellation_is_not_lost(cancel_first):
    async def run():
        gate = Gate(1, 5)
        await gate.enter()
        waits = asyncio.ensure_future(gate.enter())
        await asyncio.sleep(0)
        actions = [waits.cancel, gate.leave]
        for action in actions if cancel_first else reversed(actions):
            action()
        await asyncio.gather(waits, return_exceptions=True)
        assert (gate.inside, gate.waiting) == (0, 0)

    asyncio.run(run())


def pushed(tts, request: Request, count: int = 1000) -> tuple[PushedSpeech, SimpleQueue]:
    messages: SimpleQueue = SimpleQueue()
    speech = PushedSpeech(tts.scheduler, request, messages.put)
    speech.ask(count)
    speech.start()
    return speech, messages


def chunks_of(messages: SimpleQueue) -> list[AudioChunk]:
    chunks = [messages.get(timeout=30)]
    while not chunks[-1].is_final:
        chunks.append(messages.get(timeout=30))
    return chunks


def test_pushed_speech_is_the_same(demo):
    request = Request("hello", seed=3, max_frames=8)
    _, messages = pushed(demo, request)
    assert (SynthesisResult.from_chunks(chunks_of(messages)).audio == demo.run(request).audio).all()


def test_pushed_speech_of_a_live_text(demo):
    changes = []
    messages: SimpleQueue = SimpleQueue()
    request = Request(iter(["hello ", "this ", "is"]), seed=3, max_frames=8)
    speech = PushedSpeech(demo.scheduler, request, messages.put, changes.append)
    speech.start()
    speech.ask(1000)
    found = SynthesisResult.from_chunks(chunks_of(messages)).audio
    assert (found == demo.run(Request(iter(["hello this is"]), seed=3, max_frames=8)).audio).all()
    assert changes == [True, False] * (len(changes) // 2)
    assert speech.text_tokens > 0


def test_no_more_is_made_than_was_asked_for(demo):
    speech, messages = pushed(demo, Request("hello", seed=3, max_frames=200, stop_runaway=False, chunk_frames=1), 3)
    assert eventually(lambda: messages.qsize() >= 4)
    assert not eventually(lambda: messages.qsize() > 5, 0.3)  # one ahead, and one that was under way
    speech.cancel()
    assert eventually(lambda: demo.engine.worker.run(lambda: demo.scheduler.count) == 0)


def test_cancelled_before_the_text_is_known(demo):
    release = threading.Event()

    def text():
        release.wait(10)
        yield "hello"

    speech, messages = pushed(demo, Request(text()))
    speech.cancel()
    release.set()
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name == "text"])
    assert demo.engine.worker.run(lambda: demo.scheduler.count) == 0
    assert messages.empty()


def test_a_text_that_breaks_off(demo):
    def text():
        yield "hello this is a longer text "
        raise OSError("gone")

    _, messages = pushed(demo, Request(text(), seed=3))
    found = [messages.get(timeout=30)]
    while not isinstance(found[-1], Exception):
        found.append(messages.get(timeout=30))
    assert str(found[-1]) == "gone"
    assert eventually(lambda: demo.engine.worker.run(lambda: demo.scheduler.count) == 0)


def test_a_slow_client_gives_its_place_to_others_and_comes_back_first(demo, monkeypatch):
    """No more than AHEAD chunks wait; half of them taken, it queues again, even if the queue is full."""
    monkeypatch.setattr(speech, "AHEAD", 4)
    request = Request("hello", seed=3, max_frames=16, stop_runaway=False, chunk_frames=1)

    async def run():
        gate = Gate(1, 0)
        async with SpeechStream(demo, request, gate) as stream:
            chunks = aiter(stream)
            taken = [await anext(chunks)]
            await reached(lambda: gate.inside == 0)
            await gate.enter()
            other = asyncio.ensure_future(gate.enter(patient=True))
            for _ in range(4 // 2 - 1):
                taken.append(await anext(chunks))
            await asyncio.sleep(0.001)
            assert gate.waiting == 1, "the other"
            for _ in range(1 + RUN_AHEAD):  # of the 5 asked for when it paused, and those made beyond
                taken.append(await anext(chunks))
            await asyncio.sleep(0.001)
            assert gate.waiting == 2
            gate.leave()
            await asyncio.sleep(0.001)
            assert (gate.inside, other.done()) == (1, False)
            taken += [chunk async for chunk in chunks]
            assert stream.frames == 16
            assert stream.audio_seconds == pytest.approx(1.28)
            assert stream.first_audio > 0
        await other
        assert (gate.inside, gate.waiting) == (1, 0)
        return taken

    whole = demo.run(replace(request, chunk_frames=None))
    assert (SynthesisResult.from_chunks(asyncio.run(run())).audio == whole.audio).all()


def test_speech_that_waits_for_its_text_takes_a_place_again(demo, spy):
    async def run():
        gate = Gate(1, 0)
        returns = spy(gate, "reenter")
        text = LiveText()
        async with SpeechStream(demo, Request(text, seed=3, max_frames=8, stop_runaway=False), gate) as stream:
            await reached(lambda: gate.inside == 0)
            assert returns == []
            text.add("hello this is a text")
            text.close()
            chunks = [chunk async for chunk in stream]
        assert sum(len(chunk.codes) for chunk in chunks) == 8
        assert returns
        assert (gate.inside, gate.waiting) == (0, 0)

    asyncio.run(run())


def test_speech_of_one_chunk_is_whole(demo):
    async def run():
        return await whole_speech(demo, Request("hello", max_frames=1), Gate(1, 0))

    chunks, stream = asyncio.run(run())
    assert (len(chunks), stream.frames) == (1, 1)


@pytest.mark.parametrize(("size", "is_taken"), [(300, True), (303, False)])
def test_how_large_a_clip_may_be(size, is_taken):
    fields = {"input": "hello", "ref_audio": f"DATA:audio/wav;Base64,{base64.b64encode(bytes(size)).decode()}"}
    try:
        call = parse_call(fields, Settings(max_upload=300), "mp3")
    except Problem as problem:
        assert (problem.status, is_taken) == (413, False)
    else:
        assert (call.clip, is_taken) == (bytes(size), True)


def test_how_large_a_body_may_be():
    """The clip in base64, the text as escapes of JSON, and some more."""
    assert Settings(max_upload=3000, max_text=100).max_body == 4000 + 1600 + 65536


def test_files_of_the_page_say_what_they_are():
    types = {path: response.headers["content-type"].partition(";")[0] for path, response in page_files().items()}
    assert types["/"] == "text/html"
    assert all(kind.endswith("/javascript") for path, kind in types.items() if path.endswith(".js"))
    assert {kind for path, kind in types.items() if path.endswith(".css")} == {"text/css"}


def test_what_is_counted_of_speech():
    metrics = Metrics(Gate(1, 0))
    metrics.count_speech(10, audio_seconds=2.0, seconds=1.0, first_audio=0.25)
    metrics.count_speech(5, audio_seconds=0.0, seconds=1.0, first_audio=0.0)
    lines = (line.split() for line in metrics.text().decode().splitlines() if line[0] != "#")
    counters = {name.removeprefix("mlx_qwen3_tts_"): float(value) for name, value in lines}
    assert (counters["characters_total"], counters["audio_seconds_total"]) == (15, 2)
    assert (counters["first_audio_seconds_sum"], counters["first_audio_seconds_count"]) == (0.25, 2)
    assert (counters["real_time_factor_sum"], counters["real_time_factor_count"]) == (0.5, 1)


async def reached(condition) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it has not come to that")


def run_models(check, sources=("demo", "demo-base", "demo-random"), memory=None) -> list[str]:
    """Run a coroutine function on models; return the log."""
    log: list[str] = []

    async def run():
        models = Models(sources, LoadOptions(), workers, memory, log.append)
        await models.load_default()
        await check(models)
        await models.unload_all()

    workers = Workers()
    try:
        asyncio.run(run())
    finally:
        workers.close()
    return log


def loaded(models: Models) -> list[str]:
    return [served.name for served in models.all if served.tts is not None]


def test_the_least_recently_used_model_is_unloaded(no_warm_up, spy):
    warmed = spy(Qwen3TTS, "warm_up")

    async def check(models):
        first, second, third = models.all
        for served in (second, first):
            async with models.use(served):
                pass
        assert loaded(models) == ["demo", "demo-base"]
        async with models.use(third):
            assert loaded(models) == ["demo", "demo-random"]
        async with models.use(second) as tts:
            assert tts.model_type == "base"

    log = run_models(check, memory=13_000_000)
    assert "unloaded demo-base" in log
    assert len(warmed) == 4


def test_a_model_in_use_is_not_unloaded(no_warm_up):
    async def check(models):
        first, second, _ = models.all
        order = []

        async def use(served, name):
            async with models.use(served):
                order.append(name)

        async with models.use(first) as tts:
            later = [asyncio.ensure_future(use(second, "second"))]
            await asyncio.sleep(0.05)
            later.append(asyncio.ensure_future(use(first, "first again")))  # waits behind it
            await asyncio.sleep(0.05)
            assert loaded(models) == ["demo"]
            assert tts.run(Request("One.", max_frames=1)).finish_reason == "length"
        await asyncio.gather(*later)
        assert order == ["second", "first again"]

    run_models(check, memory=6_000_000)


def test_a_model_that_cannot_be_loaded(tmp_path):
    directory = checkpoints.write(tmp_path / "broken", "projected")
    (directory / "vocab.json").write_text("{")

    async def check(models):
        for _ in range(2):
            with pytest.raises(Problem, match="broken cannot be loaded") as raised:
                async with models.use(models.all[1]):
                    pass
            assert raised.value.status == 500
            assert str(tmp_path) not in raised.value.message

    log = run_models(check, sources=("demo", str(directory)))
    assert any("cannot load broken" in line for line in log)


def test_models_that_are_refused(tmp_path):
    for sources in (("demo", "demo"), ("demo", str(tmp_path / "nothing"))):
        with pytest.raises((RequestError, CheckpointError)):
            Models(sources, LoadOptions(), Workers())
    with pytest.raises(RequestError, match="adapter"):
        Models(("demo", "demo-base"), LoadOptions(adapter="x"), Workers())


def test_memory_is_among_the_metrics():
    names = {line.split()[0] for line in Metrics(Gate(1, 0)).text().decode().splitlines()}
    assert {f"mlx_qwen3_tts_{name}" for name in ("queue", "batch", "memory_bytes", "cache_bytes")} <= names


def served(workers: Workers) -> Service:
    return Service(Settings(), Models(("demo",), LoadOptions(), workers), workers)


def test_where_the_server_listens(monkeypatch):
    """At the first address of a name: the system has the best one first."""
    addresses = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("127.255.255.254", 0))]
    found = [(family, socket.SOCK_STREAM, 0, "", address) for family, address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with listen("localhost", 0) as bound:
        host, port = bound.getsockname()
    assert host == "127.0.0.1"
    assert port > 0


def test_why_the_server_cannot_listen():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError) as raised:
            listen("127.0.0.1", port)
    reason = os.strerror(errno.EADDRINUSE)
    assert str(raised.value) == f"cannot listen at 127.0.0.1:{port}: {reason}; choose another port"


def test_a_server_whose_first_model_cannot_be_loaded_ends(monkeypatch):
    def fail(*_):
        raise CheckpointError("it is damaged")

    monkeypatch.setattr("mlx_qwen3_tts.server.models.load", fail)

    async def run():
        stop = asyncio.Event()
        await serve_until(stop, served(Workers()), bound, ready=stop.set)

    with listen("127.0.0.1", 0) as bound, pytest.raises(CheckpointError, match="it is damaged"):
        asyncio.run(run())


def test_signals_are_what_they_were_after_the_end(monkeypatch):
    async def load_nothing(models):
        pass

    def others(number, frame):
        raise AssertionError("the server was to heed the signal")

    monkeypatch.setattr(Models, "load_default", load_nothing)
    before = signal.signal(signal.SIGTERM, others)
    try:
        with listen("127.0.0.1", 0) as bound:
            run_server(served(Workers()), bound, ready=partial(signal.raise_signal, signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is others
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("name", "threads"), [("fast", FAST_THREADS), ("slow", SLOW_THREADS)])
def test_closing_waits_for_no_work(name, threads):
    """What is under way goes on, what waits is dropped, and nothing more is taken."""
    workers = Workers()
    closed = threading.Event()
    run_on_thread = getattr(workers, name)

    async def run():
        work = [asyncio.ensure_future(run_on_thread(partial(closed.wait, 2))) for _ in range(threads + 1)]
        await asyncio.sleep(0)
        workers.close()
        closed.set()
        *under_way, waiting = await asyncio.gather(*work, return_exceptions=True)
        assert under_way == [True] * threads
        assert isinstance(waiting, asyncio.CancelledError)
        with pytest.raises(RuntimeError, match="after shutdown"):
            await run_on_thread(closed.is_set)

    asyncio.run(run())


def test_reading_a_live_text_ends_when_the_text_is_closed():
    text = LiveText()
    pieces = []
    reader = threading.Thread(target=lambda: pieces.extend(text), daemon=True)
    reader.start()
    text.add("One ")
    text.add("text.")
    text.close()
    reader.join(2)
    assert not reader.is_alive()
    assert pieces == ["One ", "text."]


def test_work_goes_on_until_the_client_leaves():
    async def work_while(*messages):
        coming = list(messages)

        async def receive():
            await asyncio.sleep(0 if coming else 10)
            return {"type": coming.pop(0)}

        patience = Patience(receive, 5, asyncio.Event())
        try:
            return await patience.during(asyncio.sleep(0.02, "done"))
        finally:
            patience.close()

    assert asyncio.run(work_while("http.request")) == "done"
    with pytest.raises(Hangup):
        asyncio.run(work_while("http.request", "http.disconnect"))


def test_work_that_is_ended_has_ended():
    """What it holds is free before the client is told."""
    ended = []

    async def work():
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def run():
        patience = Patience(None, 0.01, asyncio.Event())
        with pytest.raises(Problem, match="the time limit"):
            await patience.during(work())
        assert ended
        patience.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "takes_long"),
    [({"response_format": "wav"}, False), ({"response_format": "mp3"}, True),
     ({"response_format": "pcm", "speed": 1.5}, True)],
)  # fmt: skip
def test_what_takes_long_is_encoded_on_a_thread(demo, monkeypatch, fields, takes_long):
    names = set()
    write = StreamEncoder.write

    def noted(encoder, audio):
        names.add(threading.current_thread().name)
        return write(encoder, audio)

    monkeypatch.setattr(StreamEncoder, "write", noted)
    (chunk,) = demo.stream_request(Request("hello", max_frames=1))
    workers = Workers()
    encoder = SpeechEncoder(parse_call({"input": "hello", **fields}, Settings(), "mp3"), 24000, workers)
    assert asyncio.run(encoder.write(chunk))
    workers.close()
    assert names == {"server_0" if takes_long else threading.current_thread().name}


def test_a_place_that_was_taken_again_is_given_back(demo, monkeypatch):
    monkeypatch.setattr(speech, "AHEAD", 2)

    async def run():
        gate = Gate(8, 0)
        request = Request("hello", seed=3, max_frames=8, stop_runaway=False, chunk_frames=1)
        async with SpeechStream(demo, request, gate) as stream:
            chunks = aiter(stream)
            await anext(chunks)
            await reached(lambda: gate.inside == 0)
            async for _ in chunks:
                assert gate.inside <= 1
        assert (gate.inside, gate.waiting) == (0, 0)

    asyncio.run(run())


def test_a_voice_of_a_model_without_voices(tmp_path, server_voices, monkeypatch):
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(server_voices))
    directory = checkpoints.write(tmp_path / "design", "projected", "voice_design")
    workers = Workers()
    voices = Voices(Models((str(directory),), LoadOptions(), workers), Settings(), workers)
    with pytest.raises(Problem, match="describe one with instructions, and leave voice empty") as raised:
        voices.choose(parse_call({"input": "hello", "voice": "slt"}, Settings()))
    assert (raised.value.status, raised.value.code) == (400, "voice_not_found")


@pytest.mark.parametrize("with_message", [True, False])
def test_what_is_logged_of_a_fault(with_message):
    """Where it was raised, and what it says only if texts are logged."""
    message = "a text of a request"
    try:
        raise RuntimeError(message)
    except RuntimeError as error:
        logged = fault(error, with_message)
    assert "RuntimeError" in logged
    assert "in test_what_is_logged_of_a_fault" in logged
    assert (message in logged) is with_message


def test_a_download_shows_its_progress(tmp_path, monkeypatch):
    directory = checkpoints.write(tmp_path / "model", "projected")
    asked = []

    @contextmanager
    def download(source, **options):
        asked.append((source, options))
        yield directory

    monkeypatch.setattr("mlx_qwen3_tts.server.models.resolve", download)
    assert describe("some/model", LoadOptions(revision="v1")).name == "some/model"
    assert asked == [("some/model", {"progress": True, "revision": "v1"})]


def test_a_model_waits_for_room_without_looking_all_the_time(no_warm_up):
    """That would stop the event loop."""

    class Counted(list):
        looks = 0

        def __iter__(self):
            self.looks += 1
            assert self.looks < 50
            return super().__iter__()

    async def use(models, served):
        async with models.use(served):
            return loaded(models)

    async def check(models):
        models.all = Counted(models.all)
        first, second, _ = models.all
        async with models.use(first):
            later = asyncio.ensure_future(use(models, second))
            await asyncio.sleep(0.02)
        assert await later == ["demo-base"]

    run_models(check, memory=6_000_000)


@pytest.mark.parametrize(
    "options",
    [{"language": "english", "seed": 2, "max_frames": 3, "non_streaming_mode": False},
     {"frames_per_token": 2.0, "max_silence": 9.0}, {"stop_runaway": False}],
)  # fmt: skip
def test_every_option_of_a_request_is_taken(options):
    """Under its own name, unless HTTP has another form for it; `null` counts as absent."""
    call = parse_call({"input": "hello", "chunk_frames": 3, **options}, Settings())
    assert call.request(None) == Request("hello", **options)
    assert call.ignored == ("chunk_frames",)
    assert parse_call({"input": "hello", **dict.fromkeys(options)}, Settings()).request(None) == Request("hello")


@pytest.mark.parametrize(("models", "listed"), [(("demo",), "slt, rms"), (("demo", "demo-base"), "slt, rms, anna")])
def test_saved_voices_are_named_if_a_base_model_is_served(tmp_path, monkeypatch, models, listed):
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path))
    (tmp_path / "anna.safetensors").touch()
    workers = Workers()
    voices = Voices(Models(models, LoadOptions(), workers), Settings(), workers)
    with pytest.raises(Problem) as raised:
        voices.choose(parse_call({"input": "hello", "voice": "nobody"}, Settings()))
    assert str(raised.value).endswith(f"this server has: {listed}")
