"""Every fast path gives what the plain one gives: exactly, in float32."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import checkpoints
import sounds
from mlx_qwen3_tts import Qwen3TTS, Sampling
from mlx_qwen3_tts.checkpoint.load import load_directory
from mlx_qwen3_tts.codec.decoder import SnakeBeta
from mlx_qwen3_tts.codec.layers import CausalConv1d, CausalConvTranspose1d
from mlx_qwen3_tts.config.model import CodePredictorConfig
from mlx_qwen3_tts.generation.frames import FrameFunctions, PrefixCache, generate_frames, prefill
from mlx_qwen3_tts.generation.prompt import Request
from mlx_qwen3_tts.models.cache import STEP, KVCache
from mlx_qwen3_tts.models.fused import fuse
from mlx_qwen3_tts.models.qwen3 import Transformer
from mlx_qwen3_tts.models.talker import Talker

FRAMES = 200
GREEDY = Sampling(do_sample=False, subtalker_dosample=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    result = {}
    for kind in ("custom_voice", "voice_design", "base"):
        directory = checkpoints.write(tmp_path_factory.mktemp("fast") / kind, "projected", kind)
        result[kind] = Qwen3TTS.from_pretrained(directory)
    return result


class PlainFunctions(FrameFunctions):
    """Nothing compiled, and a step over exactly the past."""

    def __init__(self, talker: Talker) -> None:
        super().__init__(talker, compiled=False)

    def step(self, embedding, text, caches):
        return self._talker((embedding + text)[:, None], caches)


@pytest.fixture(scope="module")
def plain_models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    """The models as they are loaded: no layer fused, no function compiled, no prefix kept."""
    result = {}
    for kind in ("custom_voice", "voice_design", "base"):
        directory = checkpoints.write(tmp_path_factory.mktemp("plain") / kind, "projected", kind)
        tts = Qwen3TTS("plain", load_directory(directory, None, fused=False))
        tts._functions, tts._prefixes, tts.codec._decode = PlainFunctions(tts.talker), None, tts.codec.decoder
        assert "q_proj" in tts.talker.model.layers[0].self_attn
        result[kind] = tts
    return result


@pytest.mark.parametrize("sampling", [Sampling(), GREEDY, Sampling(top_k=0, top_p=0.7), Sampling(do_sample=False)])
@pytest.mark.parametrize(
    "kind, options",
    [
        ("custom_voice", {"voice": "ben"}),
        ("custom_voice", {"voice": "chuan", "instruct": "Slowly.", "non_streaming_mode": False}),
        ("voice_design", {"instruct": "A calm voice."}),
        ("base", {"text": None}),
        ("base", {"text": "hello this voice"}),
    ],
)
def test_all_of_it_together(models, plain_models, kind, options, sampling):
    """Every fast path on gives the codes of the plain one, exactly; and its samples, but for rounding."""
    if kind == "base":
        options = {"voice": models[kind].clone_voice(sounds.SOUNDS["speech"], options["text"])}
    frames = FRAMES if sampling in (Sampling(), GREEDY) else 30
    call = dict(seed=4, max_frames=frames, sampling=sampling, stop_runaway=False, **options)
    fast, plain = (tts.synthesize("Hello world", **call) for tts in (models[kind], plain_models[kind]))
    assert len(plain.codes) == frames
    np.testing.assert_array_equal(fast.codes, plain.codes)
    np.testing.assert_allclose(fast.audio, plain.audio, atol=1e-5)


def test_the_host_waits_once_a_frame(models, monkeypatch):
    """For the codes, after the next step was queued; nothing else is evaluated."""
    tts, events = models["custom_voice"], []
    sampling = Sampling().resolve(tts.generation_config)
    prompt = tts._prompts.build(Request("Hello world"))
    frames = generate_frames(tts.talker, tts._functions, sampling, prompt, prefill(tts.talker, prompt), 1, 9)
    next(frames)  # compiles
    for module, name in ((mx, "async_eval"), (mx, "eval"), (mx, "synchronize"), (np, "array")):
        real = getattr(module, name)
        noted = lambda *a, real=real, name=name, **k: (events.append(name), real(*a, **k))[1]  # noqa: E731
        monkeypatch.setattr(module, name, noted)
    for _ in range(3):
        next(frames)
    assert events == ["async_eval", "array"] * 3


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_fused_layers(kv_heads, batch, dtype):
    """The fused layers give what the plain ones give, in a prompt and step by step."""
    mx.random.seed(0)
    model = Transformer(CodePredictorConfig(32, 80, 2, 4, kv_heads, 16, 256, 16, 1e-6, 1e6, ("full_attention",) * 2))
    for layer in model.layers:
        layer.self_attn.q_norm.weight = 1 + 0.3 * mx.random.normal((16,))
        layer.self_attn.k_norm.weight = 1 + 0.3 * mx.random.normal((16,))
    model.set_dtype(dtype)
    x = mx.random.normal((batch, 9, 32)).astype(dtype)

    def run() -> mx.array:
        caches = [KVCache(), KVCache()]
        return mx.stack([model(x[:, :5], caches), *(model(x[:, i : i + 1], caches) for i in range(5, 9))])

    plain = run()
    mx.eval(plain)
    fuse(model)
    names = {name for name, _ in tree_flatten(model.parameters())}
    assert {"layers.1.qkv_proj.weight", "layers.1.gate_up_proj.weight"} <= names
    assert not any(".q_proj" in name or ".up_proj" in name for name in names)
    fused = run()
    assert fused.dtype == dtype
    error = mx.abs(fused - plain).max().item()
    assert error < (1e-5 if dtype == mx.float32 else 0.05), "in bfloat16 the plain layer rounds more often"


def test_static_cache_is_the_growing_one(models):
    """A step of static shapes and a mask gives what one over exactly the past gives, across a growth of the cache."""
    talker = models["custom_voice"].talker
    functions, hidden_size = models["custom_voice"]._functions, talker.config.hidden_size
    x = mx.random.normal((1, STEP - 3, hidden_size), key=mx.random.key(0))
    one, two = ([KVCache() for _ in talker.model.layers] for _ in range(2))
    talker(x, one)
    talker(x, two)
    for i in range(6):
        embedding, text = mx.random.normal((2, 1, hidden_size), key=mx.random.key(i))
        hidden, logits = functions.step(embedding, text, one)
        expected, expected_logits = talker((embedding + text)[:, None], two)
        assert mx.abs(hidden - expected).max().item() < 1e-5
        assert mx.abs(logits - expected_logits).max().item() < 1e-5
    assert one[0].offset == two[0].offset == STEP + 3
    assert one[0].buffer.shape[2] == 2 * STEP


@pytest.mark.parametrize(
    "layer",
    [
        CausalConv1d(6, 5, 7, dilation=9), CausalConv1d(6, 5, 3), CausalConvTranspose1d(6, 5, 8, 4),
        CausalConvTranspose1d(6, 5, 2, 2), SnakeBeta(6),
    ],
    ids=["dilated", "kernel-3", "overlapping", "stride", "snake"],
)  # fmt: skip
def test_fused_codec_layers(layer):
    """Taps as matrix products, weights laid out, exponentials taken: the outputs and states are those of before."""
    mx.random.seed(0)
    layer.update(tree_map(lambda p: mx.random.normal(p.shape), layer.parameters()))
    x = mx.random.normal((2, 30, 6))

    def run() -> mx.array:
        first, state = layer(x[:, :11])
        return mx.concatenate([first, layer(x[:, 11:], state)[0]], axis=1)

    plain = run()
    mx.eval(plain)
    before = {name for name, _ in tree_flatten(layer.parameters())}
    layer.fuse()
    after = {name for name, _ in tree_flatten(layer.parameters())}
    assert not before & after, "nothing was fused"
    assert mx.abs(run() - plain).max().item() < 2e-5 * mx.abs(plain).max().item()


def test_compiled_decoder(models):
    """One compiled function for each size of chunk gives the samples of the function as it is."""
    codec = models["custom_voice"].codec
    codes = np.random.RandomState(0).randint(0, 256, (90, 16))
    state, chunks = None, []
    for start in range(0, 90, 9):
        wave, state = codec.decoder(mx.array(codes[None, start : start + 9]), state)
        chunks.append(wave[0])
    state, compiled = None, []
    for start in range(0, 90, 9):
        audio, state = codec.decode_next(codes[start : start + 9], state)
        compiled.append(audio)
    np.testing.assert_allclose(np.concatenate(compiled), np.array(mx.concatenate(chunks)), atol=1e-6)


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

    from mlx_qwen3_tts.models import code_predictor, fused, qwen3, talker

    kinds = [fused.FusedLayer, qwen3.Transformer, code_predictor.CodePredictor, talker.Talker]
    originals = []
    for kind in kinds:
        original, watched = watch(kind)
        originals.append(original)
        kind.__call__ = watched
    try:  # the frames alone: the codec, which is float32 by intent, has the same MLP
        start = tts._prompts.build(Request("Hello"))
        sampling = Sampling().resolve(tts.generation_config)
        list(generate_frames(tts.talker, tts._functions, sampling, start, prefill(tts.talker, start), 1, 2))
    finally:
        for kind, original in zip(kinds, originals, strict=True):
            kind.__call__ = original
    assert {name for name, _ in seen} == {kind.__name__ for kind in kinds}
    assert {dtype for _, dtype in seen} == {mx.bfloat16}


LONG = "hello this is a voice of the world and of speech that is in the world, " * 3


@pytest.mark.parametrize(
    "kind, options",
    [
        ("custom_voice", {"voice": "ben", "instruct": LONG}),
        ("voice_design", {"instruct": LONG, "non_streaming_mode": False}),
        ("base", {"text": LONG}),
        ("base", {"text": LONG, "non_streaming_mode": False}),
    ],
)
def test_prefixes_are_reused(models, monkeypatch, kind, options):
    """The second request runs fewer positions and gives the same codes and samples, to the bit."""
    tts = models[kind]
    if kind == "base":
        clip = sounds.SOUNDS["speech"]
        options = options | {"voice": tts.clone_voice(clip, options["text"])}
        options.pop("text")
    monkeypatch.setattr(tts, "_prefixes", PrefixCache())
    positions, call = [], Talker.__call__
    monkeypatch.setattr(Talker, "__call__", lambda self, x, c: (positions.append(x.shape[1]), call(self, x, c))[1])

    def run(text: str):
        positions.clear()
        result = tts.synthesize(text, seed=4, max_frames=12, **options)
        return result, sum(count for count in positions if count > 1)

    cold, all_positions = run("Hello world")
    other, fewer = run("this is a voice")
    warm, again = run("Hello world")
    assert fewer < all_positions - 32
    assert again < all_positions - 32
    np.testing.assert_array_equal(warm.codes, cold.codes)
    np.testing.assert_array_equal(warm.audio, cold.audio)
    monkeypatch.setattr(tts, "_prefixes", None)
    np.testing.assert_array_equal(run("Hello world")[0].codes, cold.codes)
    np.testing.assert_array_equal(run("this is a voice")[0].codes, other.codes)


def test_few_prefixes_are_kept(models, monkeypatch):
    tts = models["voice_design"]
    monkeypatch.setattr(tts, "_prefixes", PrefixCache())
    codes = [tts.synthesize("Hello", seed=4, max_frames=3, instruct=LONG + str(i)).codes for i in range(7)]
    assert len(tts._prefixes._kept) == 4
    for i in (6, 0, 5):
        again = tts.synthesize("Hello", seed=4, max_frames=3, instruct=LONG + str(i)).codes
        np.testing.assert_array_equal(again, codes[i])
