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
import soundfile
from safetensors import safe_open

import checkpoints
import sounds
from mlx_qwen3_tts import Qwen3TTS, Sampling
from mlx_qwen3_tts.evaluation.compare_devices import tf32_is_on
from mlx_qwen3_tts.generation.engine import Frames
from mlx_qwen3_tts.generation.frames import FrameFunctions
from mlx_qwen3_tts.generation.prompt import embed
from mlx_qwen3_tts.request import Request
from tolerances import TIE

mx.set_default_device(mx.cpu)
HAS_GPU = mx.metal.is_available() or mx.cuda.is_available()
# MLX reads it at its first operation on a GPU, which is one of test_gpu.py.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

GOLDEN = Path(os.environ.get("GOLDEN") or Path(__file__).with_name("golden"))
SHARED = Path(__file__).parents[2] / "shared"  # the released vocabulary and recordings, where a developer has them


def pytest_terminal_summary(terminalreporter) -> None:
    """State which float32 test_gpu.py ran with."""
    if HAS_GPU:
        used = "TF32" if tf32_is_on() else "full float32"
        terminalreporter.write_line(f"test_gpu.py: {used} (MLX_ENABLE_TF32={os.environ['MLX_ENABLE_TF32']})")


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


@dataclass
class CloneGolden:
    """The same of cloning."""

    shape: str
    asked: dict
    data: dict[str, np.ndarray]
    tts: Qwen3TTS

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]

    def clips(self) -> dict[str, tuple[np.ndarray, int]]:
        """The recorded sounds; recordings that are not part of the project are read from where they were."""
        names = [name.removeprefix("clip-").removesuffix(".mel") for name in self.data if name.endswith(".mel")]
        others = {name: SHARED / "audio" / f"{name}.wav" for name in names if name not in sounds.SOUNDS}
        return sounds.SOUNDS | {name: soundfile.read(path, dtype="float32") for name, path in others.items()}


def read_golden(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    with safe_open(GOLDEN / f"{name}.safetensors", framework="numpy") as file:
        return json.loads(file.metadata()["asked"]), {key: file.get_tensor(key) for key in file.keys()}


def until_a_tie(golden, name: str) -> int:
    """How many frames of a recorded greedy run must be equal: all, or those before the official code's own near-tie."""
    ties = (golden[f"{name}.margins"] < TIE).any(axis=1)
    return int(ties.argmax()) if ties.any() else len(ties)


def on_mlx_thread(tts: Qwen3TTS, function, *args):
    """What a function returns that uses a model's arrays, which belong to the MLX thread."""
    return tts.engine.worker.run(function, *args)


def embeddings_of(tts: Qwen3TTS, prompt) -> np.ndarray:
    """A prompt's embeddings [positions, hidden]."""
    return on_mlx_thread(tts, lambda: np.array(embed(tts.talker, prompt, 0, len(prompt)).astype(mx.float32))[0])


def text_at(tts: Qwen3TTS, prompt) -> np.ndarray:
    """The embedding of the text that the next frame is fed [1, hidden]."""
    return on_mlx_thread(tts, lambda: np.array(tts.talker.embed_text(mx.array(prompt.feed.take())).astype(mx.float32)))


def frames_of(tts: Qwen3TTS, text: str, limit: int) -> Frames:
    """The frames of a request. Use them on the MLX thread."""
    engine = tts.engine
    prompt = engine.prompts.build(Request(text))
    return Frames(engine, prompt, engine.prefill(prompt, seed=1), Sampling().resolve(tts.generation_config), limit)


class SlowStep:
    """Makes a talker's step take some tenths of a second on the device: a sort of three million numbers."""

    def __init__(self, functions: FrameFunctions) -> None:
        self.step = functions.step
        self.numbers = mx.random.uniform(shape=(3_000_000,), key=mx.random.key(0))
        mx.eval(self.numbers)

    def __call__(self, *args, **kwargs):
        hidden, logits, buffers = self.step(*args, **kwargs)
        nothing = 0 * mx.sort(self.numbers)[0]
        return hidden + nothing, logits + nothing, buffers


def arguments(case: dict) -> dict:
    """A recorded request as arguments of Qwen3TTS.synthesize."""
    call = {key: value for key, value in case.items() if key != "name"}
    if "speaker" in call:
        call["voice"] = call.pop("speaker")
    return call


@pytest.fixture(scope="session", params=checkpoints.SHAPES)
def golden(request, tmp_path_factory) -> Golden:
    asked, data = read_golden(request.param)
    models = {}
    for kind in ("custom_voice", "voice_design"):
        directory = tmp_path_factory.mktemp(f"{request.param}-{kind}") / "checkpoint"
        models[kind] = Qwen3TTS.from_pretrained(checkpoints.write(directory, request.param, kind, asked["seed"]))
    return Golden(request.param, asked, data, models)


@pytest.fixture(scope="session", params=checkpoints.SHAPES)
def cloning(request, tmp_path_factory) -> CloneGolden:
    asked, data = read_golden(f"{request.param}-clone")
    directory = tmp_path_factory.mktemp(f"{request.param}-base") / "checkpoint"
    tts = Qwen3TTS.from_pretrained(checkpoints.write(directory, request.param, "base", asked["seed"]))
    return CloneGolden(request.param, asked, data, tts)


@pytest.fixture(scope="session")
def demo() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained("demo-random")


@pytest.fixture(scope="session")
def demo_base() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained("demo-base")


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A checkpoint directory of this test's own, to be damaged."""
    return checkpoints.write(tmp_path / "checkpoint", "projected")


@pytest.fixture
def spy(monkeypatch):
    """Watch a function that still does its work: spy(owner, name) returns the list of its calls, (name, arguments).

    calls: a list to append to, for the order of calls of several functions.
    """

    def watch(owner, name: str, calls: list | None = None) -> list[tuple[str, tuple]]:
        calls = [] if calls is None else calls
        original = getattr(owner, name)

        def noted(*args, **kwargs):
            calls.append((name, args))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)
        return calls

    return watch


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
