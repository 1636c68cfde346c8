"""The speaker encoder and the codec's encoder at the released sizes, on random weights (`make parity-full-size`)."""

import os
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from mlx_qwen3_tts import Qwen3TTS
from tests.support import checkpoints, sounds
from tests.support.codes import compare_codes
from tests.support.tolerances import SPEAKER, relative

GOLDEN = os.environ.get("GOLDEN_FULL_SIZE")
pytestmark = pytest.mark.skipif(not GOLDEN, reason="takes minutes and gigabytes: make parity-full-size")


@pytest.mark.parametrize("width", [1024, 2048])
def test_clone(width, tmp_path):
    expected = load_file(Path(GOLDEN) / f"{width}-full-size.safetensors")
    configs = checkpoints.full_size_configs(width)
    checkpoints.write_checkpoint(tmp_path / "c", *configs, checkpoints.GOLDEN_SEED)
    tts, wave = Qwen3TTS.from_pretrained(tmp_path / "c"), sounds.speech(3.0)
    assert relative(tts.clone_voice((wave, 24000)).speaker_embedding, expected["embedding"]) < SPEAKER
    assert compare_codes(tts, wave, expected["codes"]) == 0
