"""verify: an intact checkpoint passes, and each kind of damage fails the check for it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.evaluation.fingerprints import KNOWN, Fingerprints, fingerprints
from mlx_qwen3_tts.evaluation.samples import buzz
from mlx_qwen3_tts.evaluation.verify import (
    FINGERPRINT_TOLERANCE,
    SEED,
    STREAM_FLOAT32,
    TEXT,
    Check,
    check_speech,
    difference,
    float32_bytes,
    is_close,
    is_finite,
    modes,
    parameters_of,
    speed,
    verify,
)
from mlx_qwen3_tts.models.cache import KVCache
from mlx_qwen3_tts.result import SynthesisTiming
from tests.support import checkpoints

LIKE = Fingerprints(
    vocabulary=512, pad=(0.0, 0.0, 0.0), ids=(3, 1, 4, 1, 5), layers=((0, 0.0), (1, 0.0)), predictor_layers=((1, 0.0),)
)


@pytest.fixture
def cold(monkeypatch):
    """Leave the warm-up out."""
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)


def outcomes(directory, **options) -> dict[str, tuple[str, str]]:
    return {name: (outcome, detail) for name, outcome, detail in verify(directory, max_frames=4, **options)}


@pytest.mark.parametrize(
    "kind, modes",
    [
        ("custom_voice", ["preset voice", "preset voice, interleaved", "preset voice, instructed"]),
        ("voice_design", ["described voice"]),
        ("base", ["cloned timbre", "cloned in context"]),
    ],
)
def test_intact_checkpoints_pass(tmp_path, kind, modes):
    found = outcomes(checkpoints.write(tmp_path / "c", "projected", kind))
    assert {name for name, (outcome, _) in found.items() if outcome == "fail"} == set()
    names = {name.split(":")[0] for name in found}
    assert names == {"tensors", "values", "fingerprints", "speed", "GPU and CPU", *modes}
    assert {name for name, (outcome, _) in found.items() if outcome == "skip"} == {
        "fingerprints", "GPU and CPU", *(f"{mode}: ends" for mode in modes)
    }  # fmt: skip


@pytest.mark.usefixtures("cold")
def test_the_end_is_checked(checkpoint, monkeypatch):
    """A model that never ends fails this check, and one that ends passes; an ordinary code serves as EOS."""
    text = "It ends."
    monkeypatch.setattr("mlx_qwen3_tts.evaluation.verify.TEXT", text)
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 5)
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.FRAMES_PER_TOKEN", 0.01)
    found = {name: outcome for name, outcome, _ in verify(checkpoint)}
    assert {outcome for name, outcome in found.items() if name.endswith(": ends")} == {"fail"}
    codes = Qwen3TTS.from_pretrained(checkpoint).synthesize(text, seed=SEED, max_frames=5).codes[:, 0].tolist()
    end = next(code for code in codes[2:] if code not in codes[:2])
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    config["talker_config"]["codec_eos_token_id"] = end
    path.write_text(json.dumps(config))
    found = {name: outcome for name, outcome, _ in verify(checkpoint)}
    assert found["preset voice: ends"] == "pass"


def spoil(path, name, change) -> None:
    tensors = load_file(path)
    change(tensors[name])
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.usefixtures("cold")
def test_damage_fails(checkpoint):
    path = checkpoint / "speech_tokenizer" / "model.safetensors"
    kept = path.read_bytes()
    spoil(path, "encoder.downsample.conv.weight", lambda t: np.put(t, 5, np.inf))  # speech would not reveal it
    found = outcomes(checkpoint)
    assert found["values"][0] == "fail"
    assert "encoder.downsample.conv.weight" in found["values"][1]
    path.write_bytes(kept)
    spoil(checkpoint / "model.safetensors", "talker.codec_head.weight", lambda t: t.fill(np.nan))
    found = outcomes(checkpoint)
    assert found["preset voice"][0] == "fail"
    assert "not finite" in found["preset voice"][1]
    path.write_bytes(kept[:-5])
    found = outcomes(checkpoint)
    assert list(found) == ["tensors"]
    assert found["tensors"][0] == "fail"


def test_a_damaged_speaker_encoder_fails(tmp_path):
    """The check fails before any speech, and the rest of the table still follows."""
    directory = checkpoints.write(tmp_path / "c", "projected", "base")
    spoil(directory / "model.safetensors", "speaker_encoder.fc.weight", lambda t: t.fill(np.nan))
    found = outcomes(directory)
    assert {name for name, (outcome, _) in found.items() if outcome == "fail"} == {
        "values", "cloned timbre", "cloned in context"
    }  # fmt: skip


@pytest.mark.usefixtures("cold")
def test_silence_fails(checkpoint):
    path = checkpoint / "speech_tokenizer" / "model.safetensors"
    spoil(path, "decoder.decoder.6.conv.weight", lambda t: t.fill(0))
    spoil(path, "decoder.decoder.6.conv.bias", lambda t: t.fill(0))
    assert outcomes(checkpoint)["preset voice: sounds"][0] == "fail"


@pytest.mark.usefixtures("cold")
def test_a_stream_that_differs_fails(checkpoint, monkeypatch):
    stream = Qwen3TTS.stream
    monkeypatch.setattr(Qwen3TTS, "stream", lambda tts, text, **o: stream(tts, text, **o | {"seed": 1}))
    found = outcomes(checkpoint)["preset voice: streamed"]
    assert found == ("fail", "the codes differ from those generated at once")


def test_fingerprints_match_the_official_flow(checkpoint):
    """They equal the numbers of the talker's own forward pass, one id at a time, as in a request."""
    tts = Qwen3TTS.from_pretrained(checkpoint)
    found = fingerprints(checkpoint, tts.config, LIKE)
    caches = [KVCache() for _ in tts.talker.model.layers]
    steps = [tts.talker(tts.talker.embed_text(mx.array([[id_]])), caches) for id_ in LIKE.ids]
    assert found.codes == tuple(mx.argmax(logits).item() for _, logits in steps)
    first = []

    def choose(g, logits):
        first.append(mx.argmax(logits, axis=-1).item())
        return mx.argmax(logits, axis=-1)

    tts.talker.code_predictor(steps[-1][0], tts.talker.model.codec_embedding(mx.array([found.codes[-1]])), choose)
    assert found.residual_codes[0] == first[0]
    assert len(found.residual_codes) == 15
    pad = tts.talker.embed_text(mx.array([tts.config.tts_pad_token_id]))[0, :3].tolist()
    np.testing.assert_allclose(found.pad, pad, atol=1e-6)
    assert [i for i, _ in found.layers] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("field", ["pad", "codes", "layers", "residual_codes", "predictor_layers"])
def test_fingerprints_decide(checkpoint, field):
    """They pass for the weights that they were computed from, and fail if one number of any field changes."""
    tts = Qwen3TTS.from_pretrained(checkpoint)
    right, kind = fingerprints(checkpoint, tts.config, LIKE), ("custom_voice", tts.config.tts_model_size)

    def check(prints: Fingerprints) -> Check:
        return next(check for check in verify(checkpoint, known={kind: prints}) if check.name == "fingerprints")

    assert check(right).outcome == "pass"
    value = list(getattr(right, field))
    value[-1] = (value[-1][0], value[-1][1] + 0.01) if isinstance(value[-1], tuple) else value[-1] + 0.01
    wrong = replace(right, **{field: tuple(value)})
    found = check(wrong)
    assert found.outcome == "fail"
    assert field in found.detail


def test_known_fingerprints_have_the_released_shape():
    known = KNOWN["base", "0b6"]
    assert len(known.codes) == len(known.ids) == 5
    assert len(known.residual_codes) == 15
    assert all(0 <= code < 2048 for code in (*known.codes, *known.residual_codes))
    assert known.residual_codes[0] == 281


# --- parts of the table, on a model that is not there ---


def model(kind: str = "voice_design", size: str = "1b7", **methods) -> SimpleNamespace:
    engine = SimpleNamespace(worker=SimpleNamespace(device=mx.Device(mx.cpu)))
    return SimpleNamespace(model_type=kind, config=SimpleNamespace(tts_model_size=size), engine=engine, **methods)


def test_the_modes_of_each_kind():
    clip = (np.zeros(5, np.float32), 24_000)
    preset = [("preset voice", {}), ("preset voice, interleaved", {"non_streaming_mode": False})]
    instructed = ("preset voice, instructed", {"instruct": "Speak calmly."})
    assert list(modes(model("custom_voice", "0b6"), None)) == preset
    assert list(modes(model("custom_voice"), None)) == [*preset, instructed]
    assert [name for name, _ in modes(model("voice_design"), None)] == ["described voice"]
    timbre, context = ("cloned timbre", {"clip": (clip, None)}), ("cloned in context", {"clip": (clip, "Hi.")})
    assert list(modes(model("base"), (clip, "Hi."))) == [timbre, context]
    assert list(modes(model("base"), (clip, None))) == [timbre]


@pytest.mark.parametrize("level, sounds", [(0.9e-3, "fail"), (1.1e-3, "pass"), (0.1, "pass"), (np.nan, "fail")])
@pytest.mark.parametrize("reason, ends", [("stop", "pass"), ("max_frames", "fail")])
def test_what_is_said_of_a_speech(level, sounds, reason, ends):
    """Its loudness, its end, that its stream equals it, and the speed of the stream."""
    asked = []
    codes, audio = np.zeros((4, 16), np.int32), np.full(8, level, np.float32)
    timing = SynthesisTiming(0, 0, 0, first_audio=0.25, total=3.0, frames=4, audio_seconds=2.0, peak_memory=0)
    chunks = [SimpleNamespace(codes=codes[i : i + 2], audio=audio[2 * i : 2 * i + 4], timing=timing) for i in (0, 2)]

    def speak(result, text, **options):
        asked.append((text, options))
        return result

    whole = SimpleNamespace(audio=audio, codes=codes, finish_reason=reason)
    tts = model(
        warm_up=lambda: None,
        synthesize=lambda text, **options: speak(whole, text, **options),
        stream=lambda text, **options: speak(chunks, text, **options),
    )
    heard, end, streamed, fast = check_speech(tts, None, None)
    assert (heard.outcome, end.outcome, fast.outcome) == (sounds, ends, "pass")
    assert end.detail == f"finish_reason {reason}"
    assert fast.detail.startswith("real-time factor 1.50, first audio after 250 ms")
    assert asked[0] == asked[1] == (TEXT, {"instruct": asked[0][1]["instruct"], "seed": SEED, "max_frames": None})
    if level == 0.1:
        assert heard.detail == "4 frames, -20 dB"
        assert streamed == ("described voice: streamed", "pass", streamed.detail)


def test_bars():
    """1e-4 between a stream and the whole, and of a fingerprint."""
    assert STREAM_FLOAT32 == FINGERPRINT_TOLERANCE == 1e-4
    codes, audio = np.zeros((1, 16), np.int32), np.zeros(4, np.float32)
    for distance, passes in ((0.9e-4, True), (1.1e-4, False), (-1.1e-4, False)):
        chunk = SimpleNamespace(codes=codes, audio=audio + np.float32(distance))
        assert difference(codes, audio, [chunk])[0] == passes
        assert is_close([0.5, -2.0], [0.5, -2.0 + distance]) == passes
    assert not is_close([0.5], [0.5, 0.5])
    assert is_close((), ())


def test_the_speed_of_several_modes():
    """All work by all audio, and the earliest first audio; nothing is divided by no audio."""

    def timing(first: float, total: float, audio: float) -> SynthesisTiming:
        return SynthesisTiming(0, 0, 0, first, total, frames=1, audio_seconds=audio, peak_memory=0)

    detail = speed([timing(0.25, 3.0, 2.0), timing(0.1, 1.0, 0.5)]).detail
    assert detail.startswith("real-time factor 1.60, first audio after 100 ms")
    assert speed([timing(0.25, 3.0, 0.0)]).outcome == "pass"


def test_the_memory_of_a_comparison_in_float32(demo):
    """This one is in float32 already."""
    assert float32_bytes(demo) == sum(value.nbytes for value in parameters_of(demo).values())


def test_values_that_are_finite():
    for values, expected in (([1.0, 2.0], True), ([1.0, np.inf], False), ([np.nan, 1.0], False), ([1, 2], True)):
        assert is_finite(mx.array(values)) is expected


def test_command(run_cli, checkpoint, tmp_path, monkeypatch):
    code, out, err = run_cli("verify", "demo")
    assert code == 0, out
    assert "skip  fingerprints" in out, "type and size are those of a released model, but the vocabulary is not"
    monkeypatch.setattr("mlx_qwen3_tts.cli.verify.DEMO_FRAMES", 3)
    code, out, err = run_cli("verify", "demo-random")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} == {"pass", "skip"}
    assert "not checked with --max-frames" in out
    assert "3 frames of each mode" in err
    path = checkpoint / "model.safetensors"
    spoil(path, "talker.codec_head.weight", lambda t: t.fill(np.nan))
    code, out, err = run_cli("verify", checkpoint, "--max-frames", 3)
    assert code == 1
    assert "fail  preset voice" in out
    assert "checks failed" in err.splitlines()[-1]
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, *buzz())
    for argv in (
        ["--ref-text", "x"],
        ["--max-frames", 0],
        ["--revision", "main"],
        ["--ref-audio", "none.wav"],
        ["--ref-audio", clip],
    ):
        code, out, err = run_cli("verify", checkpoint, *argv)
        assert (code, out) == (1, ""), argv
