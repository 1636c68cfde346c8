"""Training on real speech: LEARN=1 runs it, in some 3 minutes on two cores, if ../shared/audio has recordings."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import Sampling, VoiceClonePrompt
from mlx_qwen3_tts.training.finetune import FineTuner, FineTuning
from mlx_qwen3_tts.training.lora import LoraOptions
from mlx_qwen3_tts.training.trainer import TrainingOptions
from tests.support import training

RECORDINGS = sorted((Path(__file__).parents[2] / "shared" / "audio").glob("*.wav"))
TEXTS = (
    "Hello world this is one", "speech of the world two", "a voice that is three", "of this and four words",
    "that is number five here", "in the world it is six", "this is a voice seven", "and the eighth of them",
)  # fmt: skip
GREEDY = Sampling(do_sample=False, subtalker_dosample=False, repetition_penalty=1.0)


@pytest.fixture
def data(tmp_path) -> Path:
    """Write eight clips of 1.6 s."""
    lines = []
    for i, text in enumerate(TEXTS):
        samples, rate = soundfile.read(RECORDINGS[i // 4], dtype="float32")
        start = (3 + 3 * (i % 4)) * rate
        soundfile.write(tmp_path / f"{i}.wav", samples[start : start + int(1.6 * rate)], rate)
        lines.append(json.dumps({"audio": f"{i}.wav", "text": text}) + "\n")
    path = tmp_path / "data.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.mark.skipif(os.environ.get("LEARN") != "1" or len(RECORDINGS) < 2, reason="LEARN=1, and needs recordings")
@pytest.mark.parametrize(
    "lora, options",
    [
        (None, TrainingOptions(epochs=120, batch_size=8, accumulate=1, learning_rate=1e-2)),
        (LoraOptions(rank=24, scale=8.0), TrainingOptions(epochs=500, batch_size=8, accumulate=1, learning_rate=2e-2)),
    ],
    ids=["full", "lora"],
)
def test_clips_are_learned_by_heart(data, tmp_path, lora, options):
    """Greedy generation repeats the codes of each clip exactly, and ends."""
    base = training.write_base(tmp_path / "base")
    what = FineTuning("anna", lora, held_out=0.0)
    tuner = FineTuner(data, base, tmp_path / "out", what, options)
    assert len(tuner.train) == 8
    progress = list(tuner.run())
    print(progress[-1])
    tuner.tts.network.eval()
    voice = VoiceClonePrompt(speaker_embedding=tuner.voices["anna"])
    for one in tuner.train:
        result = tuner.tts.synthesize(one.text, voice=voice, sampling=GREEDY, max_frames=40, stop_runaway=False)
        np.testing.assert_array_equal(result.codes, one.codes)
        assert result.finish_reason == "stop"
