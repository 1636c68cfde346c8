"""The figures of `bench`, and the counter of operations that stands behind one of them."""

import json

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_qwen3_tts.evaluation.benchmark import _parts, random_model
from mlx_qwen3_tts.evaluation.op_count import count_nodes
from mlx_qwen3_tts.models.fused import FusedLayer


def test_nodes_are_counted():
    x, w = mx.random.normal((4, 8)), mx.ones(8)
    mx.eval(x, w)
    total, launches = count_nodes(lambda: (x + x).reshape(2, 16).T)
    assert (total, launches) == (3, 1), "an addition, and two views"
    assert count_nodes(lambda: mx.fast.rms_norm(x, w, 1e-6))[1] == 1
    assert count_nodes(lambda: [mx.fast.rms_norm(x, None, 1e-6), x @ x.T])[1] == 2
    heads = mx.random.normal((1, 2, 3, 8))
    mx.eval(heads)
    assert count_nodes(lambda: mx.fast.rope(heads, 8, traditional=False, base=1e4, scale=1.0, offset=3))[1] == 1
    attend = lambda: mx.fast.scaled_dot_product_attention(heads, heads, heads, scale=1.0, mask="causal")  # noqa: E731
    assert count_nodes(attend)[1] == 1
    joined = mx.compile(lambda x: mx.sin(x) * 2 + 1)
    assert count_nodes(lambda: joined(x))[1] == 1
    assert count_nodes(lambda: mx.sin(x) * 2 + 1)[1] == 3
    assert (mx.fast.rms_norm(x, None, 1e-6) != mx.cumsum(x, axis=-1)).any(), "the stand-ins are gone"


@pytest.fixture(scope="module")
def tiny():
    return random_model("tiny", "bfloat16")


def test_a_frame_launches_at_most_1500_operations(tiny, monkeypatch):
    """Talker, the text that it is fed, predictor and sampling, at the released depths."""
    embed, fed = type(tiny.talker).embed_text, []
    monkeypatch.setattr(type(tiny.talker), "embed_text", lambda *args: (fed.append(args[1]), embed(*args))[1])
    assert len(tiny.talker.model.layers) == 28
    assert len(tiny.talker.code_predictor.model.layers) == 5
    parts = _parts(tiny)
    assert 1000 < parts["launching_nodes_per_frame"] <= 1500 < parts["graph_nodes_per_frame"]
    assert fed.count([0]) > 1, "the text's embedding is computed in each frame, and is of its cost"


def test_quantized_random_weights():
    tts = random_model("tiny", bits=8)
    layer = tts.talker.model.layers[0]
    assert isinstance(layer, FusedLayer)
    assert layer.qkv_proj.scales.shape[0] == layer.qkv_proj.weight.shape[0]
    tables = [tts.talker.model.codec_embedding, *tts.talker.code_predictor.model.codec_embedding]
    assert {type(table) for table in tables} == {nn.Embedding}, "as `convert --bits` leaves them"
    assert len(tts.synthesize("Hello", seed=1, max_frames=3).codes) == 3


def test_command(run_cli):
    code, out, err = run_cli("bench", "--random", "tiny", "--frames", 5)
    assert code == 0, err
    *table, last = out.splitlines()
    figures = json.loads(last)
    assert [line.split()[0] for line in table] == list(figures)
    assert figures["frames"] == 5
    assert figures["real_time_factor"] * figures["times_real_time"] == pytest.approx(1, rel=1e-2)
    for name in ("talker_ms", "predictor_ms", "sampling_ms", "codec_ms", "graph_building_ms", "first_audio_ms"):
        assert figures[name] > 0, name
    assert figures["bandwidth_floor_ms"] == pytest.approx(
        figures["weights_read_mb_per_frame"] / figures["copy_gb_per_second"], rel=1e-2
    )
    assert run_cli("bench", "--model", "demo-base", "--frames", 3, "--json")[0] == 0


@pytest.mark.parametrize(
    "argv",
    [("--frames", "0"), ("--model", "demo-random", "--random", "tiny"), ("--model", "demo-random", "--bits", "4")],
)
def test_wrong_options(run_cli, argv):
    assert run_cli("bench", *argv)[0] == 1
