"""Streams: chunks add up to the whole in every mode, and closing a stream ends its work."""

import gc

import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.generation.frames import FrameFunctions
from tests.support import checkpoints, sounds
from tests.support.tolerances import CHUNKED

FRAMES = 300
MODES = {
    "preset": ("custom_voice", {"voice": "ben"}),
    "preset-interleaved": ("custom_voice", {"voice": "ben", "non_streaming_mode": False}),
    "designed": ("voice_design", {"instruct": "A calm voice."}),
    "cloned-timbre": ("base", {"text": None}),
    "cloned-in-context": ("base", {"text": "hello this voice"}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    kinds = ("custom_voice", "voice_design", "base")
    directories = {kind: tmp_path_factory.mktemp("stream") / kind for kind in kinds}
    return {k: Qwen3TTS.from_pretrained(checkpoints.write(d, "projected", k)) for k, d in directories.items()}


@pytest.mark.parametrize(
    "mode, frames",
    [
        pytest.param("cloned-in-context", FRAMES, marks=pytest.mark.slow),
        *((mode, 20) for mode in MODES),
    ],
)
def test_stream_equals_the_whole(models, mode, frames):
    kind, options = MODES[mode]
    tts = models[kind]
    if kind == "base":
        options = {"voice": tts.clone_voice(sounds.SOUNDS["speech"], options["text"])}
    call = dict(seed=11, max_frames=frames, stop_runaway=False, **options)
    whole = tts.synthesize("Hello world", **call)
    chunks = list(tts.stream("Hello world", **call))
    codes = np.concatenate([chunk.codes for chunk in chunks])
    assert len(codes) == frames
    np.testing.assert_array_equal(codes, whole.codes)
    np.testing.assert_allclose(np.concatenate([chunk.audio for chunk in chunks]), whole.audio, atol=CHUNKED)


def test_one_frame_before_the_first_chunk(models, spy):
    """The first chunk takes one prefill, one frame and one codec step; the talker's next step is not even queued."""
    tts, calls = models["custom_voice"], []
    for owner, name in ((tts.engine, "prefill"), (FrameFunctions, "frame"), (FrameFunctions, "step")):
        spy(owner, name, calls)
    spy(tts.codec, "decode_async", calls)
    stream = tts.stream("Hello world", seed=11)
    assert len(next(stream).codes) == 1
    next(stream)
    names = [name for name, _ in calls]
    assert names[:3] == ["prefill", "frame", "decode_async"]
    assert names[3:6] == ["step", "frame", "step"], "from then on the next step is queued before a frame is read"


def test_closing_ends_the_work(models, spy):
    tts = models["custom_voice"]
    frames = spy(tts.engine.functions, "frame")
    stream = tts.stream("Hello world", seed=11, chunk_frames=(1,))
    for _ in range(3):
        next(stream)
    stream.close()
    tts.synthesize("Hello world", seed=11, max_frames=1)  # after the remaining jobs of the MLX thread
    assert len(frames) <= 4 + 1, "at most the frame in progress"
    assert list(stream) == []


def test_an_abandoned_stream_leaves_nothing_behind(models):
    tts = models["custom_voice"]
    expected = tts.synthesize("Hello world", seed=11, max_frames=5)
    stream = tts.stream("this is a voice", seed=12)
    next(stream)
    next(stream)
    del stream
    gc.collect()
    again = tts.synthesize("Hello world", seed=11, max_frames=5)
    np.testing.assert_array_equal(again.codes, expected.codes)
    np.testing.assert_array_equal(again.audio, expected.audio)
