"""The public class: properties, refused options, and streams that add up to the whole."""

import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS, RequestError, Sampling
from mlx_qwen3_tts.request import Request
from tests.support import checkpoints


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    """One checkpoint of each kind: model type and size."""
    result = {}
    for kind, size in (("custom_voice", "0b6"), ("custom_voice", "1b7"), ("voice_design", "1b7"), ("base", "0b6")):
        directory = tmp_path_factory.mktemp("models") / "checkpoint"
        model, codec = checkpoints.configs("projected", kind)
        model["tts_model_size"] = size
        if kind != "custom_voice":
            model["talker_config"] |= {"spk_id": {}, "spk_is_dialect": {}}
        checkpoints.write_checkpoint(directory, model, codec, 1)
        result[f"{kind}-{size}"] = Qwen3TTS.from_pretrained(directory)
    return result


def test_what_a_checkpoint_offers(models):
    preset, designed = models["custom_voice-1b7"], models["voice_design-1b7"]
    assert (preset.model_type, designed.model_type) == ("custom_voice", "voice_design")
    assert preset.speakers == ["ada", "ben", "chuan"]
    assert (preset.default_speaker, designed.default_speaker) == ("ada", None)
    assert designed.speakers == []
    assert preset.languages == ["auto", "english", "chinese"]
    assert preset.sample_rate == 24000


ACCEPTED = [
    ("custom_voice-0b6", {}),
    ("custom_voice-0b6", {"voice": "Ben"}),
    ("custom_voice-0b6", {"voice": "ada", "instruct": ""}),
    ("custom_voice-1b7", {"voice": "ada", "instruct": "Slowly."}),
    ("voice_design-1b7", {"instruct": "A deep voice."}),
    ("voice_design-1b7", {"instruct": ""}),
    ("voice_design-1b7", {"instruct": "A deep voice.", "language": "CHINESE"}),
]
REFUSED = [
    ("custom_voice-0b6", {"instruct": "Slowly."}, "1.7B-CustomVoice"),
    ("custom_voice-1b7", {"voice": "nobody"}, "ada, ben, chuan"),
    ("custom_voice-1b7", {"voice": ""}, "ada, ben, chuan"),
    ("custom_voice-1b7", {"language": "klingon"}, "auto, english, chinese"),
    ("custom_voice-1b7", {"language": "sichuan_dialect"}, "auto, english, chinese"),
    ("voice_design-1b7", {}, "needs instruct"),
    ("voice_design-1b7", {"voice": "ada", "instruct": "A deep voice."}, "CustomVoice"),
    ("base-0b6", {}, "CustomVoice"),
    ("base-0b6", {"voice": "ada"}, "CustomVoice"),
]


@pytest.mark.parametrize("model, options", ACCEPTED)
def test_supported_options(models, model, options):
    assert len(models[model].synthesize("Hello", seed=1, max_frames=2, **options).codes) == 2


@pytest.mark.parametrize("model, options, message", REFUSED)
def test_unsupported_options(models, model, options, message):
    for call in (models[model].synthesize, models[model].stream):
        with pytest.raises(RequestError, match=message):
            call("Hello", **options)


def test_options_change_the_codes(models):
    """Every accepted option has an effect."""
    tts = models["custom_voice-1b7"]

    def codes(**options):
        return tts.synthesize("Hello world", seed=1, max_frames=4, **options).codes

    plain = codes()
    for options in ({"voice": "ben"}, {"language": "english"}, {"instruct": "Slowly."}, {"non_streaming_mode": False}):
        assert (codes(**options) != plain).any(), options
    np.testing.assert_array_equal(codes(voice="ADA"), plain)
    np.testing.assert_array_equal(codes(language="Auto", non_streaming_mode=True, instruct=""), plain)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1}, {"seed": 1.5}, {"seed": 2**63}, {"seed": True}, {"max_frames": 0}, {"max_frames": -3},
        {"max_frames": "9"},
    ],
)  # fmt: skip
def test_numbers_out_of_range(demo, options):
    with pytest.raises(RequestError, match=next(iter(options))):
        demo.synthesize("Hello", **options)


@pytest.mark.parametrize("chunk_frames", [[3], (3,), 3, [np.int64(3)], np.int64(3)])
def test_chunk_frames(demo, chunk_frames):
    chunks = list(demo.stream("Hello", seed=1, max_frames=4, chunk_frames=chunk_frames))
    assert [len(chunk.codes) for chunk in chunks] == [3, 1]


@pytest.mark.parametrize("chunk_frames", [(), (0,), (1, -1), (1.5,), 0, -4, 1.5, "4", {1}, (True,), True])
def test_chunk_frames_out_of_range(demo, chunk_frames):
    with pytest.raises(RequestError, match="chunk_frames"):
        demo.stream("Hello", chunk_frames=chunk_frames)


@pytest.mark.parametrize(
    "text", [None, 5, b"Hello", {"a": "b"}, [5], ["Hello", b"x"], [], iter(["  ", "\n"]), "a\udcffb"]
)
def test_invalid_text(demo, text):
    with pytest.raises(RequestError, match="text"):
        demo.synthesize(text)


@pytest.mark.parametrize(
    "options",
    [
        {"voice": 5}, {"voice": ["ada"]}, {"language": 5}, {"instruct": 5}, {"instruct": "\udcff"}, {"sampling": None},
        {"sampling": {"top_k": 5}}, {"non_streaming_mode": "no"}, {"non_streaming_mode": 1}, {"language": True},
    ],
)  # fmt: skip
def test_options_of_a_wrong_type(demo, options):
    with pytest.raises(RequestError, match=next(iter(options))):
        demo.synthesize("Hello", **options)


def test_numbers_of_other_libraries(demo):
    sampling = Sampling(temperature=np.float32(0.5), top_k=np.int64(9))
    one = demo.synthesize("Hello", seed=np.int64(3), max_frames=np.int32(2), sampling=sampling)
    two = demo.synthesize("Hello", seed=3, max_frames=2, sampling=Sampling(temperature=0.5, top_k=9))
    np.testing.assert_array_equal(one.codes, two.codes)


def test_names_with_capitals(tmp_path):
    """Fine-tuned checkpoints may have names with any capitalization."""
    model, codec = checkpoints.configs("projected")
    model["talker_config"] |= {"spk_id": {"MyVoice": 1100}, "spk_is_dialect": {"MyVoice": False}}
    checkpoints.write_checkpoint(tmp_path / "c", model, codec, 1)
    tts = Qwen3TTS.from_pretrained(tmp_path / "c")
    one = tts.synthesize("Hello", voice="myvoice", seed=1, max_frames=2)
    np.testing.assert_array_equal(tts.synthesize("Hello", voice="MyVoice", seed=1, max_frames=2).codes, one.codes)


def test_streams_are_checked_at_once(demo):
    with pytest.raises(RequestError, match="positions"):
        demo.stream("Q" * 40000)


def test_stream_adds_up(models):
    tts = models["custom_voice-0b6"]
    whole = tts.synthesize("Hello world", seed=5, max_frames=18)
    chunks = list(tts.stream("Hello world", seed=5, max_frames=18))
    assert [len(chunk.codes) for chunk in chunks] == [1, 1, 2, 4, 8, 2]
    assert [chunk.is_final for chunk in chunks] == [False] * 5 + [True]
    np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), whole.codes)
    np.testing.assert_allclose(np.concatenate([chunk.audio for chunk in chunks]), whole.audio, atol=1e-5)
    assert all(chunk.audio.shape == (len(chunk.codes) * tts.codec.samples_per_frame,) for chunk in chunks)


def test_result(demo):
    result = demo.synthesize("Hello", seed=5, max_frames=5)
    assert result.audio.dtype == np.float32
    assert result.audio.shape == (5 * 1920,)
    assert result.codes.dtype == np.int32
    assert 0.01 < np.abs(result.audio).max() < 1
    np.testing.assert_allclose(demo.codec.decode(result.codes), result.audio, atol=1e-6)
    timing = result.timing
    assert (timing.frames, timing.audio_seconds) == (5, 0.4)
    assert 0 < timing.prefill < timing.first_audio <= timing.total
    assert abs(timing.prefill + timing.generation + timing.decode - timing.total) < 1e-6
    assert timing.real_time_factor == timing.total / 0.4
    assert timing.peak_memory > 0


def test_prefill_time_is_that_of_the_prompt(demo):
    demo.synthesize("Hello", seed=5, max_frames=1)  # compiles
    timing = demo.synthesize("Hello " * 200, seed=5, max_frames=1).timing
    assert timing.prefill > timing.generation


def test_the_consumer_s_time_is_not_counted(demo):
    """More chunks than are made ahead: otherwise all are made before the consumer's first pause ends."""
    import time

    for chunk in demo.stream("Hello", seed=5, max_frames=6, chunk_frames=1):
        if not chunk.is_final:
            time.sleep(0.4)
    assert chunk.timing.total < 1, "of two seconds that the consumer took"


def test_frames_stop_at_the_context(models, monkeypatch):
    from dataclasses import replace

    tts = models["custom_voice-1b7"]
    start = len(tts.engine.prompts.build(Request("Hello")))
    monkeypatch.setattr(
        tts.engine,
        "config",
        replace(tts.config, talker_config=replace(tts.config.talker_config, max_position_embeddings=start + 3)),
    )
    result = tts.synthesize("Hello", seed=1)
    assert (len(result.codes), result.finish_reason) == (3, "length")
