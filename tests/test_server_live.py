"""Text over a WebSocket while it is written, with the client of the package `websockets`."""

import json
import threading
from functools import cache
from socket import SHUT_RDWR

import pytest
import websockets.exceptions
from websockets.sync.client import ClientConnection, connect

from mlx_qwen3_tts import Request
from mlx_qwen3_tts.audio.formats import pcm16
from mlx_qwen3_tts.server import live
from tests.support.server import LONG, TEXT, decoded, eventually, exact

PIECES = ["It ", "is t", "en", "."]
CONFIG = {"voice": "rms", "stream_audio": True, "seed": 3}


class Talk:
    """A session, from the client's side."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, kind: str, **fields) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def write(self, *pieces: str) -> None:
        for piece in pieces:
            self.send("input.text", text=piece)
        self.send("input.done")

    def until(self, kind: str) -> tuple[list[dict], bytes]:
        """Return the messages up to one of a kind, and the audio among them."""
        messages, audio = [], b""
        while not messages or messages[-1]["type"] != kind:
            message = self.socket.recv(timeout=30)
            if isinstance(message, bytes):
                audio += message
            else:
                messages.append(json.loads(message))
        return messages, audio


@pytest.fixture
def talk(server):
    with connect(server.socket_url, max_size=None) as socket:
        yield Talk(socket)


@cache
def live_audio(server, **options):
    """What the library makes of the same pieces. It is made once."""
    return server.model().run(Request(iter([TEXT]), **options)).audio


def test_an_utterance(server, talk):
    talk.send("session.config", **CONFIG)
    talk.write(*PIECES)
    messages, audio = talk.until("session.done")
    assert [message["type"] for message in messages] == ["audio.start", "audio.done", "session.done"]
    start, done, end = messages
    assert (start["format"], start["sample_rate"]) == ("pcm", 24000)
    assert (start["utterance_index"], start["sentence_index"], done["sentence_index"]) == (0, 0, 0)
    assert audio == pcm16(live_audio(server, voice="rms", seed=3))
    assert done["total_bytes"] == len(audio)
    assert done["error"] is False
    assert done["usage"]["output_tokens"] * 3840 == len(audio)
    assert end["total_sentences"] == 1
    assert f"{len(''.join(PIECES))} characters" in server.log[-1]


def test_speech_begins_before_the_text_is_known(server, talk):
    talk.send("session.config", **CONFIG)
    talk.send("input.text", text="It is twenty past ")
    assert talk.until("audio.start")[0][0]["sentence_text"]
    assert talk.socket.recv(timeout=10)
    assert eventually(lambda: server.service.gate.inside == 0)  # it waits for its text, and its place is another's
    assert server.speak(response_format="pcm", max_frames=2).status_code == 200
    talk.write("seven.")
    assert len(talk.until("session.done")[1]) > 20_000


def test_one_frame_unless_streaming_was_asked_for(server, talk):
    talk.send("session.config", voice="rms", seed=3)
    talk.write(TEXT)
    talk.until("audio.start")
    data = talk.socket.recv(timeout=10)
    assert exact(decoded(data, "wav")[0]) == pcm16(live_audio(server, voice="rms", seed=3))
    talk.until("session.done")


def test_several_utterances(server, talk):
    """The next one may be written while the last one is spoken; each has the session's settings of its time."""
    talk.send("session.config", **CONFIG)
    talk.write("One.")
    talk.send("session.config", **{**CONFIG, "voice": "slt"})
    talk.write(TEXT)
    first, first_audio = talk.until("session.done")
    second, second_audio = talk.until("session.done")
    assert [first[-1]["utterance_index"], second[-1]["utterance_index"]] == [0, 1]
    assert second_audio == pcm16(live_audio(server, voice="slt", seed=3))
    assert first_audio and first_audio != second_audio
    talk.send("session.close")
    with pytest.raises(websockets.exceptions.ConnectionClosedOK):
        talk.socket.recv(timeout=10)


@pytest.mark.parametrize("is_flushed", [True, False])
def test_closing_waits_for_what_was_written(server, talk, is_flushed):
    talk.send("session.config", **CONFIG)
    talk.send("input.text", text=TEXT)
    if is_flushed:
        talk.send("input.done")
    talk.send("session.close")
    assert talk.until("session.done")[1] == pcm16(live_audio(server, voice="rms", seed=3))


def test_an_empty_utterance(talk):
    talk.write()
    assert talk.until("session.done")[0][-1]["total_sentences"] == 0
    talk.write(" ", "\n")
    messages, _ = talk.until("session.done")
    assert [message["utterance_index"] for message in messages] == [1, 1, 1]
    assert [message["type"] for message in messages] == ["error", "audio.done", "session.done"]
    assert "empty" in messages[0]["message"]


@pytest.mark.parametrize(
    "message, part",
    [
        ("x", "not valid JSON"),
        ("[]", "JSON object"),
        ("{}", "type must be one of"),
        ('{"type": ["input.text"]}', "type must be one of"),
        ('{"type": "input.text"}', "text must be a string"),
        ('{"type": "input.text", "text": "\\ud800"}', "Unicode"),
        ('{"type": "session.config", "stream_audio": 1}', "stream_audio"),
        ('{"type": "session.config", "speed": 9}', "speed"),
        (b"\0\1", "text frames"),
    ],
)
def test_an_error_is_not_the_end(talk, message, part):
    talk.socket.send(message)
    error = talk.until("error")[0][-1]
    assert part in error["message"]
    assert error["error"]["type"] == "invalid_request_error"
    talk.send("session.config", **CONFIG, max_frames=2)
    talk.write(TEXT)
    assert len(talk.until("session.done")[1]) == 2 * 3840


def test_an_utterance_that_fails(talk):
    talk.send("session.config", voice="nobody")
    talk.write(TEXT)
    messages, _ = talk.until("session.done")
    assert "unknown voice" in messages[0]["message"]
    assert messages[1]["error"] is True
    talk.send("session.config", **CONFIG, max_frames=2)
    talk.write(TEXT)
    assert len(talk.until("session.done")[1]) == 2 * 3840


def test_a_fault_is_logged(server, talk, monkeypatch):
    """Of ours, but not what the client has written."""

    async def fail(encoder, chunk):
        raise RuntimeError(TEXT)

    monkeypatch.setattr(live.SpeechEncoder, "write", fail)
    talk.send("session.config", **CONFIG)
    talk.write(TEXT)
    assert talk.until("session.done")[0][0]["message"] == "the server has failed: see its log"
    assert any(": RuntimeError, raised at:" in entry for entry in server.log)
    assert not any(TEXT in entry for entry in server.log)


def test_settings_do_not_change_within_an_utterance(talk):
    talk.send("session.config", **CONFIG)
    talk.send("input.text", text="It is ")
    talk.send("session.config", voice="slt")
    assert "input.done" in talk.until("error")[0][-1]["message"]


def test_a_text_that_is_too_long(server, talk):
    talk.send("session.config", **CONFIG, max_frames=2)
    limit = server.service.settings.max_text
    talk.send("input.text", text="One. ")
    talk.send("input.text", text="x" * (limit - 4))
    assert "limit" in talk.until("error")[0][-1]["message"]
    talk.write("Two.")
    talk.until("session.done")


def test_too_many_utterances(talk):
    talk.send("session.config", **{**LONG, "stream_audio": True})
    for _ in range(live.MAX_UTTERANCES + 2):
        talk.write(TEXT)
    assert "wait already" in talk.until("error")[0][-1]["message"]


def test_too_many_sessions(server, talk, monkeypatch):
    monkeypatch.setattr(live, "MAX_SESSIONS", 2)
    with connect(server.socket_url), pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(server.socket_url)
    assert refused.value.response.status_code == 429


def test_no_session_begins_while_the_server_ends(server, monkeypatch):
    monkeypatch.setattr(server.service, "stopping", True)
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(server.socket_url)
    assert refused.value.response.status_code == 503


def test_an_idle_session_ends(server, monkeypatch):
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.2)
    with connect(server.socket_url) as socket, pytest.raises(websockets.exceptions.ConnectionClosedOK):
        socket.recv(timeout=5)


def waits_for_text() -> bool:
    return any(thread.name == "text" for thread in threading.enumerate())


@pytest.mark.parametrize("pieces", [["It"], ["It is twenty past "], [TEXT]])
def test_a_client_that_leaves(server, pieces):
    """No row, no place and no thread is left (the fixture looks), while a text is awaited."""
    with connect(server.socket_url) as socket:
        talk = Talk(socket)
        talk.send("session.config", **{**LONG, "stream_audio": True})
        for piece in pieces:
            talk.send("input.text", text=piece)
        assert eventually(waits_for_text)
        socket.socket.shutdown(SHUT_RDWR)  # without a goodbye
    assert eventually(server.is_idle, 5)
    assert not waits_for_text()


def test_a_client_that_leaves_is_not_reported_as_a_fault(server, monkeypatch):
    faults = []
    monkeypatch.setattr("mlx_qwen3_tts.server.live.fault", lambda error, _log_text: faults.append(error) or "")
    with connect(server.socket_url) as socket:
        Talk(socket).write("It is ten.")
    server.wait_until_idle()
    assert faults == []
