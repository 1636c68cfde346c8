"""What a training leaves behind: an adapter, or a CustomVoice checkpoint in the official layout.

    LoRA's matrices, voices ─ write_adapter ────► adapter_config.json, adapters.safetensors, speakers.safetensors
    trained network, voices ─ write_checkpoint ─► config.json (with spk_id), model.safetensors, tokenizer, codec

Both directories appear under their name when they are complete, and take the place of an older one of the same kind.
The adapter's first two files are read by mlx-lm's tools, the checkpoint by the official package.
Source of the checkpoint: finetuning/sft_12hz.py of the official repository, for more than one speaker.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors.numpy import save

from ..checkpoint.adapter import ADAPTER_CONFIG, ADAPTER_FILES, ADAPTER_FORMAT, ADAPTER_VOICES, ADAPTER_WEIGHTS
from ..checkpoint.load import SPEECH_TOKENIZER
from ..checkpoint.shards import TYPES, ShardWriter, Tensor
from ..checkpoint.speakers import CODEC_EMBEDDING, SPEAKER_ENCODER, custom_voice_json, free_ids, with_voices
from ..checkpoint.weights import merged, read_headers, stored, weight_files
from ..config.model import ModelConfig
from ..config.schema import read_json
from ..conversion.convert import SHARD_SIZE, copy_files
from ..conversion.target import file_names, is_checkpoint_file
from ..errors import TrainingError
from ..files import atomic_path
from ..models.network import Network

MAX_NAME = 100  # characters of a speaker's name


def speaker_ids(names: Collection[str], config: ModelConfig) -> dict[str, int]:
    """Return the ids that new speakers get in a model, by their names in lower case, as both packages find them.

    Raises TrainingError for names that cannot be used or that differ in case only, and for too many of them.
    """
    free = free_ids(config.talker_config)
    if len(names) > len(free):
        raise TrainingError(f"there are {len(names)} speakers, and this model has room for {len(free)}")
    ids: dict[str, int] = {}
    for name, id_ in zip(names, free, strict=False):
        check_name(name)
        if name.lower() in ids:
            raise TrainingError(f"two speakers are called {name!r}, apart from capitals: give them different names")
        ids[name.lower()] = id_
    return ids


def check_name(name: str) -> None:
    """Raise TrainingError for a speaker's name that nobody could ask for: blank, not printable, or like a file's."""
    is_plain = name == name.strip() and name.isprintable() and 0 < len(name) <= MAX_NAME
    if not is_plain or name == "__metadata__" or name.endswith(".safetensors") or "/" in name or os.sep in name:
        raise TrainingError(f"{name!r} cannot be a speaker's name: take a word, such as anna")


def write_adapter(
    path: Path,
    weights: Mapping[str, mx.array],
    lora_parameters: Mapping[str, object],
    voices: Mapping[str, np.ndarray],
    base: str,
    config: ModelConfig,
) -> None:
    """Write an adapter, atomically; one that is at `path` is replaced.

    weights: lora_a [in, rank] and lora_b [rank, out] by name, from lora.lora_weights. lora_parameters: from
    lora.add_lora. voices: float [hidden] by speaker. base: the name of the trained model. config: of that model.
    On the MLX thread. Raises TrainingError if it cannot be written, and for speakers' names that cannot be used.
    """
    ids = speaker_ids(voices.keys(), config)
    own = {
        "format": ADAPTER_FORMAT,
        "base": base,
        "hidden_size": config.talker_config.hidden_size,
        "speakers": ids,
    }
    settings = {
        "fine_tune_type": "lora",
        "num_layers": config.talker_config.num_hidden_layers,
        "lora_parameters": dict(lora_parameters),
        "mlx_qwen3_tts": own,
    }
    matrices = {name: np.array(weight.astype(mx.float32)) for name, weight in weights.items()}
    rows = {name.lower(): np.ascontiguousarray(voice, np.float32) for name, voice in voices.items()}
    with _new_directory(path, [name for name in _files(path) if name not in ADAPTER_FILES]) as directory:
        (directory / ADAPTER_WEIGHTS).write_bytes(save(matrices, {"format": "mlx"}))
        (directory / ADAPTER_VOICES).write_bytes(save(rows))
        _write_json(directory / ADAPTER_CONFIG, settings)


def write_checkpoint(
    path: Path, source: Path, network: Network, config: ModelConfig, voices: Mapping[str, np.ndarray]
) -> None:
    """Write a trained network as a CustomVoice checkpoint, atomically; a checkpoint that is at `path` is replaced.

    source: the directory of the Base model that was trained; its types of weights, its tokenizer and its speech
    tokenizer are kept. network: not fused, not quantized, and not changed here. config: of the network. It may be a
    network with an adapter; its speakers stay. voices: float [hidden] by speaker.
    On the MLX thread. Raises TrainingError if it cannot be written, for speakers' names that cannot be used, and if
    the network does not have the source's tensors.
    """
    if path.exists() and os.path.samefile(path, source):
        raise TrainingError(f"{path} is the model that was trained: name another directory to write")
    ids = speaker_ids(voices.keys(), config)
    rows = {name.lower(): voice for name, voice in voices.items()}
    weights = {name: weight for name, weight in stored(network).items() if not name.startswith(SPEAKER_ENCODER)}
    tensors = _tensors(source, weights)
    data = custom_voice_json(read_json(source / "config.json"), {**config.talker_config.spk_id, **ids})
    with _new_directory(path, [name for name in _files(path) if not is_checkpoint_file(name)]) as directory:
        copy_files(source, directory)
        _copy_codec(source / SPEECH_TOKENIZER, directory / SPEECH_TOKENIZER)
        with ShardWriter(directory, tensors, SHARD_SIZE, "pt") as writer:
            for name, tensor in tensors.items():
                weight = weights[name]
                if name == f"{CODEC_EMBEDDING}.weight" and ids:
                    weight = with_voices(weight, ids, rows)
                writer.write(name, weight.astype(TYPES[tensor.kind]))
                mx.clear_cache()
        _write_json(directory / "config.json", data)


def _tensors(source: Path, weights: Mapping[str, mx.array]) -> dict[str, Tensor]:
    """Return the tensors to write: of the weights' shapes, and of the types that the source has."""
    headers, _ = read_headers(source)
    kinds = {name: kind for name, (_, kind) in merged(headers).items() if not name.startswith(SPEAKER_ENCODER)}
    other = next(iter(sorted(kinds.keys() ^ weights.keys())), None)
    if other is not None or not set(kinds.values()) <= {"F32", "F16", "BF16"}:
        raise TrainingError(
            f"a checkpoint needs all weights of the unquantized model {source}, but {other or 'one'} is not in both"
        )
    return {name: Tensor(tuple(weight.shape), kinds[name]) for name, weight in weights.items()}


def _copy_codec(source: Path, directory: Path) -> None:
    """Copy the weights of the speech tokenizer."""
    index = source / "model.safetensors.index.json"
    files = weight_files(source)
    if len(files) > 1 or files[0].name != "model.safetensors":
        files.append(index)
    for file in files:
        shutil.copyfile(file, directory / file.name)


def _files(path: Path) -> list[str]:
    return list(file_names(path)) if path.is_dir() else []


@contextmanager
def _new_directory(path: Path, others: Collection[str]) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` on success and is removed on failure.

    others: files at `path` that would be lost. Raises TrainingError for these, and if a write is refused.
    """
    if others:
        raise TrainingError(f"{path} is not replaced, because {min(others)} in it is of another kind: name another")
    try:
        with atomic_path(Path(os.path.realpath(path))) as directory:
            directory.mkdir()
            yield directory
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror or error}; nothing is left behind") from None


def _write_json(path: Path, data: Mapping[str, object]) -> None:
    with path.open("x", encoding="utf-8") as file:
        json.dump(data, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
