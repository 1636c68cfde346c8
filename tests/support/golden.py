"""Golden data: the recorded requests and the results of the official package.

The environment variable GOLDEN selects another directory of golden data than the committed one (`make parity` generates
one with a new seed).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from safetensors import safe_open

from mlx_qwen3_tts import Qwen3TTS, Request, Sampling, VoiceClonePrompt
from tests.support import sounds
from tests.support.tolerances import TIE

TESTS = Path(__file__).parents[1]
GOLDEN = Path(os.environ.get("GOLDEN") or TESTS / "golden")
SHARED = TESTS.parents[1] / "shared"  # the released vocabulary and recordings, if a developer has them
FRAMES = 42  # greedy frames of each request


@dataclass
class Recorded:
    """The official results for the checkpoints of one shape."""

    shape: str
    asked: dict
    data: dict[str, np.ndarray]
    models: dict[str, Qwen3TTS]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]


@dataclass
class Golden(Recorded):
    """The official results for one checkpoint shape."""

    def cases(self) -> list[tuple[Qwen3TTS, dict]]:
        """Return each recorded request with the model that serves it."""
        return [(self.models[kind], case) for kind in ("custom_voice", "voice_design") for case in self.asked[kind]]


@dataclass
class CloneGolden:
    """The official results for voice cloning with one checkpoint shape."""

    shape: str
    asked: dict
    data: dict[str, np.ndarray]
    tts: Qwen3TTS

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]

    def clips(self) -> dict[str, tuple[np.ndarray, int]]:
        """Return the reference sounds; recordings that are not part of the project come from a separate directory."""
        names = [name.removeprefix("clip-").removesuffix(".mel") for name in self.data if name.endswith(".mel")]
        others = {name: SHARED / "audio" / f"{name}.wav" for name in names if name not in sounds.SOUNDS}
        return sounds.SOUNDS | {name: soundfile.read(path, dtype="float32") for name, path in others.items()}


@dataclass
class BatchGolden(Recorded):
    """The official results for lists of requests in one call, with one checkpoint shape.

    An array of a batch has the batch's name in front, one of a row the batch's name and the row's index.
    """

    def requests(self, batch: dict) -> list[Request]:
        """Return the recorded requests of a batch."""
        return [
            Request(
                text=row["text"],
                voice=self._voice(row),
                language=row["language"],
                instruct=row.get("instruct"),
                non_streaming_mode=batch["non_streaming_mode"],
                sampling=Sampling(do_sample=False, subtalker_dosample=False),
                max_frames=FRAMES,
                stop_runaway=False,
            )
            for row in batch["rows"]
        ]

    def _voice(self, row: dict) -> str | VoiceClonePrompt | None:
        """Return the voice of a row. A clone has the official embedding and codes, which have tests of their own."""
        if "clip" not in row:
            return row.get("speaker")
        text = row.get("ref_text")
        codes = None if text is None else self[f"clip-{row['clip']}.codes"].astype(np.int32)
        return VoiceClonePrompt(self[f"clip-{row['clip']}.embedding"], codes, text)


def read_golden(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    with safe_open(GOLDEN / f"{name}.safetensors", framework="numpy") as file:
        return json.loads(file.metadata()["asked"]), {key: file.get_tensor(key) for key in file.keys()}


def until_a_tie(golden, name: str) -> int:
    """Return how many frames of a recorded greedy run must be equal: all, or those before an official near-tie."""
    ties = (golden[f"{name}.margins"] < TIE).any(axis=1)
    return int(ties.argmax()) if ties.any() else len(ties)


def arguments(case: dict) -> dict:
    """Return a recorded request as arguments of Qwen3TTS.synthesize."""
    call = {key: value for key, value in case.items() if key != "name"}
    if "speaker" in call:
        call["voice"] = call.pop("speaker")
    return call
