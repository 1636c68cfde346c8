"""Adapters: what fine-tuning with LoRA adds to a Base model, in a directory of its own.

    adapter_config.json   settings of LoRA, names and ids of the speakers ─┐
    adapters.safetensors  lora_a [in, rank], lora_b [rank, out] of a layer ┼─ read_adapter ─ Adapter
    speakers.safetensors  a voice [hidden] of each speaker                ─┘
    Adapter, Network of a Base model ─ apply_adapter ─► W + scale * (lora_a @ lora_b).T, voices in codec_embedding

The first two files are those of mlx-lm; `mlx_qwen3_tts` in adapter_config.json is this package's own entry. An adapter
is merged into the weights when a model is loaded, so that speech is as fast as without one.
Source: LoRALinear.fuse of mlx_lm.tuner.lora, except that the sum is made in float32 and rounded once.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from safetensors.numpy import load_file

from ..capabilities import MODEL_KINDS, SIZES
from ..config.model import ModelConfig
from ..config.schema import from_dict, quoted, read_json, require
from ..errors import CheckpointError, RequestError
from ..models.network import Network
from .speakers import CODEC_EMBEDDING, custom_voice_config, used_ids, with_voices
from .weights import read_header

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapters.safetensors"
ADAPTER_VOICES = "speakers.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_VOICES)
ADAPTER_FORMAT = 1  # `mlx_qwen3_tts.format`; another one is refused
FACTORS = ("lora_a", "lora_b")


@dataclass(frozen=True)
class LoraParameters:
    """`lora_parameters` of adapter_config.json."""

    rank: int
    scale: float
    keys: Any  # paths of the layers, from the network's root


@dataclass(frozen=True)
class AdapterEntry:
    """`mlx_qwen3_tts` of adapter_config.json."""

    format: int
    base: str  # name of the model that was trained
    hidden_size: int  # the hidden size of its talker
    speakers: dict[str, int]


@dataclass(frozen=True)
class AdapterConfig:
    """adapter_config.json."""

    IMPLEMENTED: ClassVar[dict[str, object]] = {"fine_tune_type": "lora"}

    lora_parameters: LoraParameters
    mlx_qwen3_tts: AdapterEntry


class LowRank(NamedTuple):
    """The two factors of a change of a layer's weight."""

    a: np.ndarray  # float32 [in, rank]
    b: np.ndarray  # float32 [rank, out]


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter in memory. Its arrays are NumPy's, which any thread may use."""

    path: Path
    base: str
    hidden_size: int
    scale: float
    layers: dict[str, LowRank]  # by the layer's path
    speakers: dict[str, int]
    voices: dict[str, np.ndarray]  # float32 [hidden] by speaker

    def merged(self, name: str, tensor: mx.array, dtype: mx.Dtype | None = None) -> mx.array:
        """Return the tensor `name` of an unquantized Base model as it is with this adapter.

        dtype: the type of a tensor that changes, which is rounded once; None keeps its own. On the MLX thread.
        """
        dtype = dtype or tensor.dtype
        path = name.removesuffix(".weight")
        if path == CODEC_EMBEDDING:
            return with_voices(tensor.astype(dtype), self.speakers, self.voices)
        if path == name or path not in self.layers:
            return tensor
        return self.add_to(path, tensor).astype(dtype)

    def add_to(self, path: str, weight: mx.array) -> mx.array:
        """Return the weight [out, in] of the layer at `path` plus its change, float32."""
        a, b = self.layers[path]
        return weight.astype(mx.float32) + self.scale * (mx.array(a) @ mx.array(b)).T


def adapter_path(adapter: str | Path | None) -> Path | None:
    """Return the directory of an adapter that was named. Raises RequestError if it is not a path."""
    if adapter is None:
        return None
    if not isinstance(adapter, str | os.PathLike):
        raise RequestError(f"adapter must be a directory, not {adapter!r}", "adapter")
    return Path(os.path.expanduser(adapter))


def read_adapter(path: Path) -> Adapter:
    """Read an adapter. Raises CheckpointError for one that is incomplete, damaged, or not this package's."""
    for name in ADAPTER_FILES:
        require((path / name).exists(), f"{path} is not an adapter of this package: {name} is missing in it")
    config = from_dict(AdapterConfig, read_json(path / ADAPTER_CONFIG), f"{path}/{ADAPTER_CONFIG}")
    entry = config.mlx_qwen3_tts
    if entry.format != ADAPTER_FORMAT:
        raise CheckpointError(
            f"{path} is an adapter of format {entry.format}, and this version of mlx-qwen3-tts reads {ADAPTER_FORMAT}: "
            "upgrade with `pip install -U mlx-qwen3-tts`"
        )
    voices = _read_floats(path / ADAPTER_VOICES)
    _check_voices(path, voices, entry)
    layers = _pair(path, _read_floats(path / ADAPTER_WEIGHTS), config.lora_parameters)
    scale = config.lora_parameters.scale
    return Adapter(path, entry.base, entry.hidden_size, scale, layers, entry.speakers, voices)


def _read_floats(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file, which must be finite float32. Raises CheckpointError."""
    tensors, _ = read_header(path)
    for name, tensor in tensors.items():
        require(tensor.kind == "F32", f"{path}: the tensor {name} is of type {tensor.kind}; it must be F32")
    arrays = load_file(path)
    for name, array in arrays.items():
        require(bool(np.isfinite(array).all()), f"{path}: the tensor {name} is not finite: take an earlier adapter")
    return arrays


def _check_names(path: Path, found: set[str], expected: set[str]) -> None:
    missing = sorted(expected - found)
    extra = sorted(found - expected)
    require(not missing, f"{path}: the tensor {' '.join(missing[:1])} is missing ({len(missing)} in all)")
    require(not extra, f"{path}: {' '.join(extra[:1])} is not in {ADAPTER_CONFIG} ({len(extra)} in all)")


def _check_voices(path: Path, voices: dict[str, np.ndarray], entry: AdapterEntry) -> None:
    """Raise CheckpointError unless there is a voice of the model's width for each speaker."""
    file = path / ADAPTER_VOICES
    require(bool(entry.speakers), f"{path}/{ADAPTER_CONFIG}: mlx_qwen3_tts.speakers is empty; there must be one")
    _check_names(file, set(voices), set(entry.speakers))
    for name, voice in voices.items():
        _check_shape(file, name, voice, (entry.hidden_size,))


def _check_shape(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    message = f"{path}: the tensor {name} has shape {list(array.shape)}; it must be {list(shape)}"
    require(array.shape == shape, message)


def _pair(path: Path, tensors: dict[str, np.ndarray], parameters: LoraParameters) -> dict[str, LowRank]:
    """Return the factors by layer. Raises CheckpointError unless they are those that `parameters` announces."""
    file = path / ADAPTER_WEIGHTS
    keys = parameters.keys
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(
            f"{path}/{ADAPTER_CONFIG}: lora_parameters.keys is {quoted(keys)}; it must be a list of paths of layers"
        )
    _check_names(file, set(tensors), {f"{key}.{factor}" for key in keys for factor in FACTORS})
    layers = {}
    for key in keys:
        pair = LowRank(*(tensors[f"{key}.{factor}"] for factor in FACTORS))
        shapes = [list(pair.a.shape), list(pair.b.shape)]
        if pair.a.ndim != 2 or pair.b.ndim != 2 or not pair.a.shape[1] == parameters.rank == pair.b.shape[0]:
            raise CheckpointError(
                f"{file}: the factors of {key} have the shapes {shapes[0]} and {shapes[1]}; for the rank "
                f"{parameters.rank} they must be [in, {parameters.rank}] and [{parameters.rank}, out]"
            )
        layers[key] = pair
    return layers


def check_config(config: ModelConfig, adapter: Adapter) -> None:
    """Raise CheckpointError unless a model is of the type, the width and the vocabulary that the adapter is for."""
    path = adapter.path
    kind = config.tts_model_type
    if kind != "base":
        raise CheckpointError(
            f"{path} belongs to the Base model that it was trained on ({adapter.base}), not to a {MODEL_KINDS[kind]} "
            "model"
        )
    width = config.talker_config.hidden_size
    if adapter.hidden_size != width:
        raise CheckpointError(
            f"{path} was trained on a model of width {adapter.hidden_size} ({SIZES.get(adapter.hidden_size, 'another')}"
            f" size: {adapter.base}), this one has {width} ({SIZES.get(width, 'another')} size): take that model"
        )
    _check_ids(config, adapter)


def check_adapter(network: Network, config: ModelConfig, adapter: Adapter) -> None:
    """Raise CheckpointError unless the adapter fits the loaded or empty network of a Base model."""
    check_config(config, adapter)
    path = adapter.path
    layers = _linear_layers(network)
    for name, (a, b) in adapter.layers.items():
        require(name in layers, f"{path}: this model has no linear layer {name}; it was trained on {adapter.base}")
        rows, columns = _size(layers[name])
        _check_shape(path, f"{name}.lora_a", a, (columns, a.shape[1]))
        _check_shape(path, f"{name}.lora_b", b, (b.shape[0], rows))


def _check_ids(config: ModelConfig, adapter: Adapter) -> None:
    """Raise CheckpointError unless the speakers' ids are free, different, and of the vocabulary."""
    talker = config.talker_config
    taken = used_ids(talker)
    for name, id_ in adapter.speakers.items():
        is_free = talker.num_codes <= id_ < talker.vocab_size and id_ not in taken
        message = f"{adapter.path}: the speaker {name} has the id {id_}, which is not free in this model"
        require(is_free, f"{message}; it was trained on {adapter.base}")
        taken.add(id_)


def _linear_layers(network: Network) -> dict[str, nn.Linear | nn.QuantizedLinear]:
    return {path: part for path, part in network.named_modules() if isinstance(part, nn.Linear | nn.QuantizedLinear)}


def _size(layer: nn.Linear | nn.QuantizedLinear) -> tuple[int, int]:
    """Return the numbers of outputs and inputs of a layer."""
    rows, columns = layer.weight.shape
    return rows, columns if isinstance(layer, nn.Linear) else columns * 32 // layer.bits


def apply_adapter(network: Network, config: ModelConfig, adapter: Adapter) -> ModelConfig:
    """Merge an adapter into the loaded network of a Base model, in place; return its configuration as CustomVoice.

    The layers must not be fused yet. A quantized layer is quantized again with its own settings; a quantized codec
    embedding is dequantized, so that the voices are exact. The speaker encoder, which a CustomVoice model does not
    have, is dropped. On the MLX thread. Raises CheckpointError if the adapter does not fit.
    """
    check_adapter(network, config, adapter)
    layers = _linear_layers(network)
    for path in adapter.layers:
        layer = layers[path]
        if isinstance(layer, nn.QuantizedLinear):
            _quantize(layer, adapter.add_to(path, _dequantized(layer)))
        else:
            layer.weight = adapter.merged(f"{path}.weight", layer.weight)
    _add_voices(network, adapter)
    network.pop("speaker_encoder", None)
    config = custom_voice_config(config, adapter.speakers)
    network.talker.config = config.talker_config
    return config


def _add_voices(network: Network, adapter: Adapter) -> None:
    model = network.talker.model
    table = model.codec_embedding
    if isinstance(table, nn.QuantizedEmbedding):
        model.codec_embedding = nn.Embedding(1, 1)
        model.codec_embedding.weight = _dequantized(table).astype(network.talker.dtype)
    weight = model.codec_embedding.weight
    model.codec_embedding.weight = adapter.merged(f"{CODEC_EMBEDDING}.weight", weight)


def _dequantized(layer: nn.QuantizedLinear | nn.QuantizedEmbedding) -> mx.array:
    """Return the weight of a quantized layer, float32 [out, in]."""
    scales, biases = layer.scales, layer.get("biases")
    if biases is not None:  # only the affine mode has them, and scales that are floats
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.dequantize(
        layer.weight, scales, biases, layer.group_size, layer.bits, mode=layer.mode, dtype=mx.float32
    )  # fmt: skip


def _quantize(layer: nn.QuantizedLinear, weight: mx.array) -> None:
    """Replace the weight of a quantized layer, with the same settings and types."""
    dtype = layer.scales.dtype
    if mx.issubdtype(dtype, mx.floating):
        weight = weight.astype(dtype)
    parts = mx.quantize(weight, layer.group_size, layer.bits, mode=layer.mode)
    for name, part in zip(("weight", "scales", "biases"), parts, strict=False):  # no biases but in the affine mode
        layer[name] = part
