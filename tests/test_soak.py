"""A short run of benchmarks/soak.py, which also detects leaks and wrong results."""

import numpy as np
import pytest

from benchmarks import soak
from mlx_qwen3_tts.codec.codec import Codec
from tests.support import checkpoints


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("soak") / "c", "projected", "base")


@pytest.fixture(autouse=True)
def short_requests(monkeypatch):
    monkeypatch.setattr(soak, "MOST_FRAMES", 12)


@pytest.mark.slow
def test_requests_leave_nothing_behind(directory):
    report = soak.soak(str(directory), 20, 1)
    assert soak.passed(report), report
    assert sum(report["kinds"].values()) == 20
    assert len(report["kinds"]) == len(soak.KINDS), "every kind ran"


@pytest.mark.slow
def test_a_leak_is_found(directory, monkeypatch):
    """The model keeps each request's codec state."""
    kept, decode = [], Codec.decode_async

    def leaking(codec, codes, state=None):
        wait, state = decode(codec, codes, state)
        kept.append(state)
        return wait, state

    monkeypatch.setattr(Codec, "decode_async", leaking)
    monkeypatch.setattr(soak, "WARM_UP", 1)
    report = soak.soak(str(directory), 3, 1)
    assert report["memory_furthest_percent"] > 1, report
    assert not soak.passed(report)


def test_a_wrong_result_is_found(directory, monkeypatch):
    monkeypatch.setattr(soak, "KINDS", [lambda *a: (_ for _ in ()).throw(AssertionError("wrong"))])
    monkeypatch.setattr(soak, "WARM_UP", 0)
    soak.KINDS[0].__name__ = "wrong"
    report = soak.soak(str(directory), 2, 1)
    assert len(report["failures"]) == 2
    assert not soak.passed(report)
    assert isinstance(report["same_codes_again"], bool)
    assert np.isfinite(report["seconds"])
