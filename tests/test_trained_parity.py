"""Checkpoints of full fine-tuning: the codes equal those of the official package on the same directory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mlx_qwen3_tts import Qwen3TTS, Sampling, VoiceClonePrompt
from tests.reference.make import trained_voices, trained_weight, write_trained
from tests.support import checkpoints
from tests.support.golden import arguments, read_golden, until_a_tie

pytestmark = pytest.mark.parity

GREEDY = Sampling(do_sample=False, subtalker_dosample=False)


@dataclass
class TrainedGolden:
    """The official results for the trained checkpoint of one shape, and the Base model that was trained."""

    asked: dict
    data: dict[str, np.ndarray]
    base: Qwen3TTS
    tts: Qwen3TTS

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]

    def voices(self) -> dict[str, np.ndarray]:
        """Return the voices that were written, float32 [hidden] by name."""
        return trained_voices(self.base.engine.config.talker_config.hidden_size, self.asked["seed"])


def greedy(tts: Qwen3TTS, case: dict, frames: int, **changed) -> np.ndarray:
    """Return our codes of a recorded request, int [frames, 16]. changed: other arguments than the recorded ones."""
    call = arguments(case) | changed
    return tts.synthesize(**call, sampling=GREEDY, max_frames=frames, stop_runaway=False).codes


@pytest.fixture(scope="module", params=checkpoints.SHAPES)
def trained(request, tmp_path_factory) -> TrainedGolden:
    asked, data = read_golden(f"{request.param}-trained")
    directory = tmp_path_factory.mktemp(request.param)
    base = checkpoints.write(directory / "base", request.param, "base", asked["seed"])
    written = write_trained(directory / "trained", base, asked["seed"])
    return TrainedGolden(asked, data, Qwen3TTS.from_pretrained(base), Qwen3TTS.from_pretrained(written))


def test_greedy_codes(trained):
    for case in trained.asked["cases"]:
        name = case["name"]
        expected = trained[f"{name}.codes"]
        codes = greedy(trained.tts, case, trained.asked["frames"])
        assert len(codes) == len(expected) == trained.asked["frames"]
        frames = until_a_tie(trained, name)
        np.testing.assert_array_equal(codes[:frames], expected[:frames], err_msg=name)


def test_speakers(trained):
    """The official list of them, which is that of the written names in lower case; they are asked for in any case."""
    assert trained.tts.speakers == trained.asked["speakers"] == [name.lower() for name in trained.voices()]
    assert {case["speaker"] for case in trained.asked["cases"]} == {"Anna", "ANNA", "ben", "Ben"}


def test_every_weight_is_written(trained):
    """Those of the network, not those of the Base model, and the voices at their ids; no speaker encoder."""
    written, source = (load_file(Path(tts.name) / "model.safetensors") for tts in (trained.tts, trained.base))
    expected = {
        name: trained_weight(name, weight, trained.asked["seed"])
        for name, weight in source.items()
        if not name.startswith("speaker_encoder.")
    }
    ids = trained.tts.engine.config.talker_config.spk_id
    for name, voice in trained.voices().items():
        expected["talker.model.codec_embedding.weight"][ids[name.lower()]] = voice
    assert written.keys() == expected.keys()
    for name, weight in written.items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)


def test_committed_data_has_no_ties(trained):
    if trained.asked["seed"] != checkpoints.GOLDEN_SEED:
        pytest.skip("a fresh seed may meet one")
    for case in trained.asked["cases"]:
        assert until_a_tie(trained, case["name"]) == trained.asked["frames"]


def differs(trained: TrainedGolden, tts: Qwen3TTS, voices: dict) -> bool:
    """Return whether a model speaks a recorded case with other codes, in the voice that `voices` has for the speaker.

    One case may be deaf to a change: some random networks repeat the same codes whatever they are given.
    """
    for case in trained.asked["cases"]:
        codes = greedy(tts, case, trained.asked["frames"], voice=voices[case["speaker"].lower()])
        if not np.array_equal(codes, trained[f"{case['name']}.codes"]):
            return True
    return False


def test_trained_weights_matter(trained):
    """The Base model, in the same voices, speaks other codes."""
    voices = {name.lower(): VoiceClonePrompt(speaker_embedding=voice) for name, voice in trained.voices().items()}
    assert differs(trained, trained.base, voices)


def test_voices_matter(trained):
    """Each row of the table has the voice of its speaker: with the other speaker the codes are others."""
    assert differs(trained, trained.tts, {"anna": "ben", "ben": "anna"})
