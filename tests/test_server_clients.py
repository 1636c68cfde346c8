"""The requests of well-known clients, as their sources send them."""

from tests.support.server import SPEECH, TEXT, decoded

# Open WebUI, backend/open_webui/routers/audio.py (get_available_models, get_available_voices, speech): it reads
# {"models": [{"id"}]} and {"voices": [{"id", "name"}]}, some versions without a key, and posts what the browser sent
# (input, voice; src/lib/apis/audio) with its configured model.
OPEN_WEBUI = {"input": TEXT, "voice": "slt", "model": "tts-1"}
OPEN_WEBUI_HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer sk-none",
    "X-OpenWebUI-User-Name": "A User",
    "X-OpenWebUI-User-Id": "7c1d",
    "X-OpenWebUI-User-Role": "user",
}
# SillyTavern, public/scripts/extensions/tts/openai-compatible.js and src/endpoints/openai.js (custom/generate-voice):
# mp3 always, voices as the user typed them, and an empty key if there is none (fetch cuts the space after "Bearer").
SILLY_TAVERN = {"input": TEXT, "response_format": "mp3", "voice": "rms", "speed": 1, "model": "tts-1"}
SILLY_TAVERN_HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer"}
# vLLM-Omni, docs/serving/speech_api.md: its examples.
VLLM_OMNI = {"input": TEXT, "voice": "slt", "language": "English", "task_type": "CustomVoice", "response_format": "wav"}


def test_open_webui(server):
    models = server.client.get("/v1/audio/models").json().get("models", [])
    assert [model["id"] for model in models] == ["demo", "demo-base", "demo-random"]
    voices = server.client.get("/v1/audio/voices").json().get("voices", [])
    assert {voice["id"]: voice["name"] for voice in voices}["slt"] == "slt"
    said = server.client.post(SPEECH, json=OPEN_WEBUI, headers=OPEN_WEBUI_HEADERS)
    assert said.status_code == 200
    assert len(decoded(said.content, "mp3")[0]) > 12_000
    refused = server.client.post(SPEECH, json={**OPEN_WEBUI, "voice": "alloy"}, headers=OPEN_WEBUI_HEADERS)
    assert "slt, rms" in refused.json()["error"].get("message", "")  # what Open WebUI shows


def test_silly_tavern(server):
    said = server.client.post(SPEECH, json=SILLY_TAVERN, headers=SILLY_TAVERN_HEADERS)
    assert said.status_code == 200
    assert said.headers["content-type"] == "audio/mpeg"
    assert len(decoded(said.content, "mp3")[0]) > 12_000


def test_vllm_omni(server):
    said = server.client.post(SPEECH, json=VLLM_OMNI)
    assert said.status_code == 200
    assert said.content[:4] == b"RIFF"
