"""The stages once more on the GPU, where there is one: looser bars, and codes compared teacher-forced.

A GPU rounds otherwise than the CPU, and one flipped near-tie changes all codes after it: so each step is given the
official codes, and the share of steps that would choose the same is counted.
"""

import mlx.core as mx
import numpy as np
import pytest
from test_talker import forced_logits

import checkpoints
import sounds
from conftest import arguments
from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.conversion.convert import convert
from mlx_qwen3_tts.generation.prompt import Request
from mlx_qwen3_tts.generation.scoring import requests, score
from tolerances import GPU_AGREEMENT, GPU_CODEC, GPU_LOGITS, relative, relative_l2

HAS_GPU = mx.metal.is_available() or mx.cuda.is_available()
pytestmark = pytest.mark.skipif(not HAS_GPU, reason="no GPU here: the CPU tests are the exact ones")


@pytest.fixture(autouse=True)
def gpu():
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(mx.cpu)


def test_prompt_and_logits(golden):
    tts, case = golden.models["custom_voice"], golden.asked["custom_voice"][1]
    prompt = tts._prompts.build(Request(**arguments(case)))
    assert relative(np.array(prompt.embeddings[0]), golden["english-interleaved.embeddings"]) < GPU_LOGITS
    codes, frames = golden["forced.codes"], golden["forced.frames"]
    talker, predictor = forced_logits(tts, prompt, codes)
    same = []
    for i, frame in enumerate(frames):
        assert relative(talker[frame], golden["forced.talker"][i]) < GPU_LOGITS
        assert relative(predictor[frame], golden["forced.predictor"][i]) < GPU_LOGITS
        same.append(talker[frame].argmax() == golden["forced.talker"][i].argmax())
        same.extend(predictor[frame].argmax(-1) == golden["forced.predictor"][i].argmax(-1))
    assert np.mean(same) >= GPU_AGREEMENT


def test_codec(golden):
    codec = golden.models["custom_voice"].codec
    codes, expected = golden["codec-200.codes"][0], golden["codec-200.wave"][0]
    wave = codec.decode(codes)
    stride = 1 if len(wave) == len(expected) else golden.asked["sample_stride"]
    assert relative_l2(wave[::stride], expected) < GPU_CODEC


def test_whole_run(demo):
    result = demo.synthesize("Hello world", seed=1, max_frames=10)
    np.testing.assert_array_equal(demo.synthesize("Hello world", seed=1, max_frames=10).codes, result.codes)
    assert np.isfinite(result.audio).all()


@pytest.mark.parametrize("kind", ["custom_voice", "voice_design", "base"])
@pytest.mark.parametrize("recipe", ["mixed-4", "8bit", "6bit"])
def test_quantized(tmp_path, kind, recipe):
    """The kernels of a recipe's bits, in every mode: teacher-forced, against the CPU's."""
    convert(checkpoints.write_wide(tmp_path / "source", kind, "bfloat16"), tmp_path / "out", recipe)
    models = []
    for device in (mx.cpu, mx.gpu):
        mx.set_default_device(device)
        models.append(Qwen3TTS.from_pretrained(tmp_path / "out", dtype="float32"))
    for transcript in (None, "hello this voice") if kind == "base" else (None,):
        voice = models[1].clone_voice(sounds.SOUNDS["speech"], transcript) if kind == "base" else None
        request = requests(models[1], ["Hello world"], voice, None, 20)[0]
        codes = models[1].synthesize("Hello world", voice, instruct=request.instruct, seed=0, max_frames=20).codes
        found = []
        for device, tts in zip((mx.cpu, mx.gpu), models, strict=True):
            mx.set_default_device(device)
            found.append([np.exp(np.array(part)) for part in score(tts, request, codes)])
        for cpu, gpu in zip(*found, strict=True):
            assert np.abs(cpu - gpu).max() < GPU_LOGITS
            assert (cpu.argmax(-1) == gpu.argmax(-1)).mean() >= GPU_AGREEMENT
