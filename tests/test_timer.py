"""The clock of a request: whose time counts for which stage."""

import pytest

from mlx_qwen3_tts.generation.timer import Clock


@pytest.fixture
def passes(monkeypatch):
    """A function that lets seconds pass; all numbers of these tests are exact in binary."""
    now = [1000.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    return pass_time


def test_each_moment_counts_for_one_stage(passes):
    clock = Clock()
    for stage, seconds in (("prefill", 1.0), ("generation", 2.0), ("decode", 4.0), ("generation", 8.0)):
        passes(seconds)
        clock.book(stage)
    assert clock.seconds == {"prefill": 1, "generation": 10, "decode": 4}
    assert clock.total == 15


def test_what_is_left_out(passes):
    """The time while the clock stands, and the wait for the text; what is not booked when it stops is dropped."""
    clock = Clock()
    passes(1)
    clock.book("prefill")
    passes(2)
    clock.stop()
    passes(4)
    clock.book("generation")
    clock.skip(0.5)
    clock.start()
    passes(8)
    clock.start()  # it runs already
    clock.skip(0.5)
    clock.book("generation")
    assert clock.seconds == {"prefill": 1, "generation": 7.5, "decode": 0}


def test_timing(passes):
    """The first audio is noted once."""
    clock = Clock()
    passes(4)
    clock.book("prefill")
    clock.note_audio()
    passes(2)
    clock.book("decode")
    clock.note_audio()
    timing = clock.timing(frames=5, audio_seconds=0.4)
    assert (timing.prefill, timing.generation, timing.decode) == (4, 0, 2)
    assert (timing.first_audio, timing.total) == (4, 6)
    assert (timing.frames, timing.audio_seconds) == (5, 0.4)
