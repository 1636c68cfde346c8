"""Fixtures: golden data, and the checkpoints that it was made on.

GOLDEN names another directory of golden data than the committed one (`make parity` makes one with a new seed).
Everything here runs on MLX's CPU device, where equality is exact on every platform; test_gpu.py alone uses a GPU.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors import safe_open

import checkpoints
from mlx_qwen3_tts import Qwen3TTS

mx.set_default_device(mx.cpu)

GOLDEN = Path(os.environ.get("GOLDEN") or Path(__file__).with_name("golden"))
SHARED = Path(__file__).parents[2] / "shared"  # the released vocabulary and recordings, where a developer has them


@dataclass
class Golden:
    """What the official package computed on one shape of checkpoint."""

    shape: str
    asked: dict
    data: dict[str, np.ndarray]
    models: dict[str, Qwen3TTS]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]

    def cases(self) -> list[tuple[Qwen3TTS, dict]]:
        """Each recorded request with the model that serves it."""
        return [(self.models[kind], case) for kind in ("custom_voice", "voice_design") for case in self.asked[kind]]


def arguments(case: dict) -> dict:
    """A recorded request as arguments of Qwen3TTS.synthesize."""
    call = {key: value for key, value in case.items() if key != "name"}
    if "speaker" in call:
        call["voice"] = call.pop("speaker")
    return call


@pytest.fixture(scope="session", params=checkpoints.SHAPES)
def golden(request, tmp_path_factory) -> Golden:
    with safe_open(GOLDEN / f"{request.param}.safetensors", framework="numpy") as file:
        asked = json.loads(file.metadata()["asked"])
        data = {name: file.get_tensor(name) for name in file.keys()}
    models = {}
    for kind in ("custom_voice", "voice_design"):
        directory = tmp_path_factory.mktemp(f"{request.param}-{kind}") / "checkpoint"
        models[kind] = Qwen3TTS.from_pretrained(checkpoints.write(directory, request.param, kind, asked["seed"]))
    return Golden(request.param, asked, data, models)


@pytest.fixture(scope="session")
def demo() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained("demo")


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A checkpoint directory of this test's own, to be damaged."""
    return checkpoints.write(tmp_path / "checkpoint", "projected")


@pytest.fixture
def run_cli(capfd):
    """Run the command line in this process: exit code, standard output, standard error."""
    from mlx_qwen3_tts.cli import main

    def run(*argv) -> tuple[int, str, str]:
        try:
            code = main([str(arg) for arg in argv])
        except SystemExit as ended:
            code = ended.code
        return (code, *capfd.readouterr())

    return run


def spawn(*argv) -> list[str]:
    """The command line as a process of its own."""
    return [sys.executable, "-m", "mlx_qwen3_tts", *map(str, argv)]
