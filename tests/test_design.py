"""Designed voices: a VoiceDesign model speaks a reference, a Base model clones it, and the library keeps it."""

import json

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import GenerationError, Qwen3TTS, RequestError, VoiceClonePrompt
from mlx_qwen3_tts.capabilities import languages
from mlx_qwen3_tts.voice_design import REFERENCE_TEXTS, DesignedReference, reference_text
from tests.support import checkpoints, released

DESCRIPTION = "A deep voice."
TEXT = "Hello world, this is a voice."
SEED, OTHER_SEED = 22, 12  # of speeches that end soon
FRAMES = 13  # of the speech of SEED
SECONDS = FRAMES * 0.08


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A VoiceDesign checkpoint whose speech ends: an ordinary code serves as EOS."""
    path = checkpoints.write(tmp_path_factory.mktemp("design") / "model", "equal", "voice_design")
    tts = Qwen3TTS.from_pretrained(path)
    codes = tts.synthesize(TEXT, instruct=DESCRIPTION, seed=SEED, max_frames=FRAMES + 1).codes
    *before, end = codes[:, 0].tolist()
    assert end not in before
    config = json.loads((path / "config.json").read_text())
    config["talker_config"]["codec_eos_token_id"] = end
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def base_directory(tmp_path_factory):
    """Of another shape than the VoiceDesign checkpoint, with another number of samples in a frame."""
    return checkpoints.write(tmp_path_factory.mktemp("base") / "model", "projected", "base")


@pytest.fixture(scope="module")
def designer(directory) -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(directory)


@pytest.fixture(scope="module")
def base(base_directory) -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(base_directory)


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(tmp_path / "voices"))
    return tmp_path / "voices"


def assert_same(voice: VoiceClonePrompt, other: VoiceClonePrompt) -> None:
    np.testing.assert_array_equal(voice.speaker_embedding, other.speaker_embedding)
    np.testing.assert_array_equal(voice.ref_codes, other.ref_codes)
    assert voice.ref_text == other.ref_text


def test_a_designed_voice_is_the_clone_of_its_reference(designer, base):
    voice = designer.design_voice(DESCRIPTION, base, TEXT, "english", SEED)
    speech = designer.synthesize(TEXT, instruct=DESCRIPTION, language="english", seed=SEED)
    assert speech.finish_reason == "stop"
    assert_same(voice, base.clone_voice((speech.audio, speech.sample_rate), TEXT))
    assert voice.provenance == {
        "model": base.name, "clip": "", "seconds": f"{len(speech.audio) / 24000:.2f}",
        "design_model": designer.name, "instruct": DESCRIPTION, "seed": str(SEED),
    }  # fmt: skip
    codes = base.synthesize("Hello", voice=voice, seed=1, max_frames=3).codes
    assert codes.shape == (3, 16)


def test_the_description_and_the_seed_shape_the_voice(designer, base):
    one = designer.design_voice(DESCRIPTION, base, TEXT, seed=SEED)
    assert_same(one, designer.design_voice(DESCRIPTION, base, TEXT, seed=SEED))
    for instruct, seed in (("A high voice.", SEED), (DESCRIPTION, OTHER_SEED)):
        other = designer.design_voice(instruct, base, TEXT, seed=seed)
        assert (one.speaker_embedding != other.speaker_embedding).any()


def test_a_drawn_seed_is_named(designer, base, monkeypatch):
    monkeypatch.setattr("secrets.randbits", lambda _bits: SEED)  # speech of other seeds may not end
    voice = designer.design_voice(DESCRIPTION, base, TEXT)
    assert voice.provenance["seed"] == str(SEED)
    assert_same(voice, designer.design_voice(DESCRIPTION, base, TEXT, seed=SEED))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"instruct": " "}, "the description of the voice is empty"),
        ({"language": "klingon"}, "unknown language 'klingon'"),
        ({"text": ""}, "text"),
        ({"seed": -1}, "seed must be"),
        ({"clone_with": "a path"}, "clone_with must be a Qwen3TTS of a Base model, not 'a path'"),
    ],
)
def test_wrong_arguments(designer, base, arguments, message):
    with pytest.raises(RequestError, match=message):
        designer.design_voice(**{"instruct": DESCRIPTION, "clone_with": base, **arguments})


def test_wrong_models(designer, base):
    with pytest.raises(RequestError, match="a VoiceDesign model cannot clone a voice; use a Base model"):
        designer.design_voice(DESCRIPTION, designer)
    with pytest.raises(RequestError, match="a Base model cannot design a voice; use a VoiceDesign model"):
        base.design_voice(DESCRIPTION, base)


def test_a_reference_that_does_not_end_is_refused(designer):
    speech = designer.synthesize(TEXT, instruct=DESCRIPTION, seed=SEED, max_frames=4)
    assert speech.finish_reason == "length"
    with pytest.raises(GenerationError, match=rf"did not end with its text \(seed {SEED}\): take another seed"):
        DesignedReference(speech, TEXT, DESCRIPTION, "model")


def test_each_released_language_has_a_text(designer):
    config = designer.config
    assert reference_text(None, config) == reference_text("AUTO", config) == reference_text("english", config)
    assert reference_text("Chinese", config) == REFERENCE_TEXTS["chinese"]
    released_languages = released.config("1.7B-VoiceDesign")["talker_config"]["codec_language_id"]
    assert {name for name in released_languages if "dialect" not in name} == REFERENCE_TEXTS.keys()
    assert set(languages(config)) - {"auto"} <= REFERENCE_TEXTS.keys()


def test_command(run_cli, library, directory, base_directory, designer, base, tmp_path, spy):
    """The voice of the library is that of Python; only one of the two models is in memory at a time."""
    calls: list = []
    spy(Qwen3TTS, "unload", calls)
    spy(Qwen3TTS, "clone_reference", calls)
    reference = tmp_path / "reference.wav"
    command = ("design", DESCRIPTION, "--model", directory, "--base", base_directory, "--text", TEXT, "--seed", SEED)
    code, out, err = run_cli(*command, "--save-as", "storyteller", "-o", reference)
    assert (code, out) == (0, ""), err
    assert [name for name, _ in calls] == ["unload", "clone_reference"]
    assert calls[0][1][0].model_type == "voice_design"
    assert f"reference: {SECONDS:.2f} s, seed {SEED}: {TEXT}" in err
    assert "say --voice 'storyteller' speaks in it" in err
    voice = VoiceClonePrompt.load(library / "storyteller.safetensors")
    expected = designer.design_voice(DESCRIPTION, base, TEXT, seed=SEED)
    assert_same(voice, expected)
    assert voice.provenance == expected.provenance
    speech = designer.synthesize(TEXT, instruct=DESCRIPTION, seed=SEED)
    np.testing.assert_allclose(soundfile.read(reference, dtype="float32")[0], speech.audio, atol=1e-4)
    say = ("say", "Hello", "--voice", "storyteller", "--max-frames", 2, "-o", tmp_path / "a.wav")
    code, _, err = run_cli(*say)
    assert (code, f"model: {base.name} (the one that the voice was made with" in err) == (0, True)
    code, out, _ = run_cli("voices", "--model", "demo-random")
    assert f"{SECONDS:.2f} s, {TEXT!r}, designed: {DESCRIPTION!r})" in out
    code, _, err = run_cli(*command, "--save-as", "Storyteller")
    assert (code, "there is a voice 'storyteller' already; --force replaces it" in err) == (1, True)


def test_command_without_a_base_model(run_cli, directory, tmp_path):
    """The reference alone needs none."""
    argv = ("design", DESCRIPTION, "--model", directory, "--base", tmp_path, "--text", TEXT, "--seed", SEED)
    code, _, err = run_cli(*argv, "-o", tmp_path / "r.wav")
    assert code == 0, err
    assert soundfile.info(tmp_path / "r.wav").duration == pytest.approx(SECONDS)


@pytest.mark.parametrize(
    "argv, message",
    [
        ((), "--save-as NAME keeps the voice, and -o FILE writes the reference"),
        (("--force", "-o", "r.wav"), "--force has no effect without --save-as"),
        (("--save-as", "a/b"), "invalid name 'a/b' of a voice"),
        (("--save-as", "me", "--base", "demo-random"), "a CustomVoice model cannot clone a voice; use a Base model"),
        (("-o", "r.xyz"), "r.xyz"),
    ],
)
def test_command_checks_before_it_loads(run_cli, library, tmp_path, monkeypatch, argv, message):
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda *_a, **_o: pytest.fail("a model was loaded"))
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli("design", DESCRIPTION, *argv)
    assert (code, message in err, err.count("\n")) == (1, True, 1)


def test_command_with_another_model(run_cli, library):
    code, _, err = run_cli("design", DESCRIPTION, "--model", "demo-base", "--base", "demo-base", "--save-as", "me")
    assert (code, "a Base model cannot design a voice; use a VoiceDesign model" in err) == (1, True)
    assert list(library.iterdir()) == []
