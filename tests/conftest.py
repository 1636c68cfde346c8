"""Fixtures: the checkpoints of the golden data, the demos, a spy, and the command line.

All tests run on MLX's CPU device, on which equality is exact on every platform; only test_gpu.py uses a GPU.
"""

import os
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.cli import main
from mlx_qwen3_tts.demo import registry
from mlx_qwen3_tts.evaluation.compare_devices import tf32_is_on
from tests.support import checkpoints
from tests.support.engine import HAS_GPU
from tests.support.golden import CloneGolden, Golden, read_golden

# MLX reads it at its first GPU operation, which is in test_gpu.py.
os.environ.setdefault("MLX_ENABLE_TF32", "0")


def pytest_configure() -> None:
    """Compute on the CPU, write the random demos once, and leave the settings of whoever runs the tests out.

    Child processes inherit the first and the last.
    """
    mx.set_default_device(mx.cpu)
    registry.write_checkpoint = checkpoints.kept(registry.write_checkpoint)
    os.environ["MLX_QWEN3_TTS_CONFIG"] = os.devnull
    for name in ("MODEL", "VOICE", "LANGUAGE"):
        os.environ.pop(f"MLX_QWEN3_TTS_{name}", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that compare with golden data, which `make parity` regenerates."""
    for item in items:
        if {"golden", "cloning"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.parity)


def pytest_terminal_summary(terminalreporter) -> None:
    """Report the float32 precision of test_gpu.py."""
    if HAS_GPU:
        used = "TF32" if tf32_is_on() else "full float32"
        terminalreporter.write_line(f"test_gpu.py: {used} (MLX_ENABLE_TF32={os.environ['MLX_ENABLE_TF32']})")


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
    """A checkpoint directory that only this test uses and may damage."""
    return checkpoints.write(tmp_path / "checkpoint", "projected")


@pytest.fixture
def spy(monkeypatch):
    """Record the calls of a function without replacing it: spy(owner, name) returns a list of (name, arguments).

    calls: a list to append to, to record the order of calls to several functions.
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
def no_warm_up(monkeypatch) -> None:
    """Speak at once: a warm-up takes longer than a few frames. test_warm_up.py and child processes have theirs."""
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)


@pytest.fixture
def run_cli(capfd):
    """Run the command line in this process: exit code, standard output, standard error."""

    def run(*argv) -> tuple[int, str, str]:
        try:
            code = main([str(arg) for arg in argv])
        except SystemExit as ended:
            code = ended.code
        return (code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def server_voices(tmp_path_factory) -> Path:
    """The library of the servers of this session."""
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="session")
def session_server():
    from tests.support.server import running  # only these tests need the packages of the server

    with running(voice_aliases={"nova": "rms"}) as server:
        yield server


@pytest.fixture
def server(session_server, server_voices, monkeypatch):
    """A server that others have used, with an empty library; nothing of a request may be left in it."""
    monkeypatch.setenv("MLX_QWEN3_TTS_VOICES", str(server_voices))
    session_server.log.clear()
    yield session_server
    session_server.wait_until_idle()
    for path in server_voices.iterdir():
        path.unlink()
