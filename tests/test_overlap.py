"""The device has work while the host reads a frame's codes or a chunk's samples."""

import time

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS
from tests.support import checkpoints
from tests.support.engine import Frames, SlowStep, on_mlx_thread


@pytest.fixture(scope="module")
def tts(tmp_path_factory) -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(checkpoints.write(tmp_path_factory.mktemp("overlap") / "c", "projected"))


def test_the_host_waits_once_a_frame(tts, spy):
    """It reads exactly the submitted array, after the next step is queued; nothing else is evaluated."""
    calls = []

    def run() -> list[tuple[str, tuple]]:
        frames = Frames(tts, "Hello world", limit=9)
        for _ in range(2):  # the first frame is read before there is a step
            frames.next()
        for module, name in ((mx, "async_eval"), (mx, "eval"), (mx, "synchronize"), (np, "array")):
            spy(module, name, calls)
        for _ in range(3):
            frames.next()
        return [(name, args) for name, args in calls if name != "array" or isinstance(args[0], mx.array)]

    waits = on_mlx_thread(tts, run)
    assert [name for name, _ in waits] == ["async_eval", "async_eval", "array"] * 3
    for frame, step, read in zip(waits[::3], waits[1::3], waits[2::3], strict=True):
        codes = frame[1][0]
        assert read[1][0] is codes, "an index would add a computation after everything queued"
        assert not any(codes is array for array in step[1]), "all arrays of one submission become ready together"


def test_work_is_left_when_the_codes_arrive(tts, monkeypatch):
    """The codes of a frame do not wait for the talker's next step, which is queued before they are read."""

    def run() -> tuple[float, float]:
        frames = Frames(tts, "Hello world", limit=9)
        frames.next()
        mx.synchronize()
        slow = SlowStep(tts.engine.functions)
        step, taken = tts.engine.functions.step, []

        def last_step(*args, **kwargs):  # the first one generates frame 2; the second one is queued after it
            taken.append(slow if taken else step)
            return taken[-1](*args, **kwargs)

        monkeypatch.setattr(tts.engine.functions, "step", last_step)
        began = time.perf_counter()
        assert frames.next() is not None
        arrived = time.perf_counter() - began
        assert len(taken) == 2
        mx.synchronize()
        return arrived, time.perf_counter() - began

    arrived, done = on_mlx_thread(tts, run)
    assert arrived < done / 2


def test_work_is_left_when_the_audio_arrives(tts, monkeypatch):
    """The samples of a chunk do not wait for work that is queued after them."""
    codes = np.zeros((2, 16), np.int32)

    def run() -> tuple[float, float]:
        numbers = mx.random.uniform(shape=(3_000_000,), key=mx.random.key(0))
        mx.eval(numbers)
        began = time.perf_counter()
        wait, _ = tts.codec.decode_async(codes)
        mx.async_eval(mx.sort(numbers))
        assert len(wait()) == 2 * tts.codec.samples_per_frame
        arrived = time.perf_counter() - began
        mx.synchronize()
        return arrived, time.perf_counter() - began

    on_mlx_thread(tts, tts.codec.decode_next, codes)  # compiles
    arrived, done = on_mlx_thread(tts, run)
    assert arrived < done / 2
