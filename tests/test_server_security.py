"""Who may talk to a server: keys, Host headers, web pages."""

import hmac
import socket
from functools import partial

import httpx
import pytest
import websockets.exceptions
from websockets.sync.client import connect

from mlx_qwen3_tts.server import connection
from mlx_qwen3_tts.server.security import host_name, is_same_origin
from tests.support.server import LONG, SPEECH, TEXT, eventually, running

KEY = "a long and secret key"
PATHS = [
    ("POST", SPEECH), ("POST", f"{SPEECH}/batch"), ("GET", "/v1/models"), ("GET", "/v1/audio/models"),
    ("GET", "/v1/audio/voices"), ("POST", "/v1/audio/voices"), ("DELETE", "/v1/audio/voices/me"), ("GET", "/metrics"),
    ("GET", "/nothing"),
]  # fmt: skip


@pytest.fixture(scope="module")
def locked():
    with running(models=("demo",), api_key=KEY, hosts=frozenset({"speech.example.org"})) as server:
        yield server


@pytest.mark.parametrize("given", [None, "", KEY, "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer é"])
def test_nothing_without_the_key(locked, given):
    headers = {} if given is None else {"Authorization": given.encode()}
    for method, path in PATHS:
        refused = locked.client.request(method, path, headers=headers)
        assert refused.status_code == 401, path
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"


def test_the_key_opens(locked):
    headers = {"Authorization": f"Bearer {KEY}"}
    said = locked.client.post(SPEECH, json={"input": TEXT, "response_format": "pcm"}, headers=headers)
    assert said.status_code == 200
    assert locked.client.get("/metrics", headers={"Authorization": f"bearer  {KEY}"}).status_code == 200


def test_health_and_the_page_need_no_key(locked):
    assert locked.client.get("/health").status_code == 200
    page = locked.client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"


def test_a_websocket_needs_the_key(locked):
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(locked.socket_url)
    assert refused.value.response.status_code == 401
    with connect(locked.socket_url, additional_headers={"Authorization": f"Bearer {KEY}"}) as opened:
        opened.send('{"type": "input.done"}')
        assert "session.done" in opened.recv()


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8880", "127.0.0.1:1", "[::1]:80", "192.168.1.7:8880", "host.docker.internal:8880",
     "speech.example.org", "Speech.Example.org.:80"],
)  # fmt: skip
def test_hosts_that_are_ours(locked, host):
    assert locked.client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8880", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b", "localhost:x",
     "evil@localhost", "localhost/x", "internal", "speech.example.org.evil.example", "[::1", "é"],
)  # fmt: skip
def test_names_that_somebody_lets_point_to_us(locked, host):
    """DNS rebinding."""
    refused = locked.client.get("/health", headers={"Host": host.encode()})
    assert refused.status_code in (400, 403)
    if refused.status_code == 403:
        assert refused.json()["error"]["code"] == "host_not_allowed"


def test_other_web_pages_are_refused(server):
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{server.port + 1}", "chrome-extension://x", ""):
        for method, path in PATHS:
            refused = server.client.request(method, path, headers={"Origin": origin})
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers
    with pytest.raises(websockets.exceptions.InvalidStatus) as raised:
        connect(server.socket_url, origin="http://evil.example")
    assert raised.value.response.status_code == 403
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
    assert server.client.options("/v1/audio/voices/me", headers=preflight).status_code == 403
    own = server.client.get("/v1/models", headers={"Origin": server.url})
    assert own.status_code == 200


def test_host_names():
    assert host_name("Me.Local.:80") == "me.local"
    assert host_name("[::1]:80") == "::1"
    assert host_name("a:b:c") == ""
    assert is_same_origin("HTTP://Me:80", "me:80")
    assert not is_same_origin("http://me:80", "me:81")
    assert not is_same_origin("me:80", "me:80")


def test_the_comparison_takes_its_time(locked, spy):
    """The key is compared by a function whose time does not tell where the two differ."""
    calls = spy(hmac, "compare_digest")
    locked.client.get("/v1/models", headers={"Authorization": "Bearer guess"})
    assert calls == [("compare_digest", (b"guess", KEY.encode()))]


def test_garbage_instead_of_http(server):
    for garbage in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"G" * 100_000, b"GET /" + b"a" * 100_000, b"\r\n" * 9):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.settimeout(1)
            try:
                raw.sendall(garbage)
                raw.recv(1000)
            except (TimeoutError, ConnectionError):
                pass
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_connections_without_a_request_end(server, monkeypatch):
    """Even those that send a header byte by byte; a stream and a session that last longer do not."""
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.4)
    address = ("127.0.0.1", server.port)
    dripping = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nX: "
    refused = b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
    with (
        connect(server.socket_url) as session,
        server.client.stream("POST", SPEECH, json={**LONG, "max_frames": 40}) as response,
    ):
        parts = response.iter_raw()
        size = len(next(parts))
        for beginning in (b"", dripping, refused):
            with socket.create_connection(address) as raw:
                raw.sendall(beginning)
                assert eventually(partial(is_closed, raw, beginning[:1]), 3)
        assert size + sum(map(len, parts)) == 40 * 3840
        session.send("no JSON")
        assert "JSON" in session.recv(timeout=10)


def test_too_many_connections(server, monkeypatch):
    """New ones are refused; those that were first are served on, and their places are taken again."""
    address = ("127.0.0.1", server.port)
    assert server.client.get("/health").status_code == 200
    with server.client.stream("POST", SPEECH, json={**LONG, "max_frames": 40}) as response:
        parts = response.iter_raw()
        size = len(next(parts))
        monkeypatch.setattr(connection, "connection_limit", lambda: 0)
        refused = httpx.post(f"{server.url}{SPEECH}", json={"input": TEXT})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert refused.headers["connection"] == "close"
        assert refused.json()["error"]["code"] == "too_many_connections"
        with pytest.raises(websockets.exceptions.InvalidStatus, match="503"):
            connect(server.socket_url)
        monkeypatch.setattr(connection, "REFUSED_SECONDS", 0.2)
        with socket.create_connection(address) as silent:
            assert eventually(partial(is_closed, silent, b""), 3)
        monkeypatch.setattr(connection, "MAX_REFUSED", 0)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/health")
        assert size + sum(map(len, parts)) == 40 * 3840
    assert server.client.get("/health").status_code == 200, "a connection that is kept"
    monkeypatch.setattr(connection, "connection_limit", lambda: 100)
    assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.mark.parametrize(
    "files, expected", [(256, 160), (10, 1), (2**20, 1024), (connection.resource.RLIM_INFINITY, 1024)]
)
def test_as_many_connections_as_files(monkeypatch, files, expected):
    monkeypatch.setattr(connection.resource, "getrlimit", lambda _: (files, files))
    assert connection.connection_limit() == expected


def is_closed(raw: socket.socket, more: bytes) -> bool:
    """Send something more; return whether the other side has closed the connection."""
    raw.settimeout(0.05)
    try:
        raw.sendall(more)
        while raw.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_the_connection_ends_if_the_body_is_not_read(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        answer = raw.recv(4096).lower()
    assert answer.startswith(b"http/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer
    refused = server.speak(voice="nobody")
    assert refused.status_code == 400
    assert "connection" not in refused.headers


def test_garbage_is_not_logged(server, caplog):
    """Whoever can reach the server could fill the log of uvicorn."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(b"garbage\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert [record.message for record in caplog.records if record.name.startswith("uvicorn")] == []
