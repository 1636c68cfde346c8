"""`bench`: its figures, its output formats, and the launch counter behind one of the figures."""

import json
import os
import platform
import re
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_qwen3_tts import GenerationError, Qwen3TTS, Request
from mlx_qwen3_tts.cli.bench import SHARE_COLUMNS, share_row
from mlx_qwen3_tts.codec.codec import Codec
from mlx_qwen3_tts.evaluation import batch_benchmark, benchmark
from mlx_qwen3_tts.evaluation.batch_benchmark import first_audio_in_batch, measure_batch
from mlx_qwen3_tts.evaluation.benchmark import frame_launches, measure
from mlx_qwen3_tts.evaluation.evaluate import evaluate
from mlx_qwen3_tts.evaluation.machine import describe
from mlx_qwen3_tts.evaluation.op_count import STAND_INS, count_by_kind, count_launches, fast_functions_as_one_node
from mlx_qwen3_tts.evaluation.random_model import random_model
from mlx_qwen3_tts.evaluation.verify import verify
from mlx_qwen3_tts.models.fused import FusedLayer
from tests.support import checkpoints

DOCUMENT = Path(__file__).parents[1] / "BENCHMARKS.md"
COMPILATION = 1000.0  # seconds, far longer than anything else here


@pytest.fixture(scope="module", autouse=True)
def few_repeats():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "REPEATS", 1)
        patch.setattr(benchmark, "WARM_STREAMS", 1)
        patch.setattr(batch_benchmark, "REPEATS", 1)
        yield


def test_nodes_are_counted():
    x, w = mx.random.normal((4, 8)), mx.ones(8)
    mx.eval(x, w)
    total, launches = count_launches(lambda: (x + x).reshape(2, 16).T)
    assert (total, launches) == (3, 1), "an addition, and two views"
    assert count_launches(lambda: mx.fast.rms_norm(x, w, 1e-6))[1] == 1
    assert count_launches(lambda: [mx.fast.rms_norm(x, None, 1e-6), x @ x.T])[1] == 2
    heads = mx.random.normal((1, 2, 3, 8))
    mx.eval(heads)
    assert count_launches(lambda: mx.fast.rope(heads, 8, traditional=False, base=1e4, scale=1.0, offset=3))[1] == 1
    attend = lambda: mx.fast.scaled_dot_product_attention(heads, heads, heads, scale=1.0, mask="causal")  # noqa: E731
    assert count_launches(attend)[1] == 1
    joined = mx.compile(lambda x: mx.sin(x) * 2 + 1)
    assert count_launches(lambda: joined(x))[1] == 1
    assert count_launches(lambda: mx.sin(x) * 2 + 1)[1] == 3
    assert (mx.fast.rms_norm(x, None, 1e-6) != mx.cummax(x, axis=-1)).any(), "the stand-ins are removed"


def test_launches_follow_the_rules_of_metal():
    x = mx.random.normal((2, 3, 8))
    position = mx.array([1])
    mx.eval(x, position)
    kinds = count_by_kind(lambda: [mx.concatenate([x, x, x]), mx.slice_update(x, x[:, :1] * 2, position, axes=(1,))])
    assert kinds["Concatenate"] == (1, 3), "one copy for each input"
    assert kinds["DynamicSliceUpdate"] == (1, 2), "the position needs a separate kernel"
    assert kinds["Slice"] == (1, 0)


def fast_functions() -> list:
    return [getattr(mx.fast, name) for name in STAND_INS]


def test_mx_fast_is_restored_after_an_error():
    before = fast_functions()

    def fail():
        assert fast_functions() != before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        count_launches(fail)
    assert fast_functions() == before


def test_nothing_is_replaced_on_a_gpu(monkeypatch):
    """Each function of mx.fast is one node there."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    before = fast_functions()
    with fast_functions_as_one_node():
        assert fast_functions() == before


def test_counting_leaves_the_model_as_it_was(demo):
    before = demo.synthesize("Hello", seed=1, max_frames=3).codes
    frame_launches(demo.engine)
    np.testing.assert_array_equal(demo.synthesize("Hello", seed=1, max_frames=3).codes, before)


@pytest.fixture(scope="module")
def tiny():
    return random_model("tiny", "bfloat16")


def test_launches_of_a_frame(tiny):
    """Talker, text, predictor and sampling at the released depths and in bfloat16, as Metal counts them."""
    assert len(tiny.talker.model.layers) == 28
    assert len(tiny.talker.code_predictor.model.layers) == 5
    assert "small_to_mtp_projection" in tiny.talker.code_predictor, "as in the 1.7B model"
    nodes, launches = frame_launches(tiny.engine)
    assert 1000 < launches <= 1310 < nodes
    assert frame_launches(random_model("tiny", "bfloat16", bits=8).engine)[1] <= 1501


@pytest.mark.slow
def test_quantized_random_weights():
    tts = random_model("tiny", bits=8)
    layer = tts.talker.model.layers[0]
    assert isinstance(layer, FusedLayer)
    assert layer.qkv_proj.scales.shape[0] == layer.qkv_proj.weight.shape[0]
    tables = [tts.talker.model.codec_embedding, *tts.talker.code_predictor.model.codec_embedding]
    assert {type(table) for table in tables} == {nn.Embedding}, "as `convert --bits` leaves them"
    assert len(tts.synthesize("Hello", seed=1, max_frames=3).codes) == 3
    assert measure(tts, 1)["weights"] == "float32, 8 bits"


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    directory = checkpoints.write(tmp_path_factory.mktemp("bench") / "my model", "projected")
    return measure(Qwen3TTS.from_pretrained(directory), 5)


def test_figures(figures):
    assert figures["model"] == "my model", "without parent directories"
    assert figures["frames"] == 5
    assert figures["real_time_factor"] * figures["times_real_time"] == pytest.approx(1, rel=1e-2)
    for name in ("talker_ms", "predictor_ms", "sampling_ms", "codec_ms", "graph_building_ms", "warm_first_audio_ms"):
        assert figures[name] > 0, name
    assert figures["bandwidth_floor_ms"] == pytest.approx(
        figures["weights_read_mb_per_frame"] / figures["copy_gb_per_second"], rel=1e-2
    )


def test_command(run_cli):
    code, out, err = run_cli("bench", "--model", "demo-base", "--frames", 3)
    assert code == 0, err
    *table, last = out.splitlines()
    figures = json.loads(last)
    assert [line.split()[0] for line in table] == list(figures)
    assert "kernels that MLX compiles" in err


@pytest.fixture
def measured(figures, monkeypatch):
    """Figures that `bench` prints instead of measuring."""
    monkeypatch.setattr("mlx_qwen3_tts.cli.bench.measure", lambda _tts, _frames: figures)
    return figures


def test_json_alone(run_cli, measured):
    code, out, _ = run_cli("bench", "--model", "demo-base", "--json")
    assert (code, len(out.splitlines())) == (0, 1)
    assert json.loads(out)["model"] == "my model"


def cells(row: str) -> list[str]:
    assert row.startswith("| ")
    assert row.endswith(" |")
    return [cell.strip() for cell in row[1:-1].split("|")]


def test_share(run_cli, measured):
    """Standard output has one table row and one line of JSON, and nothing else."""
    code, out, _ = run_cli("bench", "--model", "demo-base", "--share")
    assert code == 0
    row, line = out.splitlines()
    figures = json.loads(line)
    shared = dict(zip(SHARE_COLUMNS, cells(row), strict=True))
    assert shared["chip"] == figures["chip"]
    assert shared["memory"] == f"{figures['memory_gib']} GB"
    assert shared["MLX"] == figures["mlx"] == mx.__version__
    assert shared["model"] == "my model"
    assert shared["weights"] == "float32"
    assert shared["first audio, warm"] == f"{figures['warm_first_audio_ms']:,.0f} ms"
    assert shared["launches per frame"] == f"{figures['launches_per_frame']:,}"
    assert shared["real-time factor"] == f"{figures['real_time_factor']:.2f}"


def test_a_shared_row_stays_one_row(figures):
    """The name of a chip or a directory cannot break the row."""
    assert len(cells(share_row(figures | {"chip": "A | B", "model": "a|b"}))) == len(SHARE_COLUMNS)


def test_the_document_has_the_table_of_shared_rows():
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header = rows.index(f"| {' | '.join(SHARE_COLUMNS)} |")
    assert re.fullmatch(r"(\|---)+\|", rows[header + 1])
    assert len(cells(rows[header + 2])) == len(SHARE_COLUMNS)


def test_machine():
    machine = describe(mx.Device(mx.cpu))
    assert machine.chip.endswith("CPU")
    assert machine.memory > 2**29
    assert re.match(r"(macOS|Linux) \d", machine.system)


@pytest.mark.parametrize(
    "info, mac, expected",
    [
        ({"device_name": "Apple M3 Max", "memory_size": 2**36}, "15.5", ("Apple M3 Max", 2**36, "macOS 15.5")),
        ({"device_name": "NVIDIA L4", "total_memory": 2**34}, "", ("NVIDIA L4", 2**34, "Linux 6.8.0, x86_64")),
    ],
)
def test_machine_with_a_gpu(monkeypatch, info, mac, expected):
    monkeypatch.setattr(mx, "device_info", lambda _device: info)
    monkeypatch.setattr(platform, "mac_ver", lambda: (mac, ("", "", ""), ""))
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-45-generic")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert describe(mx.Device(mx.gpu)) == expected


def test_machine_that_mlx_does_not_name(monkeypatch):
    monkeypatch.setattr(mx, "device_info", lambda _device: {})
    machine = describe(mx.Device(mx.gpu))
    assert machine.chip
    assert machine.memory == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_run_without_a_gpu_says_so(run_cli, monkeypatch):
    """The error is MLX's message on a Mac whose GPU is not accessible."""

    def fail(*_args):
        raise RuntimeError(
            "[metal::load_device] No Metal device available. This typically occurs in headless, sandboxed, or "
            "virtualized macOS sessions where the GPU is not accessible."
        )

    monkeypatch.setattr("mlx_qwen3_tts.cli.bench.random_model", fail)
    code, out, err = run_cli("bench", "--random", "tiny")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "MLX finds no GPU in this session" in err
    assert "smaller" not in err, "the advice for a lack of memory"


def test_a_batch_that_memory_does_not_hold(checkpoint, monkeypatch):
    """First audio is measured beside the rows that fit: the others begin when these end."""
    monkeypatch.setattr(batch_benchmark, "BUSY_FRAMES", 10)
    monkeypatch.setattr("mlx_qwen3_tts.generation.scheduler.MEMORY_SHARE", 1e-9)
    tts = Qwen3TTS.from_pretrained(checkpoint)
    with pytest.warns(RuntimeWarning, match=r"batch_size 3: .* hold 1 at a time"):
        row = measure_batch(tts, Request("Hello", max_frames=2), 3)
    assert row["first_audio_ms"] > 0


def test_an_error_beside_the_measured_request(monkeypatch):
    """It ends the measurement instead of leaving it waiting for rows that never begin."""
    tts = Qwen3TTS.from_pretrained("demo-random")

    def fail(_listener):
        raise GenerationError("no memory")
        yield

    monkeypatch.setattr("mlx_qwen3_tts.evaluation.batch_benchmark.BatchListener.chunks", fail)
    with pytest.raises(GenerationError, match="no memory"):
        first_audio_in_batch(tts, Request("Hello", max_frames=3), 3)


@pytest.fixture
def slow_compilation(monkeypatch):
    """The first call of the codec of every model takes COMPILATION seconds, as the clock says."""
    decode = Codec.decode_async
    clock = time.perf_counter
    compiled = set()

    def slow_at_first(codec, *args):
        compiled.add(codec)
        return decode(codec, *args)

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + COMPILATION * len(compiled))
    monkeypatch.setattr(Codec, "decode_async", slow_at_first)


class TestOnlyTheColdFigureIncludesCompilation:
    def test_bench(self, slow_compilation, checkpoint):
        figures = measure(Qwen3TTS.from_pretrained(checkpoint), 5)
        assert figures["cold_first_audio_ms"] >= 1000 * COMPILATION
        assert figures["warm_first_audio_ms"] < 1000 * COMPILATION
        assert figures["frames"] / figures["frames_per_second"] < COMPILATION
        assert figures["codec_ms"] < 1000 * COMPILATION

    def test_verify(self, slow_compilation, checkpoint):
        checks = list(verify(checkpoint, max_frames=5))
        speed = next(check for check in checks if check.name == "speed")
        streams = sum(check.name.endswith(": streamed") for check in checks)
        audio_seconds = streams * 5 * Qwen3TTS.from_pretrained(checkpoint).codec.samples_per_frame / 24000
        factor = float(re.search(r"real-time factor ([\d.]+)", speed.detail)[1])
        assert factor * audio_seconds < COMPILATION

    def test_evaluate(self, slow_compilation, checkpoint):
        found = evaluate(checkpoint, checkpoint, texts=["Hello"], max_frames=5)
        for stats in (found.model, found.reference):
            assert stats.seconds_per_frame * 5 < COMPILATION


@pytest.mark.parametrize(
    "argv",
    [
        ("--frames", "0"),
        ("--model", "demo-random", "--random", "tiny"),
        ("--model", "demo-random", "--bits", "4"),
        ("--revision", "main"),
    ],
)
def test_wrong_options(run_cli, argv):
    assert run_cli("bench", *argv)[0] == 1


def test_one_form_of_output(run_cli):
    assert run_cli("bench", "--json", "--share")[0] == 2


def test_what_a_fast_function_gets_is_counted_too():
    x, w = mx.random.normal((4, 8)), mx.ones(8)
    mx.eval(x, w)
    assert count_launches(lambda: mx.fast.rms_norm(x + x, w * 2, 1e-6))[1] == 3
