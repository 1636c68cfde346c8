"""Hostile requests, hang-ups at random moments, and many clients at once: the server answers each time, and lives.

ATTACKS=2000 tries 2,000 hostile requests and a quarter as many hang-ups; the default is 500.
"""

import asyncio
import json
import os
import random
import tempfile
import threading
from contextlib import suppress

import httpx
import pytest
import websockets
import websockets.exceptions
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st
from websockets.sync.client import connect

from mlx_qwen3_tts import Request
from mlx_qwen3_tts.audio.formats import pcm16
from tests.support.hostile import ANYTHING, TEXTS, damaged, trees
from tests.support.server import LONG, SPEECH, TEXT, LiveServer, running

ATTACKS = int(os.environ.get("ATTACKS", "500"))
LOAD_CLIENTS = 32
LOAD_ANSWERS = 40
BODY = {
    "input": "One.", "voice": {"id": "slt"}, "model": "demo", "instructions": None, "response_format": "pcm",
    "speed": 1.0, "stream_format": "audio", "language": "english", "seed": 3, "temperature": 0.9, "top_k": 5,
    "ref_audio": None, "ref_text": None, "x_vector_only_mode": False, "max_new_tokens": 4, "task_type": "CustomVoice",
}  # fmt: skip
BATCH = {"items": [BODY, {"input": "Two.", "max_frames": 1}], "voice": "rms", "max_frames": 2}
MESSAGES = [
    {"type": "session.config", "voice": "slt", "stream_audio": True, "max_frames": 2},
    {"type": "input.text", "text": "One "},
    {"type": "input.done"},
    {"type": "session.close"},
]
HEADER_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200).map(str.strip)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Host", "Origin", "Authorization", "Content-Type", "Accept", "Range", "Expect", "X-Forwarded-For", "Cookie",
         "Connection", "Upgrade", "Content-Encoding", "Transfer-Encoding"]
    ),
    HEADER_VALUES,
    max_size=3,
)  # fmt: skip
PATHS = st.sampled_from([SPEECH, f"{SPEECH}/batch", "/v1/audio/voices", "/v1/models", "/health", "/metrics", "/"]) | (
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60).map(lambda text: f"/{text}")
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
FUZZ = settings(deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def target():
    with running(models=("demo", "demo-base"), time_limit=20.0) as server:
        yield server


def check(server: LiveServer, response: httpx.Response) -> None:
    """An answer is speech, or an error of ours."""
    if response.status_code >= 400 and response.request.method != "HEAD":
        if response.headers.get("content-type") == "text/plain; charset=utf-8":
            assert response.status_code == 400  # uvicorn's: not HTTP
        else:
            error = response.json()["error"]
            assert error["message"]
            assert set(error) == {"message", "type", "param", "code"}
    assert response.status_code != 500, response.text
    assert "Traceback" not in "".join(server.log)


def encoded(value) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def post_json(server: LiveServer, data) -> None:
    body = data.draw(
        trees(BODY).map(encoded) | ANYTHING.map(encoded) | damaged(encoded(BODY)) | trees(BATCH).map(encoded)
    )
    path = f"{SPEECH}/batch" if b"items" in body else SPEECH
    check(server, server.client.post(path, content=body))


def post_form(server: LiveServer, data) -> None:
    boundary = data.draw(st.sampled_from(["x", "", "a" * 300, '"', "é"]))
    part = b'--x\r\nContent-Disposition: form-data; name="audio_sample"; filename="a"\r\n\r\nRIFF\r\n'
    field = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nme\r\n'
    body = data.draw(damaged(part + field + b"--x--\r\n") | st.just(part * 9) | st.just(field * 50 + b"--x--"))
    kind = f"multipart/form-data; boundary={boundary}".encode()
    check(server, server.client.post("/v1/audio/voices", content=body, headers={"Content-Type": kind}))


def request_anything(server: LiveServer, data) -> None:
    method, path, headers = data.draw(METHODS), data.draw(PATHS), data.draw(HEADERS)
    body = data.draw(st.binary(max_size=200)) if "Transfer-Encoding" not in headers else b""
    try:
        request = server.client.build_request(method, path, headers=headers, content=body)
    except (httpx.InvalidURL, ValueError):
        return
    if request.url.host != "127.0.0.1":
        return
    with suppress(httpx.ProtocolError, httpx.ReadError, httpx.ReadTimeout):  # it is not HTTP any more
        check(server, server.client.send(request))


def send_frames(server: LiveServer, data) -> None:
    messages = data.draw(st.lists(st.sampled_from(MESSAGES).flatmap(trees) | ANYTHING | TEXTS, max_size=6))
    with connect(server.socket_url, max_size=None) as socket:
        try:
            for message in messages:
                raw = data.draw(st.booleans())
                socket.send(encoded(message) if raw else encoded(message).decode("utf-8", "replace"))
            socket.send('{"type": "session.close"}')
            while True:
                answer = socket.recv(timeout=20)
                if isinstance(answer, str):
                    kind = json.loads(answer)["type"]
                    assert kind in ("error", "audio.start", "audio.done", "session.done")
        except websockets.exceptions.ConnectionClosed:
            pass


KINDS = {"json": post_json, "form": post_form, "http": request_anything, "frames": send_frames}
SHARES = {"json": 0.45, "form": 0.2, "http": 0.25, "frames": 0.1}


@pytest.mark.parametrize("kind", KINDS)
def test_some_hostile_requests(target, kind):
    attack(target, kind, 12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_requests(target, kind):
    attack(target, kind, round(ATTACKS * SHARES[kind]))


def attack(server: LiveServer, kind: str, count: int) -> None:
    server.log.clear()

    @seed(count)
    @settings(FUZZ, max_examples=count)
    @given(st.data())
    def run(data):
        KINDS[kind](server, data)

    run()
    server.wait_until_idle()
    assert server.speak(response_format="pcm", seed=1).status_code == 200


async def hang_up(client: httpx.AsyncClient, chance: random.Random) -> None:
    """Ask for speech, and leave at a random moment: in the queue, before the first audio, or in the middle."""
    formats = ("pcm", "mp3", "opus", "flac", "aac", "wav")
    body = {**LONG, "response_format": chance.choice(formats), "speed": chance.choice((1, 1, 1.5))}
    body["stream_format"] = chance.choice(("audio", "sse"))

    async def listen() -> None:
        async with client.stream("POST", SPEECH, json=body) as response:
            async for _ in response.aiter_raw():
                pass

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(listen(), chance.uniform(0.001, 0.3))


async def hang_up_live(server: LiveServer, chance: random.Random) -> None:
    """The same over a WebSocket."""
    async with websockets.connect(server.socket_url, max_size=None) as socket:
        await socket.send(json.dumps({"type": "session.config", **LONG, "stream_audio": chance.random() < 0.7}))
        for word in ("On ", "and ", "on.")[: chance.randrange(1, 4)]:
            await socket.send(json.dumps({"type": "input.text", "text": word}))
        await asyncio.sleep(chance.uniform(0, 0.2))
        socket.transport.abort()


async def hang_up_often(server: LiveServer, count: int) -> None:
    chance = random.Random(1)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=30, limits=limits) as client:
        places = asyncio.Semaphore(12)

        async def one() -> None:
            async with places:
                if chance.random() < 0.2:
                    await hang_up_live(server, chance)
                else:
                    await hang_up(client, chance)

        await asyncio.gather(*(one() for _ in range(count)))


@pytest.mark.parametrize("count", [15, pytest.param(ATTACKS // 4, marks=pytest.mark.slow)])
def test_hang_ups_leave_nothing(count, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with running(models=("demo-random",), batch_size=4, queue_size=64) as server:
        asyncio.run(hang_up_often(server, count))
        server.wait_until_idle()
        model = server.model("demo-random")
        assert model.engine.worker.run(model.scheduler.frames_of_rows) == []
        assert not [name for name in (thread.name for thread in threading.enumerate()) if name == "text"]
        assert not any(name in "".join(server.log) for name in ("Traceback", "raised at"))
        expected = model.run(Request(TEXT, seed=1, max_frames=5)).audio
        assert server.speak(seed=1, max_frames=5, response_format="pcm").content == pcm16(expected)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_many_clients():
    """Each response is what the request gets alone; nothing but 429 refuses."""
    seeds = range(6)
    with running(models=("demo",), batch_size=8, queue_size=16) as server:
        model = server.model()
        expected = {s: pcm16(model.run(Request(TEXT, voice="rms", seed=s, max_frames=6)).audio) for s in seeds}
        statuses: dict[int, int] = {}

        async def client_loop(client: httpx.AsyncClient, chance: random.Random) -> None:
            while statuses.get(200, 0) < LOAD_ANSWERS:
                number = chance.choice(seeds)
                body = {"input": TEXT, "voice": "rms", "seed": number, "max_frames": 6, "response_format": "pcm"}
                response = await client.post(SPEECH, json=body)
                statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
                if response.status_code == 200:
                    assert response.content == expected[number]
                else:
                    await asyncio.sleep(0.3)

        async def load() -> None:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                await asyncio.gather(*(client_loop(client, random.Random(i)) for i in range(LOAD_CLIENTS)))

        asyncio.run(load())
        server.wait_until_idle()
        assert statuses.keys() <= {200, 429}
        assert statuses[200] >= LOAD_ANSWERS
        assert statuses[429] > 0  # 24 of 32 find room
