"""The stages on the GPU, if there is one, with looser tolerances and teacher-forced codes.

A GPU rounds differently from the CPU, and one flipped near-tie changes all later codes. Each step is therefore given
the official codes, and the tests check the share of steps that would choose the same code.

A model computes on the device that was the default when it was loaded. For the fixtures of conftest.py this is the CPU,
so these tests load their own models. conftest.py switches TF32 off and reports the float32 precision of these tests.
"""

import threading
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS, Sampling
from mlx_qwen3_tts.capabilities import requests_for
from mlx_qwen3_tts.conversion.convert import convert
from mlx_qwen3_tts.generation.scoring import score
from mlx_qwen3_tts.request import Request
from mlx_qwen3_tts.training.trainer import Trainer, TrainingOptions
from tests.support import checkpoints, sounds, training
from tests.support.engine import HAS_GPU, embeddings_of, forced_logits
from tests.support.golden import arguments
from tests.support.tolerances import GPU_AGREEMENT, GPU_CODEC, GPU_LOGITS, relative, relative_l2

pytestmark = pytest.mark.skipif(not HAS_GPU, reason="no GPU here: the CPU tests are the exact ones")


def load(model: str | Path, device: mx.DeviceType = mx.gpu, dtype: str = "float32") -> Qwen3TTS:
    """Load a model for a device."""
    mx.set_default_device(device)
    try:
        tts = Qwen3TTS.from_pretrained(model, dtype)
    finally:
        mx.set_default_device(mx.cpu)
    assert tts.engine.worker.device.type == device
    return tts


@pytest.fixture
def tts(golden, tmp_path) -> Qwen3TTS:
    """The model of the golden data, on the GPU."""
    return load(checkpoints.write(tmp_path / "c", golden.shape, "custom_voice", golden.asked["seed"]))


def test_prompt_and_logits(golden, tts):
    case = golden.asked["custom_voice"][1]
    prompt = tts.engine.prompts.build(Request(**arguments(case)))
    assert relative(embeddings_of(tts, prompt), golden["english-interleaved.embeddings"]) < GPU_LOGITS
    codes, frames = golden["forced.codes"], golden["forced.frames"]
    talker, predictor = forced_logits(tts, prompt, codes)
    same = []
    for i, frame in enumerate(frames):
        assert relative(talker[frame], golden["forced.talker"][i]) < GPU_LOGITS
        assert relative(predictor[frame], golden["forced.predictor"][i]) < GPU_LOGITS
        same.append(talker[frame].argmax() == golden["forced.talker"][i].argmax())
        same.extend(predictor[frame].argmax(-1) == golden["forced.predictor"][i].argmax(-1))
    assert np.mean(same) >= GPU_AGREEMENT


def test_codec(golden, tts):
    codes, expected = golden["codec-200.codes"][0], golden["codec-200.wave"][0]
    wave = tts.codec.decode(codes)
    stride = 1 if len(wave) == len(expected) else golden.asked["sample_stride"]
    assert relative_l2(wave[::stride], expected) < GPU_CODEC


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_whole_run(dtype):
    """A seed reproduces the speech, also in a stream and after a warm-up."""
    tts = load("demo-random", dtype=dtype)
    call = dict(seed=1, max_frames=10)
    result = tts.synthesize("Hello world", **call)
    assert len(result.codes) == 10
    assert np.isfinite(result.audio).all()
    tts.warm_up()
    np.testing.assert_array_equal(tts.synthesize("Hello world", **call).codes, result.codes)
    chunks = list(tts.stream("Hello world", **call))
    np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), result.codes)
    audio = np.concatenate([chunk.audio for chunk in chunks])
    assert relative_l2(audio, result.audio) < GPU_CODEC


@pytest.mark.parametrize("kind", ["custom_voice", "voice_design", "base"])
@pytest.mark.parametrize("recipe", ["mixed-4", "8bit", "6bit"])
def test_quantized(tmp_path, kind, recipe):
    """The kernels for a recipe's bits agree with the CPU in every mode, teacher-forced.

    Layers are wider than a group, as in all released models: MLX's kernel for narrower ones on Hopper is wrong (see
    RELIABILITY.md).
    """
    convert(checkpoints.write_wide(tmp_path / "source", kind, "bfloat16", width=128), tmp_path / "out", recipe=recipe)
    cpu, gpu = load(tmp_path / "out", mx.cpu), load(tmp_path / "out", mx.gpu)
    for transcript in (None, "hello this voice") if kind == "base" else (None,):
        voice = gpu.clone_voice(sounds.SOUNDS["speech"], transcript) if kind == "base" else None
        request = requests_for(gpu.config, ["Hello world"], voice, None, 20)[0]
        codes = gpu.run(request).codes
        for expected, found in zip(score(cpu.engine, request, codes), score(gpu.engine, request, codes), strict=True):
            assert np.abs(np.exp(expected) - np.exp(found)).max() < GPU_LOGITS
            assert (expected.argmax(-1) == found.argmax(-1)).mean() >= GPU_AGREEMENT


@pytest.fixture(scope="module")
def speaker() -> Qwen3TTS:
    """The demo, which was trained: its choices are clear, so that rounding changes few of them."""
    return load("demo")


TEXTS = ["It is twenty past seven.", "It is ten to nine.", "One two three four.", "It is half past two."]


def test_rows(speaker):
    """Greedy codes of requests side by side are those of each alone: a GPU's rounding depends on the number of rows."""
    greedy = Sampling(do_sample=False, subtalker_dosample=False)
    requests = [Request(text, sampling=greedy, seed=1) for text in TEXTS]
    alone = [speaker.run(request) for request in requests]
    together = speaker.synthesize_batch(requests)
    for one, row in zip(alone, together, strict=True):
        assert one.finish_reason == row.finish_reason == "stop"
        np.testing.assert_array_equal(row.codes, one.codes)
        assert relative_l2(row.audio, one.audio) < GPU_CODEC


def test_threads(speaker):
    """Any thread may speak, one after the other and all at once, and none stops."""
    expected = speaker.synthesize(TEXTS[0], seed=1)
    found = {}

    def speak(number: int) -> None:
        found[number] = speaker.synthesize(TEXTS[0], seed=1)

    thread = threading.Thread(target=speak, args=(0,))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0].codes, expected.codes)
    np.testing.assert_array_equal(found[0].audio, expected.audio)
    threads = [threading.Thread(target=speak, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number].finish_reason for number in range(1, 5)] == ["stop"] * 4


def test_many_lengths(speaker):
    """MLX keeps what it prepares for each shape, and on CUDA fails if there were too many: prompts and chunks vary."""
    for length in range(1, 60):
        result = speaker.synthesize("one two " * (length % 23 + 1), seed=length, max_frames=length)
        assert np.isfinite(result.audio).all()


def test_unload():
    before = mx.get_active_memory()
    tts = load("demo")
    tts.synthesize(TEXTS[0], seed=1)
    loaded = mx.get_active_memory() - before
    assert loaded > 0
    tts.unload()
    assert mx.get_active_memory() - before < 0.01 * loaded


def test_training(tmp_path):
    """The losses of the first steps on the GPU are those of the CPU."""
    directory = training.write_base(tmp_path / "base")
    options = TrainingOptions(epochs=3, batch_size=2, accumulate=1, learning_rate=1e-3)
    curves = []
    for device in (mx.cpu, mx.gpu):
        mx.set_default_device(device)
        try:
            engine = training.load(directory)
        finally:
            mx.set_default_device(mx.cpu)
        assert engine.worker.device.type == device
        sequences = training.sequences(engine, 4)
        curves.append([step.talker_loss for step in Trainer(engine, sequences, [], options).run()])
    assert curves[1][-1] < curves[1][0]
    np.testing.assert_allclose(curves[1], curves[0], rtol=GPU_LOGITS)
