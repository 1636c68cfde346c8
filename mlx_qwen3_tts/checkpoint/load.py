"""Load a checkpoint directory.

directory ─ config.json, generation_config.json, tokenizer, weights ─ [adapter] ─ fused layers ─► Checkpoint
"""

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from ..codec.codec import Codec, CodecNetwork
from ..config.codec import CodecConfig
from ..config.model import GenerationConfig, ModelConfig
from ..config.schema import from_dict, quoted, read_json
from ..errors import CheckpointError, RequestError
from ..mlx_thread import Worker
from ..models.fused import fuse
from ..models.network import Network
from ..request import check_defaults
from ..text.tokenizer import TextTokenizer
from .adapter import apply_adapter, read_adapter
from .quantization import read_quantization
from .weights import load_weights

DTYPES: dict[str, mx.Dtype] = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
CHECKPOINT_FORMAT = 1  # version of what conversion/ writes: `mlx_qwen3_tts.format` in config.json
SPEECH_TOKENIZER = "speech_tokenizer"


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    config: ModelConfig
    generation_config: GenerationConfig
    network: Network
    codec: Codec
    tokenizer: TextTokenizer


def read_config(directory: Path) -> ModelConfig:
    """Read config.json. Raises CheckpointError, also for a checkpoint that a newer version has written."""
    data = read_json(directory / "config.json")
    metadata = data.get("mlx_qwen3_tts", {"format": CHECKPOINT_FORMAT})
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CheckpointError(
            f"{directory}/config.json: invalid mlx_qwen3_tts.format {quoted(version)}: expected a whole number from 1"
        )
    if version > CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{directory} was written by a newer version of mlx-qwen3-tts (format {version}; this one reads up to "
            f"{CHECKPOINT_FORMAT}): upgrade with `pip install -U mlx-qwen3-tts`, or convert the model again"
        )
    return from_dict(ModelConfig, data, "config.json")


def read_codec_config(directory: Path) -> CodecConfig:
    """Read speech_tokenizer/config.json. Raises CheckpointError."""
    name = f"{SPEECH_TOKENIZER}/config.json"
    return from_dict(CodecConfig, read_json(directory / name), name)


def _read_generation_config(path: Path) -> GenerationConfig:
    """Read generation_config.json, which is optional and has keys that are not for speech."""
    if not path.exists():
        return GenerationConfig()
    names = {field.name for field in fields(GenerationConfig)}
    data = {key: value for key, value in read_json(path).items() if key in names and value is not None}
    config = from_dict(GenerationConfig, data, path.name)
    try:
        check_defaults(config)
    except RequestError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return config


def load_directory(
    directory: Path,
    dtype: str | None = None,
    fused: bool = True,
    worker: Worker | None = None,
    adapter: Path | None = None,
) -> Checkpoint:
    """Load a checkpoint directory.

    dtype: "float32", "bfloat16" or "float16"; None means float32 on the CPU and the files' own type on a GPU. The codec
    is always float32. fused: False keeps the parameters of the files. worker: the MLX thread, with the device to load
    for; None takes MLX's current default device. adapter: the directory of an adapter, to merge into a Base model.
    Raises CheckpointError, and RequestError for an unknown dtype.
    """
    worker = worker or Worker()
    if dtype is not None and dtype not in tuple(DTYPES):
        raise RequestError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    if dtype is None and worker.device.type == mx.cpu:
        dtype = "float32"
    weight_dtype = None if dtype is None else DTYPES[dtype]
    config = read_config(directory)
    codec_config = read_codec_config(directory)
    _check_match(directory, config, codec_config)
    generation_config = _read_generation_config(directory / "generation_config.json")
    tokenizer = TextTokenizer.from_directory(directory, config)
    quantization = read_quantization(read_json(directory / "config.json"))
    read = None if adapter is None else read_adapter(adapter)

    def build() -> tuple[ModelConfig, Network, CodecNetwork]:
        network = Network(config)
        codec = CodecNetwork(codec_config)
        load_weights(network, directory, weight_dtype, quantization)
        load_weights(codec, directory / SPEECH_TOKENIZER, mx.float32)
        adapted = config if read is None else apply_adapter(network, config, read)
        return adapted, network, codec

    config, network, codec = worker.run(build)
    prepare(network, codec, worker, fused)
    return Checkpoint(config, generation_config, network, Codec(codec_config, codec, worker), tokenizer)


def _check_match(directory: Path, config: ModelConfig, codec_config: CodecConfig) -> None:
    """Raise CheckpointError if the talker and the codec have different codebooks."""
    talker = config.talker_config
    decoder = codec_config.decoder_config
    if (talker.num_code_groups, talker.num_codes) != (decoder.num_quantizers, decoder.codebook_size):
        raise CheckpointError(f"{directory}: the talker and the speech tokenizer do not belong together")


def prepare(network: Network, codec: CodecNetwork, worker: Worker, fused: bool = True) -> None:
    """Fuse the layers of loaded networks, and read from disk what every request needs.

    The tensors are read part by part, so that Ctrl-C is heard. The encoders are read when they are first used.
    """

    def fuse_all() -> None:
        fuse(network.talker.model)
        fuse(network.talker.code_predictor.model)
        codec.decoder.fuse()

    if fused:
        worker.run(fuse_all)
    for part in (*network.talker.model.layers, network.talker, codec.decoder):
        worker.run(mx.eval, part.parameters())
    worker.run(mx.clear_cache)
