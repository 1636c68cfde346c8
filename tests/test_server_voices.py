"""The voices of a server: listed, made of uploads, used, deleted."""

import base64
import io
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import soundfile

from mlx_qwen3_tts import Qwen3TTS, Request, VoiceClonePrompt
from mlx_qwen3_tts.audio.formats import pcm16
from tests.support import sounds
from tests.support.server import TEXT, eventually, running

VOICES = "/v1/audio/voices"


def clip(name: str = "speech", container: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    wave, rate = sounds.SOUNDS[name]
    soundfile.write(buffer, wave[: round(1.1 * rate)], rate, format=container)
    return buffer.getvalue()


def upload(server, data: bytes | None = None, field: str = "audio_sample", **fields):
    files = {field: ("me.wav", clip() if data is None else data, "audio/wav")}
    return server.client.post(VOICES, files=files, data={"name": "me", "consent": "true", **fields})


def voice_named(server, name: str) -> dict | None:
    listed = server.client.get(VOICES).json()["voices"]
    return next((voice for voice in listed if voice["id"] == name), None)


def test_the_list_is_what_clients_read(server):
    """Open WebUI reads `voices`, clients of vLLM-Omni read `uploaded_voices`."""
    assert upload(server, ref_text="hello this voice").status_code == 200
    listed = server.client.get(VOICES).json()
    assert {voice["id"]: voice["name"] for voice in listed["voices"]} == {
        name: name for name in ("slt", "rms", "ada", "ben", "chuan", "me")
    }
    (uploaded,) = listed["uploaded_voices"]
    assert uploaded["name"] == "me"
    assert uploaded["consent"] == "true"
    assert uploaded["ref_text"] == "hello this voice"
    assert {"created_at", "file_size", "mime_type"} < uploaded.keys()
    assert voice_named(server, "slt")["default"] is True
    assert voice_named(server, "me")["models"] == ["demo-base"]


@pytest.mark.parametrize("container, text", [("WAV", None), ("FLAC", "hello this voice"), ("MP3", None)])
def test_an_uploaded_voice_speaks(server, server_voices, container, text):
    """It is the voice that the library makes, in the user's own library; the request needs no model."""
    data = clip(container=container)
    fields = {} if text is None else {"ref_text": text}
    made = upload(server, data, **fields)
    assert made.status_code == 200, made.text
    assert made.json()["id"] == "me"
    saved = VoiceClonePrompt.load(server_voices / "me.safetensors")
    model = server.model("demo-base")
    expected = model.clone_voice(io.BytesIO(data), text)
    assert (saved.speaker_embedding == expected.speaker_embedding).all()
    assert saved.ref_text == text
    said = server.speak(voice="ME", seed=3, max_frames=4, response_format="pcm")
    assert said.headers["x-model"] == "demo-base"
    assert said.content == pcm16(model.run(Request(TEXT, voice=expected, seed=3, max_frames=4)).audio)
    refused = server.speak(voice="me", model="demo")
    assert refused.status_code == 400
    assert "cloned voice" in refused.json()["error"]["message"]


def test_a_voice_is_deleted(server, server_voices):
    upload(server)
    assert server.client.delete(f"{VOICES}/ME").json()["deleted"] is True
    assert not list(server_voices.iterdir())
    assert voice_named(server, "me") is None
    assert server.client.delete(f"{VOICES}/me").status_code == 404
    assert server.client.delete(f"{VOICES}/slt").status_code == 404


def test_a_preset_voice_goes_before_one_of_the_library(server, server_voices):
    before = server.speak(voice="slt", seed=3, max_frames=3, response_format="pcm").content
    upload(server)
    (path,) = server_voices.iterdir()
    path.rename(path.with_stem("slt"))
    assert server.speak(voice="slt", seed=3, max_frames=3, response_format="pcm").content == before


def test_no_voice_is_deleted_while_the_server_ends(server, server_voices, monkeypatch):
    upload(server)
    monkeypatch.setattr(server.service, "stopping", True)
    assert server.client.delete(f"{VOICES}/me").status_code == 503
    assert server.client.get(VOICES).status_code == 200
    assert len(list(server_voices.iterdir())) == 1


def test_a_damaged_voice_can_be_deleted(server, server_voices):
    (server_voices / "old.safetensors").write_bytes(b"damaged")
    assert voice_named(server, "old") is None
    refused = server.speak(voice="old")
    assert refused.status_code == 500
    assert str(server_voices) not in refused.text
    assert server.client.delete(f"{VOICES}/old").status_code == 200


def test_a_name_is_not_overwritten_unasked(server):
    assert upload(server).status_code == 200
    again = upload(server, name="Me")
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "voice_exists"
    assert upload(server, name="Me", replace="true").json()["id"] == "me"


def test_of_two_uploads_at_once_one_is_kept(server, server_voices, monkeypatch):
    save = VoiceClonePrompt.save

    def saved_by_another_first(voice, path, replace=True):
        path.write_bytes(b"another")
        save(voice, path, replace)

    monkeypatch.setattr(VoiceClonePrompt, "save", saved_by_another_first)
    refused = upload(server)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "voice_exists")
    assert (server_voices / "me.safetensors").read_bytes() == b"another"
    assert upload(server, replace="true").status_code == 200


@pytest.mark.parametrize("consent", ["", "false", "No", "0", "off", " null ", "refused", "nein"])
def test_no_voice_without_consent(server, server_voices, consent):
    refused = upload(server, consent=consent)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "consent_required"
    assert not list(server_voices.iterdir())


@pytest.mark.parametrize(
    "name", ["../me", "a/b", ".me", "me.safetensors", "", " ", "x" * 65, "a\0b", "a\nb", "slt", "ADA"]
)
def test_invalid_names(server, server_voices, name):
    refused = upload(server, name=name)
    assert refused.status_code in (400, 422)
    assert refused.json()["error"]["param"] == "name"
    assert not list(server_voices.iterdir())
    assert not list(server_voices.parent.glob("*.safetensors"))


@pytest.mark.parametrize("path", ["..%2Fme", "%2e%2e", "..", "a%2Fb", "%00", "x" * 500])
def test_invalid_names_to_delete(server, server_voices, path):
    outside = server_voices.parent / "me.safetensors"
    outside.write_bytes(b"x")
    assert server.client.delete(f"{VOICES}/{path}").status_code in (404, 405)
    assert outside.exists()


def test_uploads_that_are_refused(server, server_voices):
    big = upload(server, b"\0" * (server.service.settings.max_upload + 1))
    assert big.status_code == 413
    for data in (b"", b"not audio", clip("speech")[:40]):
        refused = upload(server, data)
        assert refused.status_code in (400, 422)
        assert refused.json()["error"]["param"] == "audio_sample"
    seconds = io.BytesIO()
    soundfile.write(seconds, sounds.SOUNDS["speech"][0].repeat(40), 8000, format="FLAC")
    error = upload(server, seconds.getvalue()).json()["error"]
    assert "limit is 30 s" in error["message"]
    assert error["param"] == "audio_sample"
    error = upload(server, text="x", ref_text=" ").json()["error"]
    assert (error["param"], "reference text is empty" in error["message"]) == ("ref_text", True)
    assert upload(server, field="other").status_code == 422
    assert upload(server, model="demo").status_code == 400
    assert server.client.post(VOICES, json={"name": "me"}).status_code == 422
    no_boundary = {"Content-Type": "multipart/form-data"}
    assert server.client.post(VOICES, content=b"--x\r\n", headers=no_boundary).status_code == 400
    assert not list(server_voices.iterdir())


def test_a_server_without_a_base_model(server_voices, monkeypatch):
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(server_voices))
    with running(models=("demo",)) as server:
        refused = upload(server)
        assert refused.status_code == 400
        assert "Base" in refused.json()["error"]["message"]
        audio = "data:audio/wav;base64," + base64.b64encode(clip()).decode()
        assert "Base" in server.speak(ref_audio=audio).json()["error"]["message"]


def test_a_clip_in_the_request(server, spy):
    """Its voice is made once for requests that repeat it, and kept nowhere else."""
    audio = "data:audio/wav;base64," + base64.b64encode(clip()).decode()
    model = server.model("demo-base")
    calls = spy(model, "clone_voice")
    fields = {"ref_audio": audio, "ref_text": "hello this voice", "seed": 3, "max_frames": 3, "response_format": "pcm"}
    said = [server.speak(**fields).content for _ in range(2)]
    assert len(calls) == 1
    voice = model.clone_voice(io.BytesIO(clip()), "hello this voice")
    assert said == [pcm16(model.run(Request(TEXT, voice=voice, seed=3, max_frames=3)).audio)] * 2
    timbre = model.clone_voice(io.BytesIO(clip()))
    only = server.speak(**fields, x_vector_only_mode=True, task_type="Base").content
    assert only == pcm16(model.run(Request(TEXT, voice=timbre, seed=3, max_frames=3)).audio)
    assert voice_named(server, "me") is None
    batch = {"items": [{"input": "One."}, {"input": "Two."}], **fields}
    results = server.client.post("/v1/audio/speech/batch", json=batch).json()["results"]
    assert [result["status"] for result in results] == ["success", "success"]


def test_clips_wait_in_a_bounded_queue(server_voices, monkeypatch):
    """Voices are made before their requests queue for a place."""
    go_on = threading.Event()
    clone = Qwen3TTS.clone_voice

    def clone_slowly(*args, **options):
        assert go_on.wait(30)
        return clone(*args, **options)

    monkeypatch.setattr(Qwen3TTS, "clone_voice", clone_slowly)
    audio = "data:audio/wav;base64," + base64.b64encode(clip()).decode()

    def speak(number: int):
        return server.speak(ref_audio=audio, ref_text=f"{number}", max_frames=2, response_format="pcm")

    with (
        running(models=("demo-base",), batch_size=1, queue_size=1) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        try:
            waiting = [pool.submit(speak, number) for number in range(2)]
            assert eventually(lambda: server.service.active == 2)
            assert eventually(lambda: speak(2).status_code == 429)
            assert upload(server).json()["error"]["code"] == "queue_full"
        finally:
            go_on.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert speak(2).status_code == 200


def test_nothing_is_fetched(server, monkeypatch):
    """A URL in ref_audio opens no connection and no file."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/clip.wav"
    for value in (
        url,
        url.replace("http", "HTTPS"),
        "file:///etc/hosts",
        "/etc/hosts",
        "data:,x",
        f"{url};base64,AAAA",
    ):
        assert server.speak(ref_audio=value).json()["error"]["param"] == "ref_audio"
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.close()


def test_a_clip_that_is_too_large(server):
    data = "data:audio/wav;base64," + "A" * (server.service.settings.max_upload * 4 // 3 + 100)
    assert (
        server.client.post("/v1/audio/speech", content=json.dumps({"input": TEXT, "ref_audio": data})).status_code
        == 413
    )


def test_an_alias(server):
    """For clients whose voices cannot be changed."""
    said = server.speak(voice="Nova", seed=3, max_frames=3, response_format="pcm")
    assert said.content == server.speak(voice="rms", seed=3, max_frames=3, response_format="pcm").content
