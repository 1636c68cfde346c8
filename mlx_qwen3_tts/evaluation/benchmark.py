"""How fast a model speaks on this machine, and where the time goes.

    checkpoint | random weights of released sizes ─ Qwen3TTS ─ runs ─► figures, as a flat dictionary

Speed does not depend on the weights' values, so that anyone can measure with no download. Each part is timed alone,
over arrays that are there already; the whole is timed as a user meets it.
"""

import platform
import time
from collections.abc import Callable
from statistics import median

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path

from .. import __version__
from ..checkpoint.load import DTYPES, Checkpoint
from ..codec.codec import Codec
from ..config.codec import CodecConfig
from ..config.model import GenerationConfig, ModelConfig
from ..config.schema import from_dict, read_json
from ..conversion import recipes
from ..demo import registry as demo
from ..generation.frames import FrameFunctions, prefill
from ..generation.prompt import Request
from ..generation.sampling import Sampling, draw, gumbel_noise
from ..models.cache import STEP
from ..models.fused import fuse
from ..models.network import Network
from ..text.tokenizer import TextTokenizer
from ..tts import CHUNK_FRAMES, Qwen3TTS
from .op_count import count_nodes

TEXT = "Hello world, this is a voice."
CHUNK = CHUNK_FRAMES[-1]
REPEATS = 7

WIDTHS = {"0.6B": (1024, 3072, "0b6"), "1.7B": (2048, 6144, "1b7")}  # hidden, intermediate, tts_model_size
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
CODEC_DECODER = {
    "latent_dim": 1024, "codebook_dim": 512, "codebook_size": 2048, "decoder_dim": 1536, "hidden_size": 512,
    "intermediate_size": 1024, "head_dim": 64, "num_attention_heads": 16, "num_key_value_heads": 16,
    "num_hidden_layers": 8,
}  # fmt: skip


def random_model(size: str, dtype: str | None = None, bits: int | None = None) -> Qwen3TTS:
    """A CustomVoice model of random weights in memory.

    size: "0.6B", "1.7B", or "tiny": the built-in miniature's widths at the released depths. dtype: as in
    Qwen3TTS.from_pretrained, None taking bfloat16 on a GPU. bits: quantize what `convert --bits` does, by
    mx.quantize, but for what is too narrow. The speech never ends by itself.
    """
    with demo.checkpoint("demo-random") as directory:
        model, codec = read_json(directory / "config.json"), read_json(directory / "speech_tokenizer/config.json")
        model["talker_config"] |= {"num_hidden_layers": 28}
        predictor = model["talker_config"]["code_predictor_config"]
        predictor |= {"num_hidden_layers": 5, "layer_types": ["full_attention"] * 5}
        if size != "tiny":
            _enlarge(model, codec, *WIDTHS[size])
        config = from_dict(ModelConfig, model, "config.json")
        tokenizer = TextTokenizer.from_directory(directory, config)
    on_cpu = mx.default_device().type == mx.cpu
    kind = DTYPES[dtype or ("float32" if on_cpu else "bfloat16")]
    network, decoder = Network(config), Codec(from_dict(CodecConfig, codec, "config.json"))
    _fill(network, kind)
    network.talker.codec_head.weight[config.talker_config.codec_eos_token_id] = 0  # never among the likely ones
    if bits:
        parts = recipes.uniform(bits, 32 if size == "tiny" else 64).parts

        def settings(path: str, module: nn.Module) -> dict[str, int] | bool:
            affine = parts.get(recipes.part_of(path))
            fits = affine and hasattr(module, "to_quantized") and module.weight.shape[-1] % affine.group_size == 0
            return affine._asdict() if fits else False

        nn.quantize(network, class_predicate=settings)
    _fill(decoder.decoder, mx.float32)
    fuse(network.talker.model)
    fuse(network.talker.code_predictor.model)
    decoder.decoder.fuse()
    mx.eval(network.parameters(), decoder.decoder.parameters())
    return Qwen3TTS(f"random {size}", Checkpoint(config, GenerationConfig(), network, decoder, tokenizer))


def _enlarge(model: dict, codec: dict, hidden: int, intermediate: int, name: str) -> None:
    """Give the miniature's configuration the released sizes."""
    talker = model["talker_config"]
    predictor = talker["code_predictor_config"]
    shift = 2048 - predictor["vocab_size"]
    ids = [key for key in talker if key.startswith("codec_") and key.endswith("_id")]
    for key in ids:
        if isinstance(talker[key], int):
            talker[key] += shift
    talker["codec_language_id"] = {key: value + shift for key, value in talker["codec_language_id"].items()}
    talker["spk_id"] = {key: value + shift for key, value in talker["spk_id"].items()}
    predictor |= HEADS | {
        "hidden_size": 1024, "intermediate_size": 3072, "vocab_size": 2048,
    }  # fmt: skip
    talker |= HEADS | {
        "hidden_size": hidden, "intermediate_size": intermediate, "vocab_size": 3072, "text_vocab_size": 151936,
        "text_hidden_size": 2048,
    }  # fmt: skip
    talker["rope_scaling"]["mrope_section"] = [24, 20, 20]
    model["tts_model_size"] = name
    codec["decoder_config"] |= CODEC_DECODER
    codec["encoder_config"]["codebook_size"] = 2048


def _fill(module: nn.Module, dtype: mx.Dtype) -> None:
    """Random weights that keep the numbers in range: matrices by their width, the rest near 1."""

    def values(path: str, old: mx.array) -> mx.array:
        if old.ndim < 2:
            return mx.full(old.shape, 0.0 if path.endswith(("bias", "alpha", "beta")) else 1.0, dtype)
        bound = (3 / old[0].size) ** 0.5
        new = mx.random.uniform(-bound, bound, old.shape, dtype)
        mx.eval(new)
        return new

    module.update(tree_map_with_path(values, module.parameters()))


def measure(tts: Qwen3TTS, frames: int) -> dict[str, float | int | str]:
    """Run a model and return the figures; times in milliseconds, memory and traffic in megabytes (10**6 bytes)."""
    weights = _megabytes(tts.talker) + _megabytes(tts.codec.decoder)
    list(tts.stream(TEXT, seed=1, max_frames=sum(CHUNK_FRAMES), **_needs(tts)))  # compiles
    began = time.perf_counter()
    stream = tts.stream(TEXT, seed=1, max_frames=sum(CHUNK_FRAMES), **_needs(tts))
    next(stream)
    first_audio = 1000 * (time.perf_counter() - began)
    stream.close()
    result = tts.synthesize(TEXT, seed=1, max_frames=frames, **_needs(tts))
    timing, config = result.timing, tts.config.talker_config
    positions = -(-(timing.frames + tts._prompts.build(_request(tts)).embeddings.shape[1]) // STEP) * STEP
    width = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    kv = positions * width * tts.talker.model.norm.weight.itemsize / 1e6
    peak = timing.peak_memory / 1e6
    parts, traffic = _parts(tts), _traffic(tts.talker)
    bandwidth = _bandwidth()
    return {
        "model": tts.name,
        "version": __version__,
        "mlx": mx.__version__,
        "device": f"{mx.default_device().type.name}, {platform.machine()}, {platform.system()}",
        "dtype": str(tts.talker.model.norm.weight.dtype).removeprefix("mlx.core."),
        "frames": timing.frames,
        "first_audio_ms": first_audio,
        "frames_per_second": timing.frames / timing.total,
        "real_time_factor": timing.real_time_factor,
        "times_real_time": 1 / timing.real_time_factor,
        "frame_ms": 1000 * timing.total / timing.frames,
        **parts,
        "peak_mb": peak,
        "active_mb": mx.get_active_memory() / 1e6,
        "weights_mb": weights,
        "kv_mb": kv,
        "beyond_weights_and_kv_mb": peak - weights - kv,
        "weights_read_mb_per_frame": traffic,
        "copy_gb_per_second": bandwidth,
        "bandwidth_floor_ms": traffic / bandwidth,
    }


def _needs(tts: Qwen3TTS) -> dict[str, object]:
    """What a request must name with this type of model; random weights babble, and are to."""
    request = _request(tts)
    return {"voice": request.voice, "instruct": request.instruct, "stop_runaway": False}


def _request(tts: Qwen3TTS) -> Request:
    from ..voice import VoiceClonePrompt

    if tts.model_type == "base":
        embedding = np.zeros(tts.config.talker_config.hidden_size, np.float32)
        return Request(TEXT, VoiceClonePrompt(speaker_embedding=embedding))
    return Request(TEXT, instruct="A calm voice." if tts.model_type == "voice_design" else None)


def _parts(tts: Qwen3TTS) -> dict[str, float | int]:
    """Milliseconds per frame of each stage alone, of building graphs, and the nodes of a frame's graph."""
    talker, sampling = tts.talker, Sampling().resolve(tts.generation_config)
    config = talker.config
    prompt = tts._prompts.build(_request(tts))
    hidden, logits, caches = prefill(talker, prompt)
    seen, key = mx.zeros((1, config.vocab_size), dtype=mx.bool_), mx.random.key(0)

    def frame(functions: FrameFunctions) -> tuple[mx.array, ...]:
        return functions.get(sampling)(hidden, logits, seen, key, mx.array(True))

    def step(functions: FrameFunctions) -> tuple[mx.array, ...]:
        out = functions.step(hidden, talker.embed_text([0])[0], caches)
        for cache in caches:
            cache.offset -= 1
        return *out, *(cache.buffer for cache in caches)

    def draws() -> list[mx.array]:
        noise = gumbel_noise(key, (config.num_code_groups, config.vocab_size))
        return [draw(sampling.talker_filter(logits.astype(mx.float32)), row[None]) for row in noise]

    built = FrameFunctions(talker)
    nodes, launches = count_nodes(lambda: (frame(fresh := FrameFunctions(talker)), step(fresh)))
    mx.eval([cache.buffer for cache in caches])
    whole, compiled_draws = _time(lambda: frame(built)), mx.compile(draws)
    sampled = _time(compiled_draws)
    codes = np.zeros((CHUNK, tts.codec.num_quantizers), np.int32)
    state = tts.codec.decode_next(codes)[1]
    return {
        "talker_ms": _time(lambda: step(built)),
        "predictor_ms": whole - sampled,
        "sampling_ms": sampled,
        "codec_ms": _time(lambda: tts.codec.queue_next(codes, state)[1]) / CHUNK,
        "graph_building_ms": _time(lambda: frame(built), evaluate=False) + _time(lambda: step(built), evaluate=False),
        "graph_nodes_per_frame": nodes,
        "launching_nodes_per_frame": launches,
    }


def _time(function: Callable[[], object], evaluate: bool = True) -> float:
    """Median milliseconds of a call and its evaluation, or of the call alone."""
    times = []
    mx.eval(function())
    for _ in range(REPEATS):
        began = time.perf_counter()
        out = function()
        built = time.perf_counter()
        mx.eval(out)
        times.append(1000 * ((time.perf_counter() if evaluate else built) - began))
    return median(times)


def _megabytes(module: nn.Module) -> float:
    return sum(array.nbytes for _, array in tree_flatten(module.parameters())) / 1e6


def _traffic(talker: nn.Module) -> float:
    """Megabytes of weights that a frame reads: the talker once, the predictor's layers 15 times, of tables a row."""
    predictor = talker.code_predictor
    once = [*talker.model.layers, talker.model.norm, talker.codec_head, talker.text_projection, *predictor.lm_head]
    often = [*predictor.model.layers, predictor.model.norm]
    if "small_to_mtp_projection" in predictor:
        often.append(predictor.small_to_mtp_projection)
    return sum(map(_megabytes, once)) + len(predictor.lm_head) * sum(map(_megabytes, often))


def _bandwidth() -> float:
    """Gigabytes per second, read and written, of a large copy."""
    source = mx.zeros((64, 2**20), mx.float32)
    mx.eval(source)
    return 2 * source.nbytes / 1e6 / _time(lambda: -source)
