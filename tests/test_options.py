"""Every option with every model type has an effect, is the documented default, or is refused; none is ignored."""

import builtins
import inspect
import re
from dataclasses import fields

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import Qwen3TTS, RequestError, Sampling, SynthesisResult, VoiceClonePrompt, errors
from mlx_qwen3_tts.codec.codec import Codec
from mlx_qwen3_tts.conversion.convert import convert
from mlx_qwen3_tts.evaluation.evaluate import evaluate
from mlx_qwen3_tts.evaluation.verify import verify
from mlx_qwen3_tts.request import Request
from tests.support import checkpoints, sounds

KINDS = {
    "custom_voice-0b6": {"voice": "ada"}, "custom_voice-1b7": {"voice": "ada"},
    "voice_design-1b7": {"instruct": "A deep voice."}, "base-0b6": {}, "base-1b7": {},
}  # fmt: skip
ACTS, SAME, REFUSED = "changes the codes or the frames", "the documented default", "is refused"
EVERYWHERE = {
    ("text", "hello this"): ACTS,
    ("text", ("Hello ", "world")): ACTS,  # an iterator: the interleaved layout
    ("language", "english"): ACTS,
    ("language", "Auto"): SAME,
    ("language", "klingon"): REFUSED,
    ("seed", 2): ACTS,
    ("sampling", Sampling(temperature=0.3)): ACTS,
    ("sampling", Sampling(do_sample=False)): ACTS,
    ("sampling", Sampling(top_k=2)): ACTS,
    ("sampling", Sampling(top_p=0.2)): ACTS,
    ("sampling", Sampling(repetition_penalty=0.05)): ACTS,
    ("sampling", Sampling(subtalker_dosample=False)): ACTS,
    ("sampling", Sampling(subtalker_temperature=0.3)): ACTS,
    ("sampling", Sampling(subtalker_top_k=2)): ACTS,
    ("sampling", Sampling(subtalker_top_p=0.2)): ACTS,
    ("sampling", "greedy"): REFUSED,
    ("max_frames", 3): ACTS,
    ("max_frames", 0): REFUSED,
    ("non_streaming_mode", False): ACTS,
    ("non_streaming_mode", True): SAME,
    ("frames_per_token", 0.01): ACTS,
    ("frames_per_token", -1): REFUSED,
    ("stop_runaway", False): ACTS,
    ("stop_runaway", None): REFUSED,
    ("max_silence", 9): SAME,
    ("max_silence", 0): REFUSED,
    ("chunk_frames", 3): SAME,
    ("chunk_frames", (1, 0)): REFUSED,
}
SOME = {
    "custom_voice-0b6": {
        ("voice", "ben"): ACTS, ("voice", "ADA"): SAME, ("voice", None): SAME, ("voice", "nobody"): REFUSED,
        ("voice", "clone"): REFUSED, ("instruct", "Slowly."): REFUSED, ("instruct", ""): SAME,
    },
    "custom_voice-1b7": {
        ("voice", "ben"): ACTS, ("voice", "clone"): REFUSED, ("instruct", "Slowly."): ACTS, ("instruct", ""): SAME,
    },
    "voice_design-1b7": {
        ("voice", "ada"): REFUSED, ("voice", "clone"): REFUSED, ("instruct", "A high voice."): ACTS,
        ("instruct", None): REFUSED,
    },
    "base-0b6": {
        ("voice", "other clone"): ACTS, ("voice", "ada"): REFUSED, ("voice", None): REFUSED,
        ("voice", "clone of another width"): REFUSED, ("instruct", "Slowly."): REFUSED, ("instruct", ""): SAME,
    },
    "base-1b7": {("voice", "other clone"): ACTS, ("instruct", "Slowly."): REFUSED},
}  # fmt: skip
TABLE = [(kind, *case, then) for kind in KINDS for case, then in {**EVERYWHERE, **SOME[kind]}.items()]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    found = {}
    for name in KINDS:
        kind, size = name.split("-")
        model, codec = checkpoints.configs("projected", kind)
        model["tts_model_size"] = size
        if kind != "custom_voice":
            model["talker_config"] |= {"spk_id": {}, "spk_is_dialect": {}}
        directory = tmp_path_factory.mktemp("options") / name
        checkpoints.write_checkpoint(directory, model, codec, 1)
        found[name] = Qwen3TTS.from_pretrained(directory)
    return found


@pytest.fixture(scope="module")
def clones(models) -> dict[str, VoiceClonePrompt]:
    tts = models["base-0b6"]
    return {
        "clone": tts.clone_voice(sounds.SOUNDS["speech"], "hello this voice"),
        "other clone": tts.clone_voice(sounds.SOUNDS["speech"]),
        "clone of another width": VoiceClonePrompt(np.zeros(7, np.float32)),
    }


@pytest.fixture(scope="module")
def plain_codes() -> dict[str, np.ndarray]:
    """The codes of four frames without the option in question, of each type of model that a test has had."""
    return {}


def speak(tts: Qwen3TTS, options: dict) -> np.ndarray:
    if "chunk_frames" in options:  # an option of stream only
        return np.concatenate([chunk.codes for chunk in tts.stream(**options)])
    return tts.synthesize(**options).codes


@pytest.mark.parametrize("kind, option, value, then", TABLE)
def test_each_option_with_each_type_of_model(models, clones, plain_codes, monkeypatch, kind, option, value, then):
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 2)
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.FRAMES_PER_TOKEN", 0.5)
    tts, plain = models[kind], {"text": "Hello world", "seed": 1, **KINDS[kind]}
    if kind.startswith("base"):
        plain["voice"] = clones["clone"]
    if option not in ("frames_per_token", "stop_runaway", "max_frames"):
        plain["max_frames"] = 4
    options = plain | {option: clones.get(value, value) if isinstance(value, str) else value}
    if option == "stop_runaway" and value is False:  # only the checkpoint's limit ends the speech
        monkeypatch.setattr("mlx_qwen3_tts.generation.speech.frame_limit", lambda *_: 12)
    if then is REFUSED:
        for call in (tts.synthesize, tts.stream):
            with pytest.raises(RequestError):
                call(**options)
        return
    if "max_frames" in plain and kind not in plain_codes:
        plain_codes[kind] = speak(tts, plain)
    one = plain_codes[kind] if "max_frames" in plain else speak(tts, plain)
    two = speak(tts, options)
    assert (one.shape == two.shape and bool((one == two).all())) == (then is SAME), then


def test_the_table_is_complete():
    """It has every option of synthesize, Request and Sampling for every model type."""
    options = set(inspect.signature(Qwen3TTS.synthesize).parameters) - {"self"}
    assert options == {field.name for field in fields(Request)}
    for kind in KINDS:
        assert {option for name, option, _, _ in TABLE if name == kind} == options
        given = [value for name, option, value, then in TABLE if (name, option, then) == (kind, "sampling", ACTS)]
        acting = {f.name for sampling in given for f in fields(Sampling) if getattr(sampling, f.name) is not None}
        assert acting == {field.name for field in fields(Sampling)}
    assert {*inspect.signature(Qwen3TTS.stream).parameters} - {"self"} == options


# Each command-line option that has no effect in combination with another one, and the error.
REFUSED_TOGETHER = [
    ("voices --remove me --model demo", "leave --model, --revision and --adapter out"),
    ("voices --remove me --revision main", "leave --model, --revision and --adapter out"),
    ("voices --remove me --adapter anna", "leave --model, --revision and --adapter out"),
    ("design Deep. -o a.wav --force", "--force has no effect without --save-as"),
    ("clone CLIP -o me.safetensors --force --model demo-base", "--force has no effect without --save-as"),
    ("convert --recipe list --model demo", "takes no other option"),
    ("convert --recipe list --force", "takes no other option"),
    ("convert --recipe list --bits 4", "takes no other option"),
    ("convert --model demo --out DIR --dtype float32 --voice slt", "no effect without --calibrate"),
    ("convert --model demo --out DIR --dtype float32 --group-size 32", "group"),
    ("convert --model demo --out DIR --dtype float32 --scales plain", "scales"),
    ("convert --model demo --out DIR --recipe 4bit --bits 4", "bits"),
    ("convert --model demo --out DIR --bits 8 --shard-size 1e300", "--shard-size"),
    ("say Hello --model demo --revision main -o a.wav", "has no revisions"),
    ("say Hello --model demo --voice slt --ref-audio CLIP -o a.wav", "both name a voice"),
    ("say Hello --model demo --ref-text hello -o a.wav", "need --ref-audio"),
    ("say Hello --model demo-base --ref-audio CLIP --ref-tail 0.5 -o a.wav", "no effect without a transcript"),
    ("say Hello --model demo --device 0 -o a.wav", "add --play"),
    ("say Hello --model demo --greedy --do-sample -o a.wav", "exclude each other"),
    (
        "say Hello --model demo --max-frames 3 --frames-per-token 2 -o a.wav",
        "--frames-per-token has no effect if --max-frames is given",
    ),
    ("verify demo --ref-text hello", "needs --ref-audio"),
    ("verify demo --ref-audio CLIP", "is for Base models"),
    ("bench --model demo --random tiny", "leave one out"),
    ("bench --model demo --bits 4", "bits"),
]


@pytest.mark.parametrize("line, message", REFUSED_TOGETHER, ids=[line for line, _ in REFUSED_TOGETHER])
def test_options_that_would_be_ignored_are_refused(run_cli, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path / "voices"))
    soundfile.write(tmp_path / "clip.wav", sounds.SOUNDS["speech"][0], sounds.SOUNDS["speech"][1])
    code, out, err = run_cli(*line.replace("CLIP", "clip.wav").replace("DIR", "out").split())
    assert (code in (1, 2), out) == (True, "")
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.wav"]


PUBLIC = [
    Qwen3TTS.from_pretrained, Qwen3TTS.synthesize, Qwen3TTS.stream, Qwen3TTS.clone_voice, Qwen3TTS.unload,
    VoiceClonePrompt.save, VoiceClonePrompt.load, Sampling.resolve, Codec.encode, Codec.decode,
    SynthesisResult.save, convert, evaluate, verify,
]  # fmt: skip


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f.__qualname__)
def test_docstrings_list_what_is_raised(function):
    """Every error in a docstring exists, and every error that the function itself raises is in its docstring."""
    listed = set(re.findall(r"\b\w+Error\b", function.__doc__))
    raised = set(re.findall(r"\braise (\w+Error)\b", inspect.getsource(function)))
    assert listed
    assert all(issubclass(getattr(errors, name, None) or getattr(builtins, name), Exception) for name in listed)
    assert raised <= listed
