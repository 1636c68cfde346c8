"""The speech endpoint, through OpenAI's own client, curl and httpx, against a real server."""

import asyncio
import base64
import json
import shutil
import socket
import subprocess
import threading
import time
from functools import cache

import httpx
import numpy as np
import openai
import pytest
from websockets.sync.client import connect

from mlx_qwen3_tts import Request
from mlx_qwen3_tts.audio.formats import pcm16
from mlx_qwen3_tts.generation.push import PushedSpeech
from mlx_qwen3_tts.server import protocol, speech as server_speech
from mlx_qwen3_tts.server.gate import QueueFull
from mlx_qwen3_tts.server.workers import SMALL
from tests.support.server import LONG, SPEECH, TEXT, decoded, eventually, exact, running

FORMATS = ("mp3", "wav", "flac", "opus", "aac", "pcm")
MEDIA_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg", "aac": "audio/aac"}


@pytest.fixture
def client(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@cache
def alone(server, **options) -> np.ndarray:
    """The audio of a request that the library speaks alone. It is made once."""
    model = server.model(options.pop("model", "demo"))
    return model.run(Request(TEXT, **options)).audio


def test_the_speech_is_the_librarys(server, client):
    said = client.audio.speech.create(
        model="demo", voice="slt", input=TEXT, response_format="pcm", extra_body={"seed": 7, "language": "English"}
    )
    assert said.content == pcm16(alone(server, voice="slt", seed=7, language="english"))
    other = client.audio.speech.create(
        model="tts-1", voice={"id": "RMS"}, input=TEXT, response_format="pcm", extra_body={"seed": 7}
    )
    assert other.content == pcm16(alone(server, voice="rms", seed=7))


@pytest.mark.parametrize("response_format", FORMATS)
def test_format(server, client, response_format, tmp_path):
    """A file of each format is whole, and its beginning can be played while the rest is not there."""
    path = tmp_path / "speech"
    options = {"model": "demo", "voice": "slt", "input": TEXT, "extra_body": {"seed": 7}}
    with client.audio.speech.with_streaming_response.create(**options, response_format=response_format) as response:
        assert response.headers["content-type"] == MEDIA_TYPES.get(response_format, "audio/pcm")
        assert response.headers["x-seed"] == "7"
        response.stream_to_file(path)
    data = path.read_bytes()
    expected = alone(server, voice="slt", seed=7)
    audio, rate = decoded(data, response_format)
    assert abs(len(audio) / rate - len(expected) / 24000) < 0.15
    if response_format in ("wav", "flac", "pcm"):
        assert exact(audio) == pcm16(expected)
    beginning, _ = decoded(data[: len(data) // 2], response_format)
    assert len(beginning) > 0.3 * len(audio)


def test_mp3_is_the_default(client):
    assert client.audio.speech.create(model="demo", voice="slt", input=TEXT).content[:2] in (b"\xff\xf3", b"\xff\xfb")


@pytest.mark.parametrize("response_format", FORMATS)
def test_audio_comes_while_more_is_made(server, response_format):
    """Some bytes can be played when most of the speech is still to be generated."""
    with server.client.stream("POST", SPEECH, json={**LONG, "response_format": response_format}) as response:
        got = b""
        parts = response.iter_raw()
        while len(decoded(got, response_format)[0] if len(got) > 2000 else ()) < 2400:
            got += next(parts)
        assert server.requests_under_way() == 1
        assert server.service.gate.inside == 1


def test_asynchronous_clients_stream_side_by_side(server):
    """Each of four concurrent responses is what the request gets alone."""

    async def speak(client, seed):
        create = client.audio.speech.with_streaming_response.create
        options = {"model": "demo", "voice": ("slt", "rms")[seed % 2], "response_format": "pcm"}
        async with create(**options, input=TEXT, extra_body={"seed": seed, "max_frames": 6}) as response:
            return b"".join([part async for part in response.iter_bytes()])

    async def speak_all():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await asyncio.gather(*(speak(client, seed) for seed in range(4)))

    together = asyncio.run(speak_all())
    voices = ("slt", "rms") * 2
    assert together == [pcm16(alone(server, voice=voices[seed], seed=seed, max_frames=6)) for seed in range(4)]


def test_events(server, client):
    options = {"model": "demo", "voice": "slt", "input": TEXT, "response_format": "pcm", "stream_format": "sse"}
    with client.audio.speech.with_streaming_response.create(**options, extra_body={"seed": 7}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    *deltas, done = events
    assert len(deltas) > 3
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    expected = alone(server, voice="slt", seed=7)
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == pcm16(expected)
    assert done["type"] == "speech.audio.done"
    assert done["usage"]["output_tokens"] == len(expected) // 1920
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"]


def test_speed(server, client):
    whole = len(alone(server, seed=7, max_frames=8))
    for speed in (0.5, 2.0):
        options = {"model": "demo", "voice": "slt", "input": TEXT, "response_format": "pcm", "speed": speed}
        said = client.audio.speech.create(**options, extra_body={"seed": 7, "max_frames": 8}).content
        assert abs(len(said) / 2 - whole / speed) <= 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server, tmp_path):
    path = tmp_path / "speech.wav"
    command = ["curl", "-sS", "-f", f"{server.url}{SPEECH}", "-H", "Content-Type: application/json", "-o", path]
    body = {"input": TEXT, "response_format": "wav", "seed": 7}
    subprocess.run([*command, "-d", json.dumps(body)], check=True, timeout=60)
    assert exact(decoded(path.read_bytes(), "wav")[0]) == pcm16(alone(server, seed=7))


def test_options_reach_the_request(server):
    """Sampling, limits and layout, under the names of vLLM-Omni and our own."""
    options = {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": 6, "non_streaming_mode": False}
    said = server.speak(response_format="pcm", **options)
    assert len(said.content) == 5 * 1920 * 2
    assert server.speak(response_format="pcm", max_frames=3, temperature=0.5, top_k=3, seed=1).status_code == 200
    assert (
        server.speak(response_format="pcm", temperature=0.5, do_sample=False).json()["error"]["param"] == "temperature"
    )


def test_unknown_fields_are_named_and_null_is_not_given(server):
    said = server.speak(response_format="pcm", lang_code="a", stream=True, voice=None, instructions=None)
    assert said.status_code == 200
    assert said.headers["x-ignored-fields"] == "lang_code"


ERRORS = [
    ({"input": 3}, 422, "input", "must be a string"),
    ({"input": None}, 422, "input", "missing"),
    ({"input": ""}, 400, "input", "the text is empty"),
    ({"input": "x" * 4097}, 400, "input", "4097 characters and the limit is 4096"),
    ({"input": "\ud800"}, 400, "input", "Unicode"),
    ({"voice": "nobody"}, 400, "voice", "unknown voice 'nobody'; this server has: slt, rms"),
    ({"voice": "slf"}, 400, "voice", "unknown voice 'slf': did you mean slt? This server has: slt, rms"),
    ({"voice": "alloy"}, 400, "voice", "--voice-alias alloy=NAME"),
    ({"voice": ["slt"]}, 422, "voice", "must be a string"),
    ({"voice": {"name": "slt"}}, 422, "voice", '"id"'),
    ({"voice": "../../etc/passwd"}, 400, "voice", "unknown voice"),
    ({"model": "gpt-4o"}, 404, "model", "unknown model 'gpt-4o'; this server has: demo, demo-base, demo-random"),
    ({"model": "demo-bass"}, 404, "model", "did you mean demo-base?"),
    ({"model": "/etc"}, 404, "model", "unknown model"),
    ({"speed": 5}, 400, "speed", "from 0.25 to 4"),
    ({"speed": True}, 400, "speed", "from 0.25 to 4"),
    ({"response_format": "ogg"}, 400, "response_format", "mp3, wav, flac, opus, aac, pcm"),
    ({"stream_format": "chunks"}, 400, "stream_format", "audio, sse"),
    ({"language": "Klingon"}, 400, "language", "unknown language 'Klingon'"),
    ({"language": "Englisch"}, 400, "language", "did you mean english?"),
    ({"instructions": "Calmly."}, 400, "instructions", "takes no instructions"),
    ({"task_type": "Music"}, 422, "task_type", "CustomVoice"),
    ({"task_type": "VoiceDesign"}, 400, "model", "VoiceDesign"),
    ({"task_type": "Base", "model": "demo"}, 400, "task_type", "CustomVoice"),
    ({"model": "demo-base"}, 400, "voice", "cloned voices only"),
    ({"seed": -1}, 400, "seed", "whole number"),
    ({"seed": "1"}, 400, "seed", "whole number"),
    ({"top_p": 0}, 400, "top_p", "above 0"),
    ({"max_new_tokens": 1}, 400, "max_new_tokens", "above 1"),
    ({"ref_text": "Hello."}, 400, "ref_text", "ref_audio"),
    ({"ref_audio": "https://example.com/x.wav"}, 400, "ref_audio", "data URL"),
    ({"ref_audio": "file:///etc/passwd"}, 400, "ref_audio", "data URL"),
    ({"ref_audio": "data:audio/wav;base64,!!"}, 400, "ref_audio", "base64"),
    (
        {"ref_audio": "data:audio/wav;base64,AAAA"},
        400,
        "ref_audio",
        "cannot be read as audio (Format not recognised.);",
    ),
]


@pytest.mark.parametrize("fields, status, param, message", ERRORS, ids=[str(e[0])[:40] for e in ERRORS])
def test_error(server, fields, status, param, message):
    body = json.dumps({"input": TEXT, **fields})
    response = server.client.post(SPEECH, content=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert server.logged().startswith(f"POST {SPEECH} {status}: ")
    for value in fields.values():  # nothing of the request is logged
        assert not isinstance(value, str) or len(value) < 4 or value not in server.logged()


def test_errors_of_openais_client(server, client):
    with pytest.raises(openai.BadRequestError, match="unknown voice 'x'"):
        client.audio.speech.create(model="demo", voice="x", input=TEXT)
    with pytest.raises(openai.NotFoundError, match="unknown model"):
        client.audio.speech.create(model="x", voice="slt", input=TEXT)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b'{"input": NaN}', b"[" * 100_000, b"9" * 5000])
def test_invalid_json(server, body):
    response = server.client.post(SPEECH, content=body)
    assert response.status_code in (400, 422)
    assert response.json()["error"]["message"].startswith("the body")


@pytest.mark.parametrize("fields", ['"input": [' + "1," * 2**20 + "1]", ",".join(f'"k{i}":1' for i in range(2**20))])
def test_a_body_of_many_values(server, fields):
    """Its parsing would hold up all others, in whichever thread: the interpreter's lock is held meanwhile."""
    began = time.perf_counter()
    response = server.client.post(SPEECH, content="{" + fields + "}")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "too_large")
    assert time.perf_counter() - began < 2


def test_many_unknown_fields(server):
    fields = {f"k{i}": None if i % 2 else 1 for i in range(2**15)}
    assert server.speak(**fields, response_format="pcm", max_frames=2).headers["x-ignored-fields"].startswith("k0, k2")


def test_large_bodies_are_parsed_on_a_thread(server, monkeypatch):
    names = []
    parse = protocol.json.loads

    def noted(*args, **options):
        names.append(threading.current_thread().name.rpartition("_")[0])
        return parse(*args, **options)

    monkeypatch.setattr(protocol.json, "loads", noted)
    padding = " " * SMALL
    for path, body in ((SPEECH, {"input": 1}), (f"{SPEECH}/batch", {"items": []})):
        for text in (json.dumps(body), json.dumps(body) + padding):
            assert server.client.post(path, content=text).status_code == 422
    with connect(server.socket_url) as socket:
        socket.send(json.dumps({"type": "input.text", "text": 1}) + padding)
        assert "text must be a string" in socket.recv(timeout=10)
    on_threads = [name == "server" for name in names]
    assert on_threads == [False, True, False, True, True]


def test_other_paths_and_methods(server):
    refused = (("GET", "/v1/nothing", 404), ("GET", "/health/", 404), ("GET", SPEECH, 405), ("PUT", "/v1/models", 405))
    for method, path, status in refused:
        response = server.client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]["message"]
    assert server.client.get("/../server/app.py").status_code == 404
    assert "<html" in server.client.get("/").text


def test_a_body_that_is_too_large(server):
    limit = server.service.settings.max_body
    response = server.client.post(SPEECH, content=b" " * (limit + 1))
    assert response.status_code == 413
    parts = (b" " * 2**20 for _ in range(limit // 2**20 + 2))  # without a length in the header
    with pytest.raises((httpx.ReadError, httpx.WriteError, AssertionError)) as raised:
        assert server.client.post(SPEECH, content=parts).status_code != 413
    assert raised.type is not None
    assert server.speak(response_format="pcm", max_frames=2).status_code == 200


def test_models(server, client):
    assert [model.id for model in client.models.list().data] == ["demo", "demo-base", "demo-random"]
    assert client.models.retrieve("demo-base").id == "demo-base"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_health_and_metrics(server):
    server.speak(response_format="pcm", max_frames=8)
    assert server.client.get("/health").json() == {"status": "ok", "batch": 0, "queue": 0}
    lines = server.client.get("/metrics").text.splitlines()
    counters = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(counters["mlx_qwen3_tts_audio_seconds_total"]) > 0.5
    assert float(counters["mlx_qwen3_tts_memory_bytes"]) > 1e6
    assert float(counters['mlx_qwen3_tts_requests_total{endpoint="/v1/audio/speech",status="200"}']) >= 1
    assert float(counters["mlx_qwen3_tts_first_audio_seconds_count"]) >= 1
    assert float(counters["mlx_qwen3_tts_real_time_factor_count"]) >= 1


def test_a_batch(server):
    items = [
        {"input": TEXT, "seed": 7},
        {"input": TEXT, "voice": "rms", "response_format": "pcm", "seed": 7},
        {"input": ""},
        {"input": TEXT, "voice": "nobody"},
        3,
    ]
    body = server.client.post(f"{SPEECH}/batch", json={"items": items, "voice": "slt"}).json()
    first, second, *failed = body["results"]
    audio = pcm16(alone(server, voice="slt", seed=7))
    data = base64.b64decode(first["audio_data"])
    assert data[44:] == audio
    assert int.from_bytes(data[40:44], "little") == len(audio)
    assert first["media_type"] == "audio/wav"
    assert first["usage"]["output_tokens"] * 3840 == len(audio)
    assert base64.b64decode(second["audio_data"]) == pcm16(alone(server, voice="rms", seed=7))
    assert [result["status"] for result in failed] == ["error"] * 3
    assert "unknown voice" in failed[1]["error"]
    assert (body["total"], body["succeeded"], body["failed"]) == (5, 2, 3)


def test_a_batch_that_was_let_in_waits_for_its_places(server, monkeypatch):
    monkeypatch.setattr(server.service.gate, "places", 1)
    monkeypatch.setattr(server.service.gate, "queue_size", 0)
    items = [{"input": TEXT, "seed": seed, "max_frames": 2} for seed in range(3)]
    assert server.client.post(f"{SPEECH}/batch", json={"items": items}).json()["succeeded"] == 3


@pytest.mark.parametrize("items", [[], [{"input": "x"}] * 33, "x", None, {}])
def test_a_batch_that_is_refused(server, items):
    assert server.client.post(f"{SPEECH}/batch", json={"items": items}).status_code == 422


def test_a_batch_of_long_texts_is_refused(server):
    items = [{"input": "x" * 4000}] * 5
    assert server.client.post(f"{SPEECH}/batch", json={"items": items}).status_code == 400


def test_a_client_that_leaves_frees_its_row(server):
    with server.client.stream("POST", SPEECH, json=LONG) as response:
        parts = response.iter_raw()  # httpx ends the response if it is dropped
        next(parts)
        assert server.requests_under_way() == 1
    assert eventually(server.is_idle, 2)
    assert server.logged() == f"POST {SPEECH} 200: the client has left"


def test_a_client_that_leaves_the_queue(server, monkeypatch):
    monkeypatch.setattr(server.service.gate, "places", 1)
    with server.client.stream("POST", SPEECH, json=LONG) as first:
        parts = first.iter_raw()  # httpx ends the response if it is dropped
        next(parts)
        with pytest.raises(httpx.ReadTimeout):
            server.client.post(SPEECH, json=LONG, timeout=0.3)
        assert eventually(lambda: server.service.gate.waiting == 0, 2)
        assert server.service.gate.inside == 1


@pytest.mark.slow
def test_a_slow_reader_pauses_and_does_not_delay_others(server, monkeypatch):
    """Its row waits for it, its place is another's, and its audio is the same in the end."""
    monkeypatch.setattr(server_speech, "AHEAD", 3)
    monkeypatch.setattr(server.service.gate, "places", 1)
    request = {**LONG, "max_frames": 80, "speed": 0.25}  # 15 kB a frame, more than the buffers of the connection hold
    expected = server.client.post(SPEECH, json=request).content
    transport = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)])
    with (
        httpx.Client(base_url=server.url, timeout=60, transport=transport) as slow,
        slow.stream("POST", SPEECH, json=request) as response,
    ):
        parts = response.iter_raw()
        got = next(parts)
        assert eventually(lambda: server.service.gate.inside == 0)
        assert server.requests_under_way() == 1
        scheduler = server.model("demo-random").scheduler
        (frames,) = scheduler.engine.worker.run(scheduler.frames_of_rows) or (0,)
        assert server.speak(response_format="pcm", max_frames=2).status_code == 200
        time.sleep(0.2)
        assert (scheduler.engine.worker.run(scheduler.frames_of_rows) or [0])[0] in (
            frames,
            0,
        )  # 0: it gave up its slot
        assert server.requests_under_way() == 1
        got += b"".join(parts)
    assert got == expected


def test_a_client_that_leaves_before_the_first_audio(server, monkeypatch):
    monkeypatch.setattr(PushedSpeech, "start", lambda self: None)  # never begins
    with pytest.raises(httpx.ReadTimeout):
        server.client.post(SPEECH, json=LONG, timeout=0.3)
    assert eventually(server.is_idle, 2)


def test_a_full_queue(server, monkeypatch):
    monkeypatch.setattr(server.service.gate, "places", 1)
    monkeypatch.setattr(server.service.gate, "queue_size", 0)
    with server.client.stream("POST", SPEECH, json=LONG) as first:
        parts = first.iter_raw()  # httpx ends the response if it is dropped
        next(parts)
        for path, body in ((SPEECH, {"input": TEXT}), (f"{SPEECH}/batch", {"items": [{"input": TEXT}]})):
            refused = server.client.post(path, json=body)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 0
            assert refused.json()["error"]["code"] == "queue_full"


def test_first_come_first_served(server, monkeypatch):
    monkeypatch.setattr(server.service.gate, "places", 1)
    order = []

    async def speak(client, number):
        await asyncio.sleep(0.05 * number)
        body = {"input": TEXT, "response_format": "pcm", "seed": 7, **({"max_frames": 2} if number else {})}
        await client.post(SPEECH, json=body)
        order.append(number)

    async def speak_all():
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            await asyncio.gather(*(speak(client, number) for number in range(4)))

    asyncio.run(speak_all())
    assert order == [0, 1, 2, 3]


def test_text_is_logged_only_if_that_was_asked_for(server):
    server.speak(response_format="pcm", max_frames=2)
    assert "is ten" not in "".join(server.log)
    assert server.logged().startswith(f"POST {SPEECH} 200: 10 characters, ")
    with running(models=("demo",), log_text=True) as talkative:
        talkative.speak(response_format="pcm", max_frames=2)
        assert eventually(lambda: "is ten" in talkative.log[-1])


def test_the_time_limit():
    with running(models=("demo-random",), time_limit=2.0) as server:
        with pytest.raises(httpx.RemoteProtocolError), server.client.stream("POST", SPEECH, json=LONG) as response:
            list(response.iter_raw())
        server.wait_until_idle()
        assert server.logged().endswith("503: time_limit")


def test_a_failure_in_the_middle_is_reported(server, monkeypatch):
    """The body breaks off; events say why."""
    model = server.model("demo-random")
    decode = model.codec.decode_async
    calls = []
    secret = "secret"

    def fail(codes, state=None):
        calls.append(1)
        if len(calls) % 3 == 0:
            raise RuntimeError(f"{secret} text of a request")
        return decode(codes, state)

    monkeypatch.setattr(model.codec, "decode_async", fail)
    with pytest.raises(httpx.RemoteProtocolError), server.client.stream("POST", SPEECH, json=LONG) as response:
        list(response.iter_raw())
    server.wait_until_idle()
    assert server.log[-1] == f"POST {SPEECH} 500: refused"
    assert any(entry.startswith(f"{SPEECH}: RuntimeError, raised at:") for entry in server.log)
    assert f"{secret} text" not in "".join(server.log)
    server.log.clear()
    with server.client.stream("POST", SPEECH, json={**LONG, "stream_format": "sse"}) as response:
        last = [line for line in response.iter_lines() if line.startswith("data: ")][-1]
    assert json.loads(last[6:])["type"] == "speech.audio.error"
    assert any("RuntimeError, raised at:" in entry for entry in server.log)
    calls[:] = [1] * 2
    server.log.clear()
    batch = server.client.post(f"{SPEECH}/batch", json={"items": [LONG]}).json()
    assert batch["results"][0]["error"] == "the server has failed: see its log"
    assert any("/batch: RuntimeError, raised at:" in entry for entry in server.log)
    calls[:] = [1] * 2
    response = server.client.post(SPEECH, json=LONG)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"


def test_a_full_queue_is_not_logged_as_a_fault(server):
    """The client is told, and the log has no traceback."""
    assert server.service.problem(QueueFull(), "POST").status == 429
    assert not any("QueueFull" in line for line in server.log)
