"""Compilation precedes the speech, is excluded from its figures, and is announced while it lasts."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.cli import console, demo
from mlx_qwen3_tts.errors import PlaybackError
from tests.support import checkpoints
from tests.support.engine import HAS_GPU

ROOT = Path(__file__).parents[1]
needs_compiler = pytest.mark.skipif(HAS_GPU or shutil.which("g++") is None, reason="counts what g++ compiles")


@pytest.fixture
def silent_machine(monkeypatch):
    def no_device(*_args):
        raise PlaybackError("no loudspeaker")

    monkeypatch.setattr(demo, "open_device", no_device)


def test_the_demo_compiles_before_it_speaks(run_cli, silent_machine, tmp_path, monkeypatch):
    """A slow warm-up comes first, and is announced while it lasts."""
    events = []
    speak = demo.speak
    note = console.note

    def slow_warm_up(*_):
        events.append("warm-up begins")
        time.sleep(1.5)
        events.append("warm-up ends")

    def noted(message):
        if "compiles" in message:
            events.append("announced")
        note(message)

    def spoken(*args, **options):
        events.append("speech")
        return speak(*args, **options)

    monkeypatch.setattr(Qwen3TTS, "warm_up", slow_warm_up)
    monkeypatch.setattr(console, "note", noted)
    monkeypatch.setattr(demo, "speak", spoken)
    code, _, err = run_cli("demo", "-o", tmp_path / "demo.wav")
    assert code == 0, err
    assert events == ["warm-up begins", "announced", "warm-up ends", "speech"]
    assert "MLX compiles its kernels" in err
    assert (tmp_path / "demo.wav").exists()


def test_nothing_is_announced_if_all_is_compiled(run_cli, silent_machine, tmp_path, monkeypatch):
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)
    assert "compiles" not in run_cli("demo", "-o", tmp_path / "demo.wav")[2]


@needs_compiler
def test_kernels_do_not_depend_on_the_number_of_frames(tmp_path):
    """The codec's attention updates its position with the same kernel for chunks of 2 and of 4 frames."""
    script = """
import os, pathlib
import mlx.core as mx
from mlx_qwen3_tts.codec.layers import SlidingAttention
layer = SlidingAttention(8, 1, 1, 8, 1e4, window=4)
function = mx.compile(lambda x, state: layer(x, state)[1].position)
_, state = layer(mx.zeros((1, 1, 8)))
for time in (2, 4, 8):
    mx.eval(function(mx.zeros((1, time, 8)), state))
print(len(list(pathlib.Path(os.environ["TMPDIR"]).rglob("*.so"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    assert int(done.stdout) == 0, "adding two arrays needs no compiled kernel"


# Takes the place of g++, whose arguments end in SOURCE -o TARGET.
COMPILER = """#!{python} -ES
import hashlib, os, shutil, sys
libraries = {libraries}
source = sys.argv[-3] if len(sys.argv) > 3 else os.devnull
library = libraries.get(hashlib.md5(open(source, "rb").read()).digest())
shutil.copyfile(library, sys.argv[-1]) if library else os.execv({compiler!r}, sys.argv)
"""


def compiled_before() -> dict[bytes, str]:
    """Return the libraries of the kernels that earlier processes have compiled, by the hash of the source."""
    directory = Path(tempfile.gettempdir()) / "mlx" / mx.__version__ / "cpu"
    sources = {path: path.with_name(f"lib{path.stem}.so") for path in directory.glob("*.cpp")}
    return {hashlib.md5(path.read_bytes()).digest(): str(so) for path, so in sources.items() if so.exists()}


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_kernel_is_compiled_after_the_warm_up(tmp_path):
    """In a new process with an empty kernel directory. g++ takes half a minute: what is known is copied there."""
    compiler = tmp_path / "g++"
    code = COMPILER.format(python=sys.executable, libraries=compiled_before(), compiler=shutil.which("g++"))
    compiler.write_text(code)
    compiler.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kernels.py"], capture_output=True, text=True, check=True,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    counts = json.loads(done.stdout)
    assert counts["warm_up"] > 20
    assert counts["first_stream"] == counts["interleaved_stream"] == 0


LOADED_AFTER_WARM_UP = """
import sys
from pathlib import Path

from mlx_qwen3_tts import Qwen3TTS, Sampling
from tests.support import sounds

def kernels():
    paths = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return {path for path in paths if "/mlx/" in path and "/cpu/" in path and path.endswith(".so")}

directory, dtype = sys.argv[1:]
tts = Qwen3TTS.from_pretrained(directory, dtype=dtype)
voice = tts.clone_voice(sounds.SOUNDS["speech"], "hello this voice") if tts.model_type == "base" else None
tts.warm_up()
known = kernels()
print("warm-up", len(known))
values = Sampling(temperature=0.5, top_k=20, repetition_penalty=1.3, subtalker_temperature=0.4, subtalker_top_k=7)
for name, request in {
    "default": dict(text="Hello world", seed=1, max_frames=18),
    "sampling": dict(text="Hello world", seed=2, max_frames=5, sampling=values),
    "long text": dict(text="this is a voice of the world " * 30, seed=3, max_frames=5),
    "capacity": dict(text="Hello world", seed=4, max_frames=130, stop_runaway=False),
    "interleaved": dict(text="Hello world, this is a voice", seed=5, max_frames=10, non_streaming_mode=False),
    "live": dict(text=iter(["Hello ", "world"]), seed=6, max_frames=6),
}.items():
    for _ in tts.stream(voice=voice, **request):
        pass
    print(name, len(kernels() - known))
    known |= kernels()
"""


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the memory map of a process, as Linux has it")
@pytest.mark.parametrize("kind, dtype", [("custom_voice", "bfloat16"), ("base", "float32")])
def test_no_kernel_is_loaded_after_the_warm_up(tmp_path, kind, dtype):
    """This holds for a default stream with any values, text, seed and length. Earlier kernel files may be reused."""
    directory = checkpoints.write(tmp_path / "c", "projected", kind)
    argv = [sys.executable, "-c", LOADED_AFTER_WARM_UP, directory, dtype]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    (_, loaded), *requests = (line.rsplit(maxsplit=1) for line in done.stdout.splitlines())
    assert int(loaded) > 30
    assert len(requests) == 6
    assert [name for name, new in requests if new != "0"] == []
