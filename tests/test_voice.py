"""Cloning: prompts and greedy codes equal the official ones; voice files; the library; the guards."""

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mlx_qwen3_tts import (
    AudioError,
    Qwen3TTS,
    RequestError,
    Sampling,
    SynthesisResult,
    VoiceClonePrompt,
    VoiceError,
    voice,
    voice_library,
)
from mlx_qwen3_tts.request import Request
from tests.support import sounds
from tests.support.engine import embeddings_of, text_at
from tests.support.golden import arguments, until_a_tie
from tests.support.tolerances import CODEC, EMBEDDINGS, relative, relative_l2

GREEDY = Sampling(do_sample=False, subtalker_dosample=False)
CLIP = sounds.SOUNDS["speech"]


@pytest.fixture(scope="module")
def requests(cloning) -> dict[str, dict]:
    """The recorded requests by name, with voices that our own encoders create from the recorded clip."""
    calls = {case["name"]: arguments(case) for case in cloning.asked["cases"]}
    texts = {name: call.pop("ref_text", None) for name, call in calls.items()}
    voices = {text: cloning.tts.clone_voice(CLIP, text) for text in set(texts.values())}
    return {name: call | {"voice": voices[texts[name]]} for name, call in calls.items()}


@pytest.fixture(scope="module")
def greedy(cloning, requests) -> Callable[[str], SynthesisResult]:
    """Return the greedy speech of a recorded request, which is generated once."""
    return cache(lambda name: cloning.tts.synthesize(**requests[name], sampling=GREEDY, max_frames=42))


def test_prompts(cloning, requests):
    for name, call in requests.items():
        prompt = cloning.tts.engine.prompts.build(Request(**call))
        assert relative(embeddings_of(cloning.tts, prompt), cloning[f"{name}.embeddings"]) < 10 * EMBEDDINGS, name
        trailing = cloning[f"{name}.trailing"]
        for frame in range(len(trailing)):
            assert relative(text_at(cloning.tts, prompt), trailing[frame : frame + 1]) < EMBEDDINGS, name


def test_the_cases_cover_both_overlays(cloning):
    """In the interleaved in-context cases, one text is shorter and one is longer than the reference."""
    frames = len(cloning["clip-speech.codes"])
    pad = cloning["icl-short-interleaved.trailing"]
    assert len(pad) == 1
    assert len(cloning["icl-long-interleaved.trailing"]) > frames


def test_greedy_codes(cloning, requests, greedy):
    for name in requests:
        expected, frames = cloning[f"{name}.codes"], until_a_tie(cloning, name)
        assert len(expected) == 42
        np.testing.assert_array_equal(greedy(name).codes[:frames], expected[:frames], err_msg=name)


def test_first_sample_is_the_first_of_the_new_speech(cloning, greedy):
    """The decoder is primed with the reference; its output is the official cut of both decoded together."""
    if until_a_tie(cloning, "icl-long") < 42:
        pytest.skip("this seed meets a near-tie")
    result = greedy("icl-long")
    assert abs(len(result.audio) - int(cloning["cut.length"][0])) <= 1, "int() of the official proportion may lose one"
    if len(result.audio) == cloning["cut.length"][0]:
        stride = cloning.asked["sample_stride"]
        assert relative_l2(result.audio[::stride], cloning["cut.wave"]) < CODEC
    unprimed = cloning.tts.codec.decode(result.codes)
    assert relative_l2(unprimed, result.audio) > 0.01, "the reference is part of the first frames' context"


def test_every_part_of_a_voice_has_an_effect(demo_base):
    made = demo_base.clone_voice(CLIP, "hello this voice")

    def codes(voice):
        return demo_base.synthesize("Hello", voice=voice, seed=1, max_frames=6).codes.tolist()

    plain = codes(made)
    assert codes(replace(made, speaker_embedding=-made.speaker_embedding)) != plain
    assert codes(replace(made, ref_codes=made.ref_codes[:-1])) != plain
    assert codes(replace(made, ref_text="another text")) != plain
    assert codes(replace(made, ref_codes=None, ref_text=None)) != plain


# --- files ---


@pytest.fixture(scope="module")
def made(demo_base) -> VoiceClonePrompt:
    return demo_base.clone_voice(CLIP, "hello «this» voice 🙂")


def test_save_and_load(made, tmp_path):
    made.save(tmp_path / "me.safetensors")
    again = VoiceClonePrompt.load(tmp_path / "me.safetensors")
    np.testing.assert_array_equal(again.speaker_embedding, made.speaker_embedding)
    np.testing.assert_array_equal(again.ref_codes, made.ref_codes)
    assert (again.ref_text, again.provenance) == (made.ref_text, made.provenance)
    assert again.provenance == {"model": "demo-base", "clip": "", "seconds": "2.10"}
    assert (tmp_path / "me.safetensors").stat().st_size < 10_000


def test_timbre_only(demo_base, tmp_path):
    demo_base.clone_voice(CLIP).save(tmp_path / "me.safetensors")
    again = VoiceClonePrompt.load(tmp_path / "me.safetensors")
    assert again.ref_codes is None
    assert again.ref_text is None


def rewrite(path: Path, change) -> None:
    """Change tensors and metadata of a file."""
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        about = file.metadata()
    change(tensors, about)
    save_file(tensors, path, about)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, m: t["ref_codes"].__setitem__((0, 0), 1 + t["ref_codes"][0, 0]), "was changed"),
        (lambda t, m: m.update(ref_text="something else"), "was changed"),
        (lambda t, m: m.update(provenance="{}"), "was changed"),
        (lambda t, m: t.pop("speaker_embedding"), "was changed"),
        (lambda t, m: m.pop("sha256"), "was changed"),
        (lambda t, m: m.update(version="2"), "version 2"),
        (lambda t, m: m.update(format="pt"), "not a voice file"),
        (lambda t, m: m.clear(), "not a voice file"),
    ],
)
def test_edited_files(made, tmp_path, change, message):
    path = tmp_path / "me.safetensors"
    made.save(path)
    rewrite(path, change)
    with pytest.raises(VoiceError, match=message):
        VoiceClonePrompt.load(path)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_truncated_files(made, tmp_path, keep):
    path = tmp_path / "me.safetensors"
    made.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VoiceError, match="damaged"):
        VoiceClonePrompt.load(path)


def test_the_size_of_a_file_is_limited(tmp_path):
    """64 MiB are read, and more is refused before anything is read."""
    path = tmp_path / "me.safetensors"
    for size, message in ((64 * 2**20, "damaged"), (64 * 2**20 + 1, "too large")):
        with path.open("wb") as file:
            file.truncate(size)  # takes no room on the disk
        with pytest.raises(VoiceError, match=message):
            VoiceClonePrompt.load(path)


def test_signed_files_with_invalid_parts(made, tmp_path):
    """A file with a valid checksum is refused if its parts are not those of a voice."""
    for name, value in (
        ("speaker_embedding", made.speaker_embedding[None]),
        ("speaker_embedding", np.full_like(made.speaker_embedding, np.inf)),
        ("ref_codes", made.ref_codes[0]),
        ("ref_text", None),
        ("ref_codes", None),
    ):
        wrong = replace(made)
        object.__setattr__(wrong, name, value)  # the constructor would refuse it
        wrong.save(tmp_path / "me.safetensors")
        with pytest.raises(VoiceError, match="does not hold"):
            VoiceClonePrompt.load(tmp_path / "me.safetensors")


@pytest.mark.parametrize("provenance", ["not json", "[1]", '{"model": 5}', "[" * 9000])
def test_invalid_provenance(made, tmp_path, provenance):
    path = tmp_path / "me.safetensors"
    made.save(path)
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        about = file.metadata() | {"provenance": provenance}
    save_file(tensors, path, about | {"sha256": voice.checksum(tensors, about)})
    with pytest.raises(VoiceError, match="does not hold"):
        VoiceClonePrompt.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(VoiceError, match="does not exist"):
        VoiceClonePrompt.load(tmp_path / "me.safetensors")


def test_unwritable(made, tmp_path):
    with pytest.raises(VoiceError, match="cannot write"):
        made.save(tmp_path / "no" / "me.safetensors")


def test_voices_of_another_model(made, demo_base):
    wide = replace(made, speaker_embedding=np.zeros(2048, np.float32))
    with pytest.raises(RequestError, match=r"width 2048 \(1\.7B\)"):
        demo_base.synthesize("Hello", voice=wide)
    for codes in (made.ref_codes[:, :8], made.ref_codes + 256, made.ref_codes - 300):
        with pytest.raises(RequestError, match="codebooks"):
            demo_base.synthesize("Hello", voice=replace(made, ref_codes=codes))


def test_preset_models_take_no_clones(made, demo):
    with pytest.raises(RequestError, match=r"0\.6B-Base"):
        demo.synthesize("Hello", voice=made)
    with pytest.raises(RequestError, match=r"0\.6B-Base"):
        demo.clone_voice(CLIP)


# --- clips ---


def mp3_in_wav(path: Path, audio: np.ndarray, rate: int) -> None:
    """An MP3 stream in a WAV container (format tag 0x55), as some recorders write it."""
    mp3 = path.with_suffix(".mp3")
    soundfile.write(mp3, audio, rate)
    data, channels = mp3.read_bytes(), 1 if audio.ndim == 1 else 2
    about = struct.pack("<HHIIHHHHIHHH", 0x55, channels, rate, 16000, 1, 0, 12, 1, 0, 417, 1, 1393)
    chunks = b"fmt " + struct.pack("<I", len(about)) + about
    chunks += b"fact" + struct.pack("<II", 4, len(audio)) + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)


@pytest.fixture(scope="module")
def originals(demo_base) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """A sound at two sample rates, and its speaker embedding."""
    clips = {rate: sounds.speech(1.2, rate) for rate in (24000, 44100)}
    return {rate: (mono, demo_base.clone_voice((mono, rate)).speaker_embedding) for rate, mono in clips.items()}


@pytest.mark.parametrize(
    "name, tolerance",
    [
        ("PCM_16.wav", 0.01), ("PCM_24.wav", 0.01), ("PCM_32.wav", 0.01), ("FLOAT.wav", 0.01), ("ALAW.wav", 1),
        ("PCM_16.flac", 0.01), ("VORBIS.ogg", 1), ("MPEG_LAYER_III.mp3", 1), ("MP3.wav", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rate, channels", [(24000, 1), (44100, 2)])
def test_formats(demo_base, originals, tmp_path, name, tolerance, rate, channels):
    mono, expected = originals[rate]
    audio = mono if channels == 1 else np.stack([1.2 * mono, 0.8 * mono], axis=1)  # its mean is the mono signal
    path = tmp_path / name
    if name == "MP3.wav":
        mp3_in_wav(path, audio, rate)
    else:
        soundfile.write(path, audio, rate, subtype=path.stem)
    assert np.abs(audio).max() < 1
    for source in (path if channels == 1 else str(path), path.open("rb")):
        found = demo_base.clone_voice(source).speaker_embedding
        assert relative(found, expected) < tolerance


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read as audio"),
        (b"this is no audio at all", "cannot be read as audio"),
        (None, "does not exist"),
    ],
)
def test_non_audio_files(demo_base, tmp_path, content, message):
    path = tmp_path / "clip.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=message):
        demo_base.clone_voice(path)


def test_directory_is_not_audio(demo_base, tmp_path):
    with pytest.raises(AudioError, match="is a directory"):
        demo_base.clone_voice(tmp_path)


def test_clips_that_cannot_be_used(demo_base, tmp_path):
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0, np.float32), 24000)
    with pytest.raises(AudioError, match="no samples"):
        demo_base.clone_voice(empty)
    for wrong in (np.inf, np.nan):
        odd = np.array([0.1, wrong] * 5000, np.float32)
        soundfile.write(tmp_path / "odd.wav", odd, 24000, subtype="FLOAT")
        for source in ((odd, 24000), tmp_path / "odd.wav"):
            with pytest.raises(AudioError, match="not finite"):
                demo_base.clone_voice(source)
    for pair in ((CLIP[0],), (CLIP[0], 24000, 1), ([[0.0], [0.0, 1.0]], 24000)):
        with pytest.raises(AudioError, match="must be a pair"):
            demo_base.clone_voice(pair)
    with pytest.raises(AudioError, match=r"at least 0\.1 s"):
        demo_base.clone_voice((np.zeros(100, np.float32), 24000))
    with pytest.raises(AudioError, match="raise max_seconds"):
        demo_base.clone_voice((np.zeros(24000 * 121, np.float32), 24000))
    assert demo_base.clone_voice((sounds.long(3), 24000), max_seconds=3).provenance["seconds"] == "3.00"


@pytest.mark.parametrize("text", ["", "  ", 5, "\udcff"])
def test_invalid_transcripts(demo_base, text):
    with pytest.raises(RequestError, match="reference text"):
        demo_base.clone_voice(CLIP, text)


def test_tail_needs_a_transcript(demo_base):
    with pytest.raises(RequestError, match="no effect without a transcript"):
        demo_base.clone_voice(CLIP, tail=0.5)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), None, "3"])
def test_limit_out_of_range(demo_base, seconds):
    with pytest.raises(RequestError, match="max_seconds"):
        demo_base.clone_voice(CLIP, max_seconds=seconds)


def test_long_files_are_refused_by_their_header(demo_base, tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8000 * 200, np.float32), 8000)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: pytest.fail("it was read"))
    with pytest.raises(AudioError, match="200 s long"):
        demo_base.clone_voice(path)


@pytest.mark.parametrize("tail", [-1, float("nan"), 1000, None, "3", True])
def test_tail_out_of_range(demo_base, tail):
    with pytest.raises(RequestError, match="tail"):
        demo_base.clone_voice(CLIP, "hello", tail=tail)


@pytest.mark.parametrize("trim", [None, "no", 1])
def test_trim_is_a_switch(demo_base, trim):
    with pytest.raises(RequestError, match="trim"):
        demo_base.clone_voice(CLIP, "hello", trim=trim)


WARNINGS = {
    "s long; 3": ((sounds.speech(0.5), 24000), None),
    "silent": ((np.zeros(48000, np.float32), 24000), None),
    "clipped": ((np.clip(20 * sounds.speech(2.0), -1, 1), 24000), None),
    "too long for the clip": (CLIP, "word " * 40),
    "too short for the clip": ((sounds.long(9), 24000), "Hi."),
}


@pytest.mark.parametrize("message", WARNINGS)
def test_warnings(demo_base, message):
    clip, text = WARNINGS[message]
    (warning,) = demo_base.clone_voice(clip, text).warnings
    assert message in warning


def quiet_noise(seconds: float, peak: float = 0.5, full: int = 0) -> np.ndarray:
    """Noise at 1000 Hz with a peak; its first `full` samples are all at the peak."""
    samples = 0.5 * peak * np.random.default_rng(0).uniform(-1, 1, round(1000 * seconds))
    samples[: max(1, full)] = -peak
    return samples.astype(np.float32)


@pytest.mark.parametrize(
    "clip, text, message",
    [
        (quiet_noise(0.999), None, "s long; 3"),
        (quiet_noise(1), None, None),
        (quiet_noise(30), None, None),
        (quiet_noise(30.001), None, "slows every request"),
        (quiet_noise(3, 0.99e-3), None, "silent"),
        (quiet_noise(3, 1.01e-3), None, None),
        (quiet_noise(2, 1, full=3), None, "clipped"),
        (quiet_noise(2, 1, full=2), None, None),  # one in a thousand
        (quiet_noise(2, 0.9995, full=3), None, "clipped"),
        (quiet_noise(2, 0.9985, full=3), None, None),
        (quiet_noise(2, 3, full=3), None, "clipped"),
        (quiet_noise(2), "a " * 71, "too long for the clip"),
        (quiet_noise(2), "a " * 70, None),  # without spaces
        (quiet_noise(2.001), "a b", "too short for the clip"),
        (quiet_noise(2), "a", None),
        (quiet_noise(3), "a b c", None),
    ],
)
def test_the_bounds_of_the_warnings(clip, text, message):
    found = voice.check_clip(clip, 1000, text)
    assert len(found) == (message is not None)
    assert message is None or message in found[0]


def test_good_clips_cause_no_warnings(demo_base):
    assert demo_base.clone_voice(CLIP, "hello this is a voice").warnings == ()


def test_tail_is_silence_after_the_clip(demo_base):
    plain, tailed = (demo_base.clone_voice(CLIP, "hello", tail=tail) for tail in (0, 0.5))
    np.testing.assert_array_equal(plain.speaker_embedding, tailed.speaker_embedding)
    assert len(tailed.ref_codes) == -(-(len(CLIP[0]) + 12000) // 1920)
    padded = np.concatenate([CLIP[0], np.zeros(12000, np.float32)])
    np.testing.assert_array_equal(tailed.ref_codes, demo_base.codec.encode(padded, 24000))


def test_trim_is_on_request(demo_base):
    quiet = np.concatenate([np.zeros(24000, np.float32), CLIP[0], np.zeros(12000, np.float32)])
    assert demo_base.clone_voice((quiet, 24000)).provenance["seconds"] == "3.60"
    trimmed = float(demo_base.clone_voice((quiet, 24000), trim=True).provenance["seconds"])
    assert abs(trimmed - 2.1) < 0.1


# --- the library and the command line ---


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path / "voices"))
    return tmp_path / "voices"


@pytest.fixture
def clip(tmp_path) -> Path:
    soundfile.write(tmp_path / "me.wav", CLIP[0], CLIP[1])
    return tmp_path / "me.wav"


def test_library_is_in_the_user_s_place(monkeypatch):
    monkeypatch.delenv("MLX_QWEN3_TTS_VOICES", raising=False)
    assert voice_library.library().name == "voices"
    assert voice_library.library().parent.name == "mlx-qwen3-tts"
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", "~/v")
    assert voice_library.library() == Path.home() / "v"


def test_clone_then_say(run_cli, library, clip, tmp_path, demo_base, monkeypatch):
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)
    code, out, err = run_cli("clone", clip, "--text", "hello this voice", "--save-as", "me", "--model", "demo-base")
    assert (code, out) == (0, "")
    assert "2.10 s of audio, 27 frames" in err
    code, _, err = run_cli("say", "Hello", "--voice", "me", "--seed", 1, "--max-frames", 3, "-o", tmp_path / "a.wav")
    assert code == 0, "the voice names the model that created it: " + err
    expected = demo_base.synthesize(
        "Hello", voice=demo_base.clone_voice(clip, "hello this voice"), seed=1, max_frames=3
    )
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav", dtype="float32")[0], expected.audio, atol=1e-4)
    assert "model: demo-base (the one" in err
    assert run_cli("say", "Hello", "--voice", "ME", "--max-frames", 2, "-o", tmp_path / "b.wav")[0] == 0
    code, _, err = run_cli("clone", clip, "--save-as", "me", "--model", "demo-base")
    assert code == 1
    assert "--force" in err
    assert (
        run_cli("clone", clip, "--text", "hello this voice", "--save-as", "me", "--model", "demo-base", "--force")[0]
        == 0
    )
    code, out, _ = run_cli("voices", "--model", "demo-random")
    assert "cloned    me  (demo-base, 2.10 s, 'hello this voice')" in out
    assert "voice     ada" in out
    code, _, _ = run_cli("voices", "--remove", "me")
    assert code == 0
    assert list(library.iterdir()) == []
    code, _, err = run_cli("voices", "--remove", "me")
    assert code == 1
    assert "no voice 'me'" in err


def test_library_is_listed_without_a_network(run_cli, library, made, monkeypatch, tmp_path):
    library.mkdir()
    made.save(library / "me.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, out, err = run_cli("voices")
    assert code == 0
    assert out.startswith("cloned    me")
    assert "cannot be reached" in err
    (library / "me.safetensors").unlink()
    assert run_cli("voices")[0] == 1, "nothing at all was listed"


def test_clips_are_checked_before_a_model_is_loaded(run_cli, monkeypatch, tmp_path, clip):
    monkeypatch.setattr("mlx_qwen3_tts.tts.Qwen3TTS.from_pretrained", lambda *a, **k: pytest.fail("it was loaded"))
    for argv in (
        ("clone", tmp_path / "no.wav", "-o", tmp_path / "v.safetensors"),
        ("clone", clip, "--text", " ", "-o", tmp_path / "v.safetensors"),
        ("say", "Hi", "--ref-audio", clip, "--max-ref-seconds", 1, "-o", tmp_path / "a.wav"),
    ):
        assert run_cli(*argv)[0] == 1


def test_voice_file_equals_direct_cloning(run_cli, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)
    path = tmp_path / "v.safetensors"
    code, _, err = run_cli("clone", clip, "-o", path, "--model", "demo-base")
    assert code == 0
    assert "timbre alone" in err
    argv = ("say", "Hello", "--seed", 1, "--max-frames", 3, "-o")
    assert run_cli(*argv, tmp_path / "a.wav", "--voice", path)[0] == 0
    assert run_cli(*argv, tmp_path / "b.wav", "--ref-audio", clip, "--model", "demo-base")[0] == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert run_cli(*argv, tmp_path / "c.wav", "--ref-audio", clip, "--model", "demo-base", "--ref-text", "hello this",
                   "--ref-tail", 0.5, "--trim-silence")[0] == 0  # fmt: skip
    assert (tmp_path / "a.wav").read_bytes() != (tmp_path / "c.wav").read_bytes()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--ref-audio", "CLIP", "--model", "demo-random"], "0.6B-Base"),
        (["--ref-text", "hello", "--model", "demo-base"], "need --ref-audio"),
        (["--ref-tail", "1", "--model", "demo-base"], "need --ref-audio"),
        (["--ref-audio", "CLIP", "--voice", "x"], "leave one out"),
        (["--ref-audio", "no.wav", "--model", "demo-base"], "no.wav does not exist"),
        (["--ref-audio", "CLIP", "--ref-text", " ", "--model", "demo-base"], "reference text is empty"),
        (["--ref-audio", "CLIP", "--max-ref-seconds", "1", "--model", "demo-base"], "limit is 1 s"),
        (["--voice", "no.safetensors"], "does not exist"),
        (["--voice", "CLIP"], "damaged or not a voice file"),
        (["--voice", "nobody", "--model", "demo-base"], "no voice 'nobody' in your library"),
        (["--voice", "no/such/voice", "--model", "demo-base"], "does not exist"),
        (["--model", "demo-base"], "clone one"),
    ],
)
def test_errors(run_cli, library, clip, tmp_path, options, message):
    options = [str(clip) if option == "CLIP" else option for option in options]
    code, out, err = run_cli("say", "Hello", "-o", tmp_path / "out.wav", *options)
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("name", ["../me", "a/b", "", ".hidden", "x" * 100])
def test_invalid_voice_names(run_cli, library, clip, name):
    assert run_cli("clone", clip, "--save-as", name, "--model", "demo-base")[0] in (1, 2)
    assert not library.exists() or os.listdir(library) == []


def test_voices_whose_names_differ_in_capitals(run_cli, library, made, clip):
    """On a case-sensitive file system both may exist, but a new voice cannot have a name that differs only in case."""
    library.mkdir()
    made.save(library / "me.safetensors")
    code, _, err = run_cli("clone", clip, "--save-as", "ME", "--model", "demo-base")
    assert (code, "there is a voice 'me' already" in err) == (1, True)
    assert run_cli("clone", clip, "--save-as", "ME", "--model", "demo-base", "--force")[0] == 0
    assert os.listdir(library) == ["me.safetensors"]
    made.save(library / "ME.safetensors")
    if len(os.listdir(library)) == 2:
        assert run_cli("voices", "--remove", "me")[0] == 0
        assert os.listdir(library) == ["ME.safetensors"]


def test_names_are_in_order(library):
    library.mkdir()
    for name in ("you", "me", "Bob", "no voice!"):
        (library / f"{name}.safetensors").touch()
    assert voice_library.library_names() == ["Bob", "me", "you"]


def test_files_of_other_names_in_the_library_are_left_alone(run_cli, library, made):
    library.mkdir()
    for name in ("me", "me (1)", "._me"):
        made.save(library / f"{name}.safetensors")
    code, out, _ = run_cli("voices", "--model", "demo-random")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("cloned")] == ["me"]


def test_control_characters_from_files_are_escaped(run_cli, library, made, checkpoint):
    """Names and provenance with control characters, line ends and lone surrogates, from a voice and from a model."""
    library.mkdir()
    replace(made, provenance={"model": "\x1b[31mmine", "seconds": "1\n2"}).save(library / "me.safetensors")
    config = checkpoint / "config.json"
    config.write_text(config.read_text().replace('"ada"', '"\\u001b[2Jada\\ud800"'))
    code, out, _ = run_cli("voices", "--model", checkpoint)
    assert code == 0
    assert "\x1b" not in out
    assert len([line for line in out.splitlines() if line.startswith("cloned")]) == 1
    assert "\\x1b[2Jada\\ud800" in out
    code, _, err = run_cli("say", "Hello", "--voice", "me")
    assert code == 1
    assert "\x1b" not in err


def test_unusable_files_in_the_library_are_listed_as_such(run_cli, library):
    library.mkdir()
    (library / "old.safetensors").write_bytes(b"nothing")
    code, out, _ = run_cli("voices", "--model", "demo-random")
    assert code == 0
    assert "cloned    old  (unusable: " in out


ZEROS, CODES = np.zeros(64, np.float32), np.zeros((3, 16), np.int32)


@pytest.mark.parametrize(
    "parts, message",
    [
        ((ZEROS, CODES), "go together"),  # the transcript would be the word None
        ((ZEROS, None, "hello"), "go together"),
        ((ZEROS * np.nan,), "finite"),
        ((ZEROS[None],), "shape"),
        (([0.0] * 64,), "shape"),
        ((None,), "shape"),
        ((ZEROS, CODES.astype(np.float32), "hello"), "integers"),
        ((ZEROS, CODES[0], "hello"), "integers"),
        ((ZEROS, CODES, "\ud800"), "Unicode"),
        ((ZEROS, CODES, 5), "Unicode"),
    ],
)
def test_voices_with_invalid_parts(parts, message):
    """They raise errors at creation, not during a request or when their file is loaded."""
    with pytest.raises(VoiceError, match=message):
        VoiceClonePrompt(*parts)


def test_invalid_path(made):
    with pytest.raises(VoiceError, match="null byte"):
        made.save("a\0.safetensors")
