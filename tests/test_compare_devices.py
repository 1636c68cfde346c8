"""verify's comparison of two devices: equal devices pass, and a difference fails in its own stage."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts.checkpoint.load import load_directory
from mlx_qwen3_tts.evaluation import compare_devices as devices, verify
from mlx_qwen3_tts.evaluation.compare_devices import (
    FLOAT32,
    HALF,
    TF32,
    bar_for,
    compare_devices,
    differences,
    run_stages,
)
from mlx_qwen3_tts.evaluation.machine import Machine
from mlx_qwen3_tts.generation.engine import Engine
from mlx_qwen3_tts.mlx_thread import Worker
from tests.support import checkpoints

STAGES = [
    "prompt", "talker hidden state", "talker logits", "talker step", "code predictor", "codec decoder", "codec encoder",
    "speaker encoder",
]  # fmt: skip
CPU = mx.Device(mx.cpu)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("devices") / "c", "projected", "base")


@pytest.fixture(scope="module")
def reference(base):
    return run_stages(load(base))


def load(directory) -> Engine:
    worker = Worker(CPU)
    return Engine(load_directory(directory, worker=worker), worker)


def failed(reference, found) -> list[str]:
    return [one.stage for one in differences(reference, found, "float32", FLOAT32) if not one.passed]


def test_the_cpu_equals_itself(base):
    found = list(compare_devices(base, CPU, CPU))
    assert [one.stage for one in found] == STAGES
    assert {one.relative for one in found} == {0.0}
    assert all(one.passed for one in found)


def test_other_models_have_no_speaker_encoder(checkpoint):
    assert [one.stage for one in compare_devices(checkpoint, CPU, CPU)] == STAGES[:-1]


def test_half_precision_is_close(base):
    """bfloat16 differs by less than its tolerance, and by more than float32 rounding."""
    found = list(compare_devices(base, CPU, CPU, ("bfloat16",)))
    assert [one.stage for one in found] == [stage for stage in STAGES if not stage.startswith("codec")]
    assert all(one.passed and one.bar == HALF for one in found)
    assert max(one.relative for one in found) > FLOAT32


@pytest.mark.parametrize(
    "part, stages",
    [
        ("network.talker.text_projection.linear_fc1", ["prompt"]),
        ("network.talker.model.layers.0.o_proj", ["talker hidden state", "talker logits", "talker step"]),
        ("network.talker.codec_head", ["talker logits", "talker step"]),
        ("network.talker.code_predictor.model.layers.1.down_proj", ["code predictor"]),
        ("codec.network.decoder.pre_transformer.input_proj", ["codec decoder"]),
        ("codec.network.encoder.encoder_transformer.layers.0.mlp.fc1", ["codec encoder"]),
        ("network.speaker_encoder.fc", ["speaker encoder"]),
    ],
)
def test_an_error_shows_in_its_own_stage(base, reference, part, stages):
    engine = load(base)
    module = engine
    for name in part.split("."):
        module = module[int(name)] if name.isdigit() else getattr(module, name)

    def perturb() -> None:
        module.weight = module.weight * 1.05

    engine.worker.run(perturb)
    found = failed(reference, run_stages(engine, reference))
    # The text projection is also part of the talker's step, whose text is padding.
    assert [stage for stage in found if stage != "talker step"] == [s for s in stages if s != "talker step"]
    assert ("talker step" in found) == ("talker step" in stages or "text_projection" in part)


def test_non_finite_values_fail(reference):
    found = {stage: np.full_like(value, np.nan) for stage, value in reference.items()}
    assert failed(reference, found) == STAGES


def test_silence_equals_silence():
    silence = {"codec decoder": np.zeros(5, np.float32)}
    assert failed(silence, silence) == []
    assert failed(silence, {"codec decoder": np.ones(5, np.float32)}) == ["codec decoder"]


@pytest.mark.parametrize("setting, bar", [(None, TF32), ("1", TF32), ("0", FLOAT32)])
def test_the_tolerance_depends_on_tf32(monkeypatch, setting, bar):
    monkeypatch.delenv("MLX_ENABLE_TF32", raising=False)
    if setting is not None:
        monkeypatch.setenv("MLX_ENABLE_TF32", setting)
    assert bar_for("float32", mx.Device(mx.gpu)) == bar
    assert bar_for("float32", CPU) == FLOAT32, "the CPU has no TF32"
    assert bar_for("bfloat16", mx.Device(mx.gpu)) == HALF
    assert (verify.stream_bar(mx.Device(mx.gpu)) == verify.STREAM_TF32) == (bar == TF32)
    assert verify.stream_bar(CPU) == verify.STREAM_FLOAT32


@pytest.mark.parametrize(
    "dtype, device, bar", [("float32", CPU, 1e-3), ("float32", mx.Device(mx.gpu), 2e-2), ("bfloat16", CPU, 0.1)]
)
def test_bars(monkeypatch, dtype, device, bar):
    """A relative distance just below the bar passes, and one just above it fails."""
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    expected = {"prompt": np.full(100, 3.0, np.float32)}
    for share, passed in ((0.99, True), (1.01, False)):
        outputs = {"prompt": expected["prompt"] * (1 + share * bar)}
        (found,) = differences(expected, outputs, dtype, bar_for(dtype, device))
        assert found.passed == passed


def test_a_stream_may_differ_by_rounding():
    codes = np.zeros((2, 16), np.int32)
    audio = np.zeros(4, np.float32)
    chunks = [
        SimpleNamespace(codes=codes[:1], audio=audio[:2]),
        SimpleNamespace(codes=codes[1:], audio=audio[2:] + 1e-3),
    ]
    assert verify.difference(codes, audio, chunks, verify.STREAM_TF32)[0]
    assert not verify.difference(codes, audio, chunks)[0]


class TestCheck:
    """verify.check_devices, with the CPU in place of the GPU."""

    @pytest.fixture
    def as_gpu(self, monkeypatch):
        monkeypatch.setattr(devices, "Worker", lambda _device: Worker(CPU))
        monkeypatch.setattr(verify, "describe", lambda _device: Machine("chip", 2**30, "system"))

    def check(self, base, **options) -> list[verify.Check]:
        given = {"device": mx.Device(mx.gpu), "own_dtype": "bfloat16", "needed": 1000} | options
        return list(verify.check_devices(base, **given))

    def test_passes(self, as_gpu, base, monkeypatch):
        monkeypatch.setenv("MLX_ENABLE_TF32", "1")
        found = self.check(base)
        stages = STAGES + [stage for stage in STAGES if not stage.startswith("codec")]
        assert [check.name for check in found] == [f"GPU and CPU: {stage}" for stage in stages]
        assert {check.outcome for check in found} == {"pass"}
        assert "float32 against float32, TF32 on" in found[0].detail
        assert "bfloat16 against float32" in found[-1].detail
        monkeypatch.setenv("MLX_ENABLE_TF32", "0")
        found = self.check(base, own_dtype="float32")
        assert "TF32 off" in found[0].detail
        assert len(found) == len(STAGES)

    def test_fails_and_names_the_stage(self, as_gpu, base, monkeypatch):
        predict = devices.predict_frame

        def wrong(talker, hidden, frame):
            wrong.calls += 1
            return predict(talker, hidden, frame) * (1.05 if wrong.calls == 2 else 1)

        wrong.calls = 0
        monkeypatch.setattr(devices, "predict_frame", wrong)
        found = self.check(base, own_dtype="float32")
        assert [check.name for check in found if check.outcome == "fail"] == ["GPU and CPU: code predictor"]

    def test_is_skipped_without_a_gpu(self, base):
        (found,) = self.check(base, device=CPU)
        assert found.outcome == "skip"
        assert "nothing to compare" in found.detail

    def test_is_skipped_without_memory(self, as_gpu, base):
        (found,) = self.check(base, needed=2**30)
        assert found.outcome == "skip"
        assert "over half" in found.detail
