"""Models of random weights and released sizes, in memory: for measurements without a download."""

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map_with_path

from ..checkpoint.load import DTYPES, Checkpoint, prepare
from ..checkpoint.quantization import Affine
from ..codec.codec import Codec, CodecNetwork
from ..config.codec import CodecConfig
from ..config.model import GenerationConfig, ModelConfig
from ..config.schema import from_dict, read_json
from ..conversion import recipes
from ..demo import registry as demo
from ..generation.engine import Engine
from ..mlx_thread import Worker
from ..models.network import Network
from ..text.tokenizer import TextTokenizer
from ..tts import Qwen3TTS

WIDTHS = {"0.6B": (1024, 3072, "0b6"), "1.7B": (2048, 6144, "1b7")}  # hidden, intermediate, tts_model_size
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
CODEC_DECODER = {
    "latent_dim": 1024, "codebook_dim": 512, "codebook_size": 2048, "decoder_dim": 1536, "hidden_size": 512,
    "intermediate_size": 1024, "head_dim": 64, "num_attention_heads": 16, "num_key_value_heads": 16,
    "num_hidden_layers": 8,
}  # fmt: skip


def random_model(size: str, dtype: str | None = None, bits: int | None = None, fused: bool = True) -> Qwen3TTS:
    """Return a CustomVoice model of random weights, whose speech never ends by itself.

    size: "0.6B", "1.7B", or "tiny": the built-in miniature's widths at the released depths. dtype: as in
    Qwen3TTS.from_pretrained, except that None takes bfloat16 on a GPU. bits: quantize the layers that `convert --bits`
    quantizes, with mx.quantize; layers that are too narrow stay as they are. fused: False keeps the layers of a
    checkpoint, as training needs them.
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
    worker = Worker()
    default = "float32" if worker.device.type == mx.cpu else "bfloat16"
    kind = DTYPES[dtype or default]
    codec_config = from_dict(CodecConfig, codec, "config.json")
    network, decoder = worker.run(_build, config, codec_config, kind)
    if bits:
        group_size = 32 if size == "tiny" else 64
        worker.run(_quantize, network, recipes.uniform(bits, group_size).parts)
    prepare(network, decoder, worker, fused)
    made = Checkpoint(config, GenerationConfig(), network, Codec(codec_config, decoder, worker), tokenizer)
    return Qwen3TTS(f"random {size}", Engine(made, worker))


def _build(config: ModelConfig, codec_config: CodecConfig, dtype: mx.Dtype) -> tuple[Network, CodecNetwork]:
    network, codec = Network(config), CodecNetwork(codec_config)
    _fill(network, dtype)
    network.talker.codec_head.weight[config.talker_config.codec_eos_token_id] = 0  # never among the likely ones
    _fill(codec.decoder, mx.float32)
    return network, codec


def _quantize(network: Network, parts: Mapping[str, Affine]) -> None:
    """Quantize the layers that `convert --bits` quantizes, if they are wide enough."""

    def settings(path: str, module: nn.Module) -> dict[str, int] | bool:
        affine = parts.get(recipes.part_of(path))
        if affine is None or not hasattr(module, "to_quantized") or module.weight.shape[-1] % affine.group_size:
            return False
        return affine._asdict()

    nn.quantize(network, class_predicate=settings)


def _enlarge(model: dict, codec: dict, hidden: int, intermediate: int, name: str) -> None:
    """Set the released sizes in the miniature's configuration."""
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
    """Draw random weights that keep activations in range: matrices scaled by their width, vectors 0 or 1."""

    def values(path: str, old: mx.array) -> mx.array:
        if old.ndim < 2:
            value = 0.0 if path.endswith(("bias", "alpha", "beta")) else 1.0
            return mx.full(old.shape, value, dtype)
        bound = (3 / old[0].size) ** 0.5
        new = mx.random.uniform(-bound, bound, old.shape, dtype)
        mx.eval(new)
        return new

    module.update(tree_map_with_path(values, module.parameters()))
