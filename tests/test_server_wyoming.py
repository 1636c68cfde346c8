"""Home Assistant's protocol, with the client of the package `wyoming`."""

import asyncio
import json
import socket

import pytest
import soundfile
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

from mlx_qwen3_tts import Request
from mlx_qwen3_tts.audio.formats import pcm16
from mlx_qwen3_tts.server import wyoming as ours
from mlx_qwen3_tts.server.run import listen
from mlx_qwen3_tts.server.speech import SpeechStream
from tests.support import sounds
from tests.support.server import SPEECH, eventually

TEXT = "Ten."
RMS = SynthesizeVoice(name="rms")


@pytest.fixture
def port(server):
    """Where a Wyoming server listens, beside the other one."""
    bound = listen("127.0.0.1", 0)

    def on_loop(work):
        return asyncio.run_coroutine_threadsafe(work, server.loop).result(30)

    beside = ours.WyomingServer(server.service, bound)
    on_loop(beside.__aenter__())
    yield bound.getsockname()[1]
    on_loop(beside.__aexit__(None, None, None))


class Talk:
    """A connection, from the client's side."""

    def __init__(self, port: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = AsyncTcpClient("127.0.0.1", port)
        self.loop.run_until_complete(self.client.connect())

    def send(self, *events) -> None:
        for event in events:
            self.loop.run_until_complete(self.client.write_event(event.event()))

    def next(self):
        """Return the next event, or None at the end of the connection."""
        return self.loop.run_until_complete(asyncio.wait_for(self.client.read_event(), 30))

    def until(self, kind) -> list:
        """Return the events up to one of a kind."""
        events = []
        while not events or not kind.is_type(events[-1].type):
            events.append(self.next())
            assert events[-1] is not None, events
        return events

    def error(self) -> Error:
        """Return an error, which ends the connection."""
        error = Error.from_event(self.until(Error)[-1])
        assert self.next() is None
        return error

    def close(self) -> None:
        self.loop.run_until_complete(self.client.disconnect())
        self.loop.close()


@pytest.fixture
def talk(port):
    talk = Talk(port)
    yield talk
    talk.close()


def audio_of(events) -> bytes:
    return b"".join(AudioChunk.from_event(event).audio for event in events if AudioChunk.is_type(event.type))


@pytest.fixture
def expected(server, monkeypatch):
    """What the library makes of a text with the seed of the last speech, as no event names one."""
    streams = []

    def noted(*args, **kwargs):
        streams.append(SpeechStream(*args, **kwargs))
        return streams[-1]

    monkeypatch.setattr(ours, "SpeechStream", noted)
    return lambda text, **options: pcm16(server.model().run(Request(text, seed=streams[-1].seed, **options)).audio)


def test_voices_and_languages(server, server_voices, talk, tmp_path):
    soundfile.write(tmp_path / "me.wav", sounds.speech(2), 24000)
    files = {"sample": ("me.wav", (tmp_path / "me.wav").read_bytes())}
    assert (
        server.client.post("/v1/audio/voices", files=files, data={"name": "me", "consent": "true"}).status_code == 200
    )
    talk.send(Describe())
    (program,) = Info.from_event(talk.next()).tts
    assert program.installed
    assert program.supports_synthesize_streaming
    voices = {voice.name: voice.languages for voice in program.voices}
    assert voices == {"slt": ["en"], "rms": ["en"], **{name: ["en", "zh"] for name in ("ada", "ben", "chuan", "me")}}
    assert all(voice.installed and voice.description for voice in program.voices)


def test_a_text(server, talk, expected):
    """As Home Assistant asks without streaming (homeassistant/components/wyoming/tts.py); then once more."""
    for voice in (RMS, SynthesizeVoice(name="slt")):
        talk.send(Synthesize(TEXT, voice=voice))
        events = talk.until(AudioStop)
        start = AudioStart.from_event(events[0])
        assert (start.rate, start.width, start.channels) == (24000, 2, 1)
        chunks = [AudioChunk.from_event(event) for event in events[1:-1]]
        assert {(chunk.rate, chunk.width, chunk.channels) for chunk in chunks} == {(24000, 2, 1)}
        assert audio_of(events) == expected(TEXT, voice=voice.name)
    assert server.logged().startswith(f"wyoming 200: {len(TEXT)} characters, ")
    assert 'endpoint="wyoming"' in server.client.get("/metrics").text


@pytest.mark.parametrize("language", ["en", "en_US", "en-GB", "English"])
def test_a_language(talk, language, expected):
    talk.send(Synthesize(TEXT, voice=SynthesizeVoice(language=language)))
    assert audio_of(talk.until(AudioStop)) == expected(TEXT, language="english")


def test_audio_comes_while_more_is_made(server, talk, monkeypatch, expected):
    free = asyncio.Event()
    write = ours.SpeechEncoder.write
    written = []

    async def hold(encoder, chunk):
        written.append(chunk)
        if len(written) > 2:
            await free.wait()
        return await write(encoder, chunk)

    monkeypatch.setattr(ours.SpeechEncoder, "write", hold)
    talk.send(Synthesize(TEXT, voice=RMS))
    assert AudioStart.is_type(talk.next().type)
    first = [talk.next(), talk.next()]
    assert len(audio_of(first)) == 7680
    assert server.service.active == 1
    talk.send(Ping("still there?"))
    assert Pong.from_event(talk.next()).text == "still there?"
    server.loop.call_soon_threadsafe(free.set)
    assert audio_of(first + talk.until(AudioStop)) == expected(TEXT, voice="rms")


def test_a_text_that_is_still_written(server, talk, expected):
    """Speech begins before the text is known. The whole text, which comes as well for older servers, is not said."""
    talk.send(SynthesizeStart(voice=RMS), SynthesizeChunk(" "), SynthesizeChunk("It is twenty past "))
    events = talk.until(AudioChunk)
    assert eventually(lambda: server.service.gate.inside == 0)  # it waits for its text, and its place is another's
    talk.send(SynthesizeChunk("seven."), Synthesize("It is twenty past seven.", voice=RMS), SynthesizeStop())
    events += talk.until(SynthesizeStopped)
    assert [event.type for event in events if event.type != "audio-chunk"] == [
        "audio-start", "audio-stop", "synthesize-stopped"
    ]  # fmt: skip
    assert audio_of(events) == expected(iter([" It is twenty past ", "seven."]), voice="rms")
    talk.send(Synthesize(TEXT, voice=RMS))
    assert audio_of(talk.until(AudioStop)) == expected(TEXT, voice="rms")


def test_no_text(server, talk):
    talk.send(SynthesizeStart(voice=RMS), SynthesizeChunk(" \n"), SynthesizeStop(), SynthesizeStop())
    assert SynthesizeStopped.is_type(talk.next().type)
    talk.send(Synthesize(" "))
    assert "empty" in talk.error().text


def test_what_is_refused(server, port, monkeypatch):
    """The error is told, and the connection ends: Home Assistant would wait for the audio."""
    cases = [
        (Synthesize(TEXT, voice=SynthesizeVoice(name="nobody")), "voice_not_found", "unknown voice 'nobody'"),
        (Synthesize(TEXT, voice=SynthesizeVoice(language="tlh")), "400", "unknown language 'tlh'"),
        (Synthesize("a" * 5000), "string_above_max_length", "5000 characters"),
    ]
    for event, code, message in cases:
        talk = Talk(port)
        talk.send(event)
        error = talk.error()
        assert error.code == code
        assert message in error.text
        talk.close()
    talk = Talk(port)
    talk.send(SynthesizeStart(), SynthesizeChunk("a" * 4000), SynthesizeChunk("a" * 97))
    assert talk.error().code == "string_above_max_length"
    talk.close()
    monkeypatch.setattr(server.service, "stopping", True)
    talk = Talk(port)
    talk.send(Synthesize(TEXT))
    assert talk.error().code == "shutting_down"
    talk.close()


def test_the_queue_is_shared(server, talk, monkeypatch):
    monkeypatch.setattr(server.service.gate, "places", 0)
    monkeypatch.setattr(server.service.gate, "queue_size", 0)
    talk.send(Synthesize(TEXT))
    assert talk.error().code == "queue_full"
    assert server.logged() == "wyoming 429: queue_full"


def test_too_many(server, port, talk, monkeypatch):
    """Texts of a session, and sessions."""
    monkeypatch.setattr(server.service.gate, "places", 0)
    talk.send(*[Synthesize(TEXT)] * (ours.MAX_UTTERANCES + 2))
    assert talk.error().code == "queue_full"
    monkeypatch.setattr(ours, "MAX_SESSIONS", 1)
    first, second = Talk(port), Talk(port)
    first.send(Ping())
    assert Pong.is_type(first.next().type)
    assert "too many sessions" in second.error().text
    first.close()
    second.close()


@pytest.mark.parametrize("live", [False, True])
def test_a_hangup_frees_the_row(server, port, live):
    """While speech is under way, and while its text is still written."""
    talk = Talk(port)
    voice = SynthesizeVoice(name="ada")  # a miniature that babbles on
    if live:
        talk.send(SynthesizeStart(voice=voice), SynthesizeChunk("Hello, this is a long text, of which "))
    else:
        talk.send(Synthesize("Hello. " * 200, voice=voice))
    talk.until(AudioChunk)
    talk.close()
    server.wait_until_idle()
    assert server.logged() == "wyoming 499: the client has left"


def test_the_end_of_the_server(server, port, talk):
    """A text under way is cut."""
    talk.send(Synthesize("Hello. " * 200, voice=SynthesizeVoice(name="ada")))
    talk.until(AudioChunk)
    server.loop.call_soon_threadsafe(server.service.ending.set)
    while talk.next() is not None:
        pass
    server.loop.call_soon_threadsafe(server.service.ending.clear)
    server.wait_until_idle()
    assert server.log[-1] == "wyoming 499: cut"


def line(*, data=None, **fields) -> bytes:
    """An event, with its data behind the line."""
    behind = b"" if data is None else json.dumps(data).encode()
    header = {"type": "synthesize", **({} if data is None else {"data_length": len(behind)}), **fields}
    return json.dumps(header).encode() + b"\n" + behind


HOSTILE = [
    b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00\xff\xfe\n",
    b"[]\n",
    b"5\n",
    b"null\n",
    b"{}\n",
    b"[" * 60_000 + b"\n",
    b"x" * 100_000,
    b'{"type": "synthesize", "data_length": 10000000000}\n' + b"x" * 1000,
    b'{"type": "synthesize", "payload_length": 10000000000}\n' + b"x" * 1000,
    b'{"type": "synthesize", "data_length": 1.5}\n{}',
    b'{"type": "synthesize", "data_length": "1"}\n{}',
    b'{"type": "synthesize", "data": 5, "data_length": 2}\n{}',
    b'{"type": "synthesize", "data_length": 2}\n[]',
    line(type=["synthesize"]),
    line(data={}),
    line(data=5),
    line(data={"text": 5}),
    line(data={"text": ["a"]}),
    line(data={"text": "\ud800"}),
    line(data={"text": TEXT, "voice": 5}),
    line(data={"text": TEXT, "voice": {"name": {"a": 1}}}),
    line(data={"text": TEXT, "voice": {"name": "../../etc/passwd"}}),
    line(data={"text": TEXT, "voice": {"language": 5}}),
    line(type="synthesize-start", data={"voice": [1]}),
    line(type="synthesize-start") + line(type="synthesize-chunk", data={"text": None}),
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_events(server, port, data):
    """The connection ends, perhaps with an error, and nothing is written but that; the server goes on."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        got = b""
        try:
            while part := connection.recv(65536):
                got += part
        except ConnectionResetError:
            pass  # what we had sent was not all read
    assert got == b"" or json.loads(got.splitlines()[0])["type"] == "error"
    assert not any("raised at" in entry for entry in server.log)
    assert server.client.get("/health").status_code == 200


def test_events_without_effect(server, talk):
    """Events of other services, and those in the wrong place."""
    talk.send(SynthesizeStop(), SynthesizeChunk("lost"), AudioStop(), Pong("x"), Ping("here"))
    assert Pong.from_event(talk.next()).text == "here"


def test_what_is_said_is_not_logged(server, talk):
    talk.send(Synthesize(TEXT, voice=RMS))
    talk.until(AudioStop)
    assert TEXT not in server.logged()
    assert server.client.post(SPEECH, json={"input": TEXT}).status_code == 200


def test_a_fault_is_logged(server, talk, monkeypatch):
    """Of ours, but not what the client has written."""

    async def fail(encoder, chunk):
        raise RuntimeError(TEXT)

    monkeypatch.setattr(ours.SpeechEncoder, "write", fail)
    talk.send(Synthesize(TEXT, voice=RMS))
    assert talk.error().text == "the server has failed: see its log"
    assert any(entry.startswith("wyoming: RuntimeError, raised at:") for entry in server.log)
    assert not any(TEXT in entry for entry in server.log)


def test_a_fault_with_an_event_is_logged(server, talk, monkeypatch):
    async def fail(service):
        raise RuntimeError(TEXT)

    monkeypatch.setattr(ours, "describe", fail)
    talk.send(Describe())
    assert talk.error().text == "the server has failed: see its log"
    assert [entry.startswith("wyoming: RuntimeError, raised at:") for entry in server.log] == [True]


def test_the_data_of_an_event_is_an_object(server, port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b'{"type": "synthesize", "data": 5}\n')
        answer = connection.makefile("rb").read()  # to the end of the connection: an event comes in several pieces
    assert b"invalid_event" in answer
    assert server.log == []


def test_a_text_is_spoken_once_however_many_pieces_it_has(server, talk, monkeypatch):
    monkeypatch.setattr(server.service.gate, "places", 0)
    talk.send(SynthesizeStart(voice=RMS), *[SynthesizeChunk("One. ")] * (ours.MAX_UTTERANCES + 2), Ping("here"))
    assert Pong.from_event(talk.next()).text == "here"
