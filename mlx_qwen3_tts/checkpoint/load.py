"""A path or a hub id to everything that a model is made of.

"demo" | directory | hub id ─ resolve ─ directory ─ config.json, tokenizer, weights ─► Qwen3TTS
"""

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from ..codec.codec import Codec
from ..config.codec import CodecConfig
from ..config.model import GenerationConfig, ModelConfig
from ..config.schema import from_dict, read_json
from ..errors import CheckpointError, RequestError
from ..generation.sampling import DEFAULTS
from ..models.fused import fuse
from ..models.network import Network
from ..text.tokenizer import TextTokenizer
from .quantization import read_quantization
from .weights import load_weights

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
FORMAT = 1  # of the checkpoints that convert.py writes: `mlx_qwen3_tts.format` in their config.json


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    config: ModelConfig
    generation_config: GenerationConfig
    network: Network
    codec: Codec
    tokenizer: TextTokenizer


def read_config(directory: Path) -> ModelConfig:
    """config.json of a checkpoint directory. Raises CheckpointError, also for what a newer version has written."""
    data = read_json(directory / "config.json")
    about = data.get("mlx_qwen3_tts", {"format": FORMAT})
    number = about.get("format") if isinstance(about, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise CheckpointError(f"{directory}/config.json: mlx_qwen3_tts.format is {str(number)[:60]!r}, which is none")
    if number > FORMAT:
        raise CheckpointError(
            f"{directory} was written by a newer version of mlx-qwen3-tts (format {number}; this one reads up to "
            f"{FORMAT}): upgrade with `pip install -U mlx-qwen3-tts`, or convert the model again with this one"
        )
    return from_dict(ModelConfig, data, "config.json")


def _read_generation_config(path: Path) -> GenerationConfig:
    """generation_config.json, which may be absent; keys that are not ours are left alone."""
    if not path.exists():
        return GenerationConfig()
    known, data = {field.name for field in fields(GenerationConfig)}, read_json(path)
    config = from_dict(GenerationConfig, {k: v for k, v in data.items() if k in known and v is not None}, path.name)
    try:
        DEFAULTS.resolve(config)
    except RequestError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return config


def load_directory(directory: Path, dtype: str | None, fused: bool = True) -> Checkpoint:
    """Load a checkpoint directory.

    dtype: "float32", "bfloat16", "float16"; None takes float32 on the CPU and the file's own elsewhere. The codec
    is always float32. fused: False keeps the parameters that the files name. Raises CheckpointError, and RequestError
    for an unknown dtype.
    """
    if dtype is not None and dtype not in tuple(DTYPES):
        raise RequestError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    config = read_config(directory)
    where = "speech_tokenizer/config.json"
    codec_config = from_dict(CodecConfig, read_json(directory / where), where)
    groups, quantizers = config.talker_config.num_code_groups, codec_config.decoder_config.num_quantizers
    if (groups, config.talker_config.num_codes) != (quantizers, codec_config.decoder_config.codebook_size):
        raise CheckpointError(f"{directory}: the talker and the speech tokenizer do not belong together")
    generation_config = _read_generation_config(directory / "generation_config.json")
    tokenizer = TextTokenizer.from_directory(directory, config)
    network, codec = Network(config), Codec(codec_config)
    if dtype is None and mx.default_device().type == mx.cpu:
        dtype = "float32"
    quantization = read_quantization(read_json(directory / "config.json"))
    load_weights(network, directory, DTYPES[dtype] if dtype else None, quantization)
    load_weights(codec, directory / "speech_tokenizer", mx.float32)
    if fused:
        fuse(network.talker.model)
        fuse(network.talker.code_predictor.model)
        codec.decoder.fuse()
    # Read now what every request needs, piece by piece so that Ctrl-C is heard; the encoders wait for their first use.
    for part in (*network.talker.model.layers, network.talker, codec.decoder):
        mx.eval(part.parameters())
    return Checkpoint(config, generation_config, network, codec, tokenizer)
