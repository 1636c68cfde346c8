"""Every fast path equals the plain path exactly in float32."""

from types import ModuleType

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_qwen3_tts import Qwen3TTS, Sampling
from mlx_qwen3_tts.codec import layers
from mlx_qwen3_tts.codec.codec import Codec
from mlx_qwen3_tts.codec.decoder import SnakeBeta
from mlx_qwen3_tts.codec.layers import CausalConv1d, CausalConvTranspose1d
from mlx_qwen3_tts.config.model import CodePredictorConfig
from mlx_qwen3_tts.generation.engine import Engine
from mlx_qwen3_tts.generation.frames import MAX_TRACES, FrameFunctions
from mlx_qwen3_tts.generation.prefix_cache import MAX_PREFIXES, PrefixCache
from mlx_qwen3_tts.generation.sampling import FrameOptions
from mlx_qwen3_tts.generation.state import DecodeState
from mlx_qwen3_tts.models.cache import MIN_CAPACITY, KVCache
from mlx_qwen3_tts.models.code_predictor import CodePredictor
from mlx_qwen3_tts.models.fused import fuse
from mlx_qwen3_tts.models.qwen3 import Transformer, silu
from mlx_qwen3_tts.models.talker import Talker
from tests.support import checkpoints, sounds
from tests.support.engine import Frames, on_mlx_thread

FRAMES = 120
GREEDY = Sampling(do_sample=False, subtalker_dosample=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    result = {}
    for kind in ("custom_voice", "voice_design", "base"):
        directory = checkpoints.write(tmp_path_factory.mktemp("fast") / kind, "projected", kind)
        result[kind] = Qwen3TTS.from_pretrained(directory)
    return result


class PlainFunctions(FrameFunctions):
    """No compilation, no cached embedding, and steps over exactly the past positions."""

    def __init__(self, talker: Talker) -> None:
        super().__init__(talker, compiled=False)

    def embed_text(self, ids, pad_id):
        return self.talker.embed_text(mx.array(ids))

    def step(self, embedding, text, buffers, positions):
        (past,) = positions.tolist()
        caches = [KVCache() for _ in buffers]
        for cache, buffer in zip(caches, buffers, strict=True):
            cache.restore(buffer[:, :, :, :past])
        hidden, logits = self.talker((embedding + text)[:, None], caches)
        return hidden, logits, [cache.buffer for cache in caches]


class PlainCodec(Codec):
    """No compilation."""

    def __init__(self, config, network, worker) -> None:
        super().__init__(config, network, worker)
        self._decode = network.decoder


@pytest.fixture(scope="module")
def plain_models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    """The models without fused layers, compiled functions or cached prefixes."""
    result = {}
    for kind in ("custom_voice", "voice_design", "base"):
        directory = checkpoints.write(tmp_path_factory.mktemp("plain") / kind, "projected", kind)
        engine = Engine.load(directory, fused=False)
        engine.functions = PlainFunctions(engine.talker)
        engine.codec = PlainCodec(engine.codec.config, engine.codec.network, engine.worker)
        engine.prefixes = None
        assert "q_proj" in engine.talker.model.layers[0].self_attn
        result[kind] = Qwen3TTS("plain", engine)
    return result


MODES = [
    ("custom_voice", {"voice": "ben"}),
    ("custom_voice", {"voice": "chuan", "instruct": "Slowly.", "non_streaming_mode": False}),
    ("voice_design", {"instruct": "A calm voice."}),
    ("base", {"text": None}),
    ("base", {"text": "hello this voice"}),
]
SAMPLINGS = [Sampling(top_k=0, top_p=0.7), Sampling(do_sample=False)]


@pytest.mark.parametrize(
    "kind, options, sampling",
    [
        *[(*mode, sampling) for mode in MODES for sampling in (Sampling(), GREEDY)],
        *[(*MODES[0], sampling) for sampling in SAMPLINGS],
    ],
)
def test_all_fast_paths_together(models, plain_models, kind, options, sampling):
    """With every fast path enabled, codes are exactly those of the plain path, and samples are equal up to rounding."""
    if kind == "base":
        options = {"voice": models[kind].clone_voice(sounds.SOUNDS["speech"], options["text"])}
    compare_paths(models, plain_models, kind, options, sampling, 12)


@pytest.mark.slow
def test_all_fast_paths_for_long(models, plain_models):
    """So that the KV cache grows, and the codec's window moves."""
    compare_paths(models, plain_models, *MODES[0], Sampling(), FRAMES)


def compare_paths(models, plain_models, kind, options, sampling, frames) -> None:
    call = dict(seed=4, max_frames=frames, sampling=sampling, stop_runaway=False, **options)
    fast, plain = (tts.synthesize("Hello world", **call) for tts in (models[kind], plain_models[kind]))
    assert len(plain.codes) == frames
    np.testing.assert_array_equal(fast.codes, plain.codes)
    np.testing.assert_allclose(fast.audio, plain.audio, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_fused_layers(kv_heads, batch, dtype):
    """Fused layers equal plain ones, for a prompt and step by step."""
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


def test_static_cache_equals_the_growing_one(models):
    """A step with static shapes and a mask equals a step over exactly the past, also when the cache grows."""
    on_mlx_thread(models["custom_voice"], compare_steps, models["custom_voice"].engine)


def compare_steps(engine: Engine) -> None:
    talker = engine.talker
    hidden_size = talker.config.hidden_size
    positions = MIN_CAPACITY - 3
    x = mx.random.normal((1, positions, hidden_size), key=mx.random.key(0))
    one, two = ([KVCache() for _ in talker.model.layers] for _ in range(2))
    hidden, logits = talker(x, one)
    talker(x, two)
    state = DecodeState(hidden, logits, hidden, logits > 0, mx.random.key(0)[None], [cache.buffer for cache in one])
    for i in range(6):
        embedding = mx.random.normal((1, hidden_size), key=mx.random.key(i))
        text = talker.embed_text(mx.array([i]))
        expected, expected_logits = talker((embedding + text)[:, None], two)
        state.reserve(positions + 1)
        hidden, logits, state.buffers = engine.functions.step(embedding, text, state.buffers, np.array([positions]))
        positions += 1
        assert mx.abs(hidden - expected).max().item() < 1e-5
        assert mx.abs(logits - expected_logits).max().item() < 1e-5
    assert positions == two[0].offset == MIN_CAPACITY + 3
    assert state.capacity == 2 * MIN_CAPACITY


def test_the_cached_embedding_of_padding(models):
    """It equals what the talker computes, also if only some rows are padding."""
    tts = models["custom_voice"]
    pad = tts.config.tts_pad_token_id

    def run() -> None:
        for ids in ([pad], [5], [pad, 5, pad], [pad, pad]):
            found = tts.engine.functions.embed_text(ids, pad)
            expected = [tts.talker.embed_text(mx.array([id_]))[0] for id_ in ids]
            assert (found == mx.stack(expected)).all(), ids

    on_mlx_thread(tts, run)


@pytest.mark.parametrize(
    "layer",
    [
        CausalConv1d(6, 5, 7, dilation=9), CausalConv1d(6, 5, 3), CausalConvTranspose1d(6, 5, 8, 4),
        CausalConvTranspose1d(6, 5, 2, 2), SnakeBeta(6),
    ],
    ids=["dilated", "kernel-3", "overlapping", "stride", "snake"],
)  # fmt: skip
def test_fused_codec_layers(layer):
    """Matrix products for taps, rearranged weights and precomputed exponentials do not change outputs or states."""
    mx.random.seed(0)
    layer.update(tree_map(lambda p: mx.random.normal(p.shape), layer.parameters()))
    x = mx.random.normal((2, 30, 6))

    def run(part) -> mx.array:
        first, state = part(x[:, :11])
        return mx.concatenate([first, part(x[:, 11:], state)[0]], axis=1)

    plain = run(layer)
    fused = layer.fused()
    assert type(fused) is not type(layer), "nothing was fused"
    assert mx.abs(run(fused) - plain).max().item() < 2e-5 * mx.abs(plain).max().item()


def test_compiled_decoder(models):
    """The compiled function for each chunk size gives the same samples as the uncompiled one."""
    codec = models["custom_voice"].codec
    codes = np.random.RandomState(0).randint(0, 256, (90, 16))
    state, chunks = None, []
    for start in range(0, 90, 9):
        wave, state = codec.network.decoder(mx.array(codes[None, start : start + 9]), state)
        chunks.append(wave[0])
    state, compiled = None, []
    for start in range(0, 90, 9):
        audio, state = codec.decode_next(codes[start : start + 9], state)
        compiled.append(audio)
    np.testing.assert_allclose(np.concatenate(compiled), np.array(mx.concatenate(chunks)), atol=1e-6)


def test_one_trace_serves_all_requests_of_the_same_filters(models, spy):
    """Temperature, penalty, seed and greedy decoding are inputs; other filters need another trace, and few are kept."""
    tts = models["custom_voice"]
    traced, compiled = spy(CodePredictor, "__call__"), spy(mx, "compile")
    functions = FrameFunctions(tts.talker)
    before = len(compiled)

    def frame(**options) -> None:
        config = tts.talker.config
        resolved = Sampling(**options).resolve(tts.generation_config)
        hidden = mx.zeros((1, config.hidden_size))
        logits = mx.zeros((1, config.vocab_size))
        may_end = mx.array([[True]])
        rows = FrameOptions.of([resolved], config)
        functions.frame(hidden, logits, logits > 0, mx.random.key(len(traced))[None], may_end, rows)

    def run() -> None:
        frame()
        frame()
        frame(temperature=0.3, subtalker_temperature=1.5, repetition_penalty=2.0)
        assert len(traced) == 1
        frame(top_p=0.3)
        frame(top_p=0.7, temperature=0.3)
        assert len(traced) == 2
        for top_k in range(1, MAX_TRACES - 1):
            frame(top_k=top_k)
        assert len(traced) == MAX_TRACES
        assert len(compiled) == before
        frame(top_k=MAX_TRACES)
        assert len(compiled) == before + 1, "the function with its traces was dropped"

    on_mlx_thread(tts, run)


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

    def run() -> None:
        frames = Frames(tts, "Hello", limit=2)
        assert frames.next() is not None
        assert frames.next() is not None

    try:  # only the frames: the codec has the same MLP but is float32 by design
        on_mlx_thread(tts, run)
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
def test_prefixes_are_reused(models, monkeypatch, spy, kind, options):
    """The second request runs fewer positions and gives bit-identical codes and samples."""
    tts = models[kind]
    if kind == "base":
        clip = sounds.SOUNDS["speech"]
        options = options | {"voice": tts.clone_voice(clip, options["text"])}
        options.pop("text")
    monkeypatch.setattr(tts.engine, "prefixes", PrefixCache())
    calls = spy(Talker, "__call__")

    def run(text: str):
        calls.clear()
        result = tts.synthesize(text, seed=4, max_frames=7, **options)
        positions = [x.shape[1] for _, (_, x, *_) in calls]
        return result, sum(count for count in positions if count > 1)

    cold, all_positions = run("Hello world")
    other, fewer = run("this is a voice")
    warm, again = run("Hello world")
    assert fewer < all_positions - 32
    assert again < all_positions - 32
    np.testing.assert_array_equal(warm.codes, cold.codes)
    np.testing.assert_array_equal(warm.audio, cold.audio)
    monkeypatch.setattr(tts.engine, "prefixes", None)
    np.testing.assert_array_equal(run("Hello world")[0].codes, cold.codes)
    np.testing.assert_array_equal(run("this is a voice")[0].codes, other.codes)


def test_few_prefixes_are_kept(models, monkeypatch):
    tts = models["voice_design"]
    monkeypatch.setattr(tts.engine, "prefixes", PrefixCache())
    codes = [tts.synthesize("Hello", seed=4, max_frames=3, instruct=LONG + str(i)).codes for i in range(7)]
    assert len(tts.engine.prefixes) == MAX_PREFIXES == 4
    for i in (6, 0, 5):
        again = tts.synthesize("Hello", seed=4, max_frames=3, instruct=LONG + str(i)).codes
        np.testing.assert_array_equal(again, codes[i])


@pytest.fixture
def gpu_layers(monkeypatch):
    """Make the codec's layers fuse as on a GPU, although they compute on the CPU."""
    like_mlx = ModuleType("mlx.core")
    like_mlx.__dict__.update(vars(mx))
    like_mlx.default_device = lambda: mx.Device(mx.gpu)
    monkeypatch.setattr(layers, "mx", like_mlx)


def test_gpu_convolutions_do_not_copy_their_weights(models, gpu_layers):
    """All weights are row-contiguous, since Metal's convolution copies others at each call; the sound is unchanged."""
    cpu = models["base"]
    gpu = Qwen3TTS.from_pretrained(cpu.name)
    for codec, has_convolutions in ((cpu.codec, False), (gpu.codec, True)):
        modules = codec.network.decoder.named_modules()
        convolutions = [path for path, part in modules if isinstance(part, nn.Conv1d) and part.weight.shape[1] > 1]
        assert bool(len(convolutions) > 10) == has_convolutions

    def copied(network) -> list[str]:
        parameters = tree_flatten(network.parameters())
        mx.eval(network.parameters())
        return [path for path, array in parameters if array.ndim == 3 and not memoryview(array).c_contiguous]

    assert on_mlx_thread(gpu, copied, gpu.codec.network) == []
    assert on_mlx_thread(gpu, copied, gpu.network.speaker_encoder) == []
    codes = np.random.RandomState(0).randint(0, 256, (20, 16))
    np.testing.assert_allclose(gpu.codec.decode(codes), cpu.codec.decode(codes), atol=1e-5)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_silu_is_rounded_once(dtype):
    """As in PyTorch, every number of the type gives x / (1 + exp(-x)) in float32, rounded once."""
    x = mx.array(np.arange(2**16, dtype=np.uint16)).view(dtype)
    x = mx.where(mx.abs(x) < 60000, x, 0)
    wide = np.array(x.astype(mx.float32))
    with np.errstate(over="ignore"):
        expected = mx.array(wide / (1 + np.exp(-wide))).astype(dtype)
    found = silu(x)
    assert found.dtype == dtype
    assert (found != expected).sum().item() <= 4, "the last bit of a float32 exponential may decide a tie"


def test_every_silu_is_computed_in_float32(checkpoint, spy):
    """This holds in the text projection and in both forms of the decoder layer."""
    for fused in (True, False):
        tts = Qwen3TTS("bfloat16", Engine.load(checkpoint, "bfloat16", fused))
        calls = spy(nn, "silu")
        on_mlx_thread(tts, lambda tts=tts: Frames(tts, "Hello", limit=2).next())
        assert len(calls) > 2
        assert {x.dtype for _, (x,) in calls} == {mx.float32}
