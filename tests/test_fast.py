"""Every fast path gives what the plain one gives: exactly, in float32."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import checkpoints
import sounds
from mlx_qwen3_tts import Qwen3TTS, Sampling
from mlx_qwen3_tts.cache import KVCache
from mlx_qwen3_tts.config import CodePredictorConfig
from mlx_qwen3_tts.generate import FrameFunctions, generate_frames, prefill
from mlx_qwen3_tts.prompt import Request
from mlx_qwen3_tts.qwen3 import DecoderLayer

FRAMES = 200
GREEDY = Sampling(do_sample=False, subtalker_dosample=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    result = {}
    for kind in ("custom_voice", "voice_design", "base"):
        directory = checkpoints.write(tmp_path_factory.mktemp("fast") / kind, "projected", kind)
        result[kind] = Qwen3TTS.from_pretrained(directory)
    return result


@pytest.mark.parametrize("sampling", [Sampling(), GREEDY, Sampling(top_k=0, top_p=0.7), Sampling(do_sample=False)])
@pytest.mark.parametrize(
    "kind, options",
    [
        ("custom_voice", {"voice": "ben"}),
        ("custom_voice", {"voice": "chuan", "instruct": "Slowly.", "non_streaming_mode": False}),
        ("voice_design", {"instruct": "A calm voice."}),
        ("base", {"text": "hello this voice"}),
    ],
)
def test_compiled_frames(models, monkeypatch, kind, options, sampling):
    """All of a frame as one compiled function, and the next queued before it is read."""
    tts = models[kind]
    if kind == "base":
        options = {"voice": tts.clone_voice(sounds.SOUNDS["speech"], options["text"])}
    frames = FRAMES if sampling in (Sampling(), GREEDY) and kind != "voice_design" else 30
    fast = tts.synthesize("Hello world", seed=4, max_frames=frames, sampling=sampling, **options)
    monkeypatch.setattr(tts, "_frames", FrameFunctions(tts.talker, compiled=False))
    plain = tts.synthesize("Hello world", seed=4, max_frames=frames, sampling=sampling, **options)
    assert len(plain.codes) > 20
    np.testing.assert_array_equal(fast.codes, plain.codes)


def layer_config(kv_heads: int) -> CodePredictorConfig:
    return CodePredictorConfig(32, 80, 1, 4, kv_heads, 16, 256, 16, 1e-6, 1e6, ("full_attention",))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_fused_layers(kv_heads, dtype):
    """One matrix for q, k and v, one for gate and up, one norm and one rotation for q and k."""
    mx.random.seed(0)
    layer = DecoderLayer(layer_config(kv_heads))
    layer.self_attn.q_norm.weight = 1 + 0.3 * mx.random.normal((16,))
    layer.self_attn.k_norm.weight = 1 + 0.3 * mx.random.normal((16,))
    layer.set_dtype(dtype)
    x = mx.random.normal((1, 9, 32)).astype(dtype)

    def run() -> mx.array:
        cache = KVCache()
        return mx.concatenate([layer(x[:, :5], cache), *(layer(x[:, i : i + 1], cache) for i in range(5, 9))], axis=1)

    plain = run()
    mx.eval(plain)
    layer.fuse()
    names = {name for name, _ in tree_flatten(layer.parameters())}
    assert {"self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight"} <= names
    assert not any("q_proj" in name or "up_proj.weight" in name.replace("gate_up", "") for name in names)
    fused = run()
    if dtype == mx.float32:
        assert mx.abs(fused - plain).max().item() < 1e-5
    else:  # the official norm rounds before it multiplies by its weight, and so does the fused one
        assert mx.abs(fused - plain).max().item() < 0.1
    assert fused.dtype == dtype


def test_functions_are_kept_but_not_for_ever(models):
    frames = FrameFunctions(models["custom_voice"].talker)
    resolved = Sampling().resolve(models["custom_voice"].generation_config)
    assert frames.get(resolved) is frames.get(resolved)
    for top_k in range(20):
        frames.get(Sampling(top_k=top_k).resolve(models["custom_voice"].generation_config))
    assert len(frames._functions) <= 8


def test_no_float32_leaks_into_a_bfloat16_model(checkpoint):
    """Embeddings, hidden states, keys and values stay bfloat16; logits become float32 only for the sampling."""
    tts = Qwen3TTS.from_pretrained(checkpoint, dtype="bfloat16")
    seen = []

    def watch(kind):
        call = kind.__call__

        def watched(self, *args, **kwargs):
            out = call(self, *args, **kwargs)
            arrays = [a for a in (*args, *(out if isinstance(out, tuple) else (out,))) if isinstance(a, mx.array)]
            seen.extend((kind.__name__, a.dtype) for a in arrays if mx.issubdtype(a.dtype, mx.floating))
            return out

        return call, watched

    from mlx_qwen3_tts import code_predictor, qwen3, talker

    kinds = [qwen3.DecoderLayer, qwen3.Attention, qwen3.MLP, code_predictor.CodePredictor, talker.Talker]
    originals = []
    for kind in kinds:
        original, watched = watch(kind)
        originals.append(original)
        kind.__call__ = watched
    try:  # the frames alone: the codec, which is float32 by intent, has the same MLP
        start = tts._prompts.build(Request("Hello"))
        frame_of = tts._frames.get(Sampling().resolve(tts.generation_config))
        list(generate_frames(tts.talker, frame_of, start, prefill(tts.talker, start), 1, 2))
    finally:
        for kind, original in zip(kinds, originals, strict=True):
            kind.__call__ = original
    assert {name for name, _ in seen} == {kind.__name__ for kind in kinds}
    assert {dtype for _, dtype in seen} == {mx.bfloat16}
