"""A path or a hub id to a model: find or fetch the files, read the configuration, load the weights.

    "demo" | directory | hub id ─ resolve ─ directory ─ config.json, tokenizer, *.safetensors ─► Qwen3TTS

Attribute paths are the checkpoint's keys, so loading needs no table of names. `sanitize` holds the two exceptions,
chosen by the type of the module at a path: the layout of convolutions (a PyTorch file says so in its metadata:
`format` "pt"; an MLX file says "mlx"), and codebooks, which a file holds as sums and counts. Loading is strict: every
tensor missing, left over or of another shape is an error that names it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from . import demo
from .codec import Codec
from .codec.quantizer import Codebook
from .config import CodecConfig, GenerationConfig, ModelConfig, from_dict, read_json
from .errors import CheckpointError, DownloadError
from .speaker_encoder import SpeakerEncoder
from .talker import Talker
from .tokenizer import TextTokenizer

FILES = ["*.json", "*.safetensors", "merges.txt", "speech_tokenizer/*.json", "speech_tokenizer/*.safetensors"]
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Network(nn.Module):
    """What model.safetensors holds."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.talker = Talker(config.talker_config)
        if config.tts_model_type == "base":
            self.speaker_encoder = SpeakerEncoder(config.speaker_encoder_config)


@contextmanager
def resolve(model: str | Path, progress: bool = False) -> Iterator[Path]:
    """The directory that holds `model`: a directory, a hub id (fetched, or from the hub's cache), or "demo".

    progress: show the download on stderr. Raises DownloadError or CheckpointError.
    """
    path = Path(model).expanduser()
    if str(model) in demo.MODELS:
        with demo.checkpoint(str(model)) as directory:
            yield directory
    elif path.is_dir():
        yield path
    elif path.exists():
        raise CheckpointError(f"{path} is a file; name the checkpoint's directory")
    elif HUB_ID.fullmatch(str(model)):
        yield _download(str(model), progress)
    else:
        raise CheckpointError(f"{path} is no directory, and no hub id of the form owner/name either")


def _download(hub_id: str, progress: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args, **kwargs) -> None:  # noqa: ANN002, ANN003
            kwargs.pop("name", None)  # huggingface_hub's own bar takes it
            kwargs["disable"] = None if progress else True  # None: only where stderr is a terminal
            super().__init__(*args, **kwargs)

    other = "or name a local directory, or --model demo"
    try:
        return Path(snapshot_download(hub_id, allow_patterns=FILES, tqdm_class=Bar))
    except RepositoryNotFoundError:
        raise DownloadError(f"{hub_id} is neither a directory here nor a model on the hub; check it, {other}") from None
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise DownloadError(f"cannot fetch {hub_id} ({reason}); connect to the network, {other}") from None


def sanitize(weights: dict[str, mx.array], module: nn.Module, layout: str) -> dict[str, mx.array]:
    """A file's tensors under the names and in the layouts of `module`. layout: the file's, "pt" or "mlx"."""
    weights = dict(weights)
    for path, part in module.named_modules():
        if isinstance(part, Codebook):
            Codebook.sanitize(weights, path)
        elif layout == "pt" and isinstance(part, nn.Conv1d) and f"{path}.weight" in weights:
            weights[f"{path}.weight"] = weights[f"{path}.weight"].moveaxis(1, 2)  # [out, in, k] -> [out, k, in]
        elif layout == "pt" and isinstance(part, nn.ConvTranspose1d) and f"{path}.weight" in weights:
            weights[f"{path}.weight"] = weights[f"{path}.weight"].transpose(1, 2, 0)  # [in, out, k] -> [out, k, in]
    return weights


def _weight_files(directory: Path) -> list[Path]:
    """model.safetensors, or the shards that its index names."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise CheckpointError(f"{single} is missing: fetch the whole checkpoint again")
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
        raise CheckpointError(f"{index} has no usable weight_map")
    return [directory / name for name in sorted(set(names.values()))]


def _read_file(path: Path) -> tuple[dict[str, mx.array], str]:
    """The tensors of a safetensors file, lazily, and its layout ("pt" or "mlx")."""
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header against the file's length
            layout = (file.metadata() or {}).get("format", "pt")  # transformers, too, takes no word for PyTorch
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: fetch the whole checkpoint again") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): fetch it again") from None
    if layout not in ("pt", "mlx"):
        raise CheckpointError(f"{path} has the format {layout!r} in its metadata; this port reads 'pt' and 'mlx'")
    return mx.load(str(path)), layout


def load_weights(module: nn.Module, directory: Path, dtype: mx.Dtype | None = None) -> None:
    """Load a directory's safetensors into `module`, strictly and lazily.

    dtype: what floats are converted to; None keeps the file's. Raises CheckpointError.
    """
    weights: dict[str, mx.array] = {}
    for path in _weight_files(directory):
        tensors, layout = _read_file(path)
        weights |= sanitize(tensors, module, layout)
    expected = dict(tree_flatten(module.parameters()))
    for name, parameter in expected.items():
        if name not in weights:
            raise CheckpointError(
                f"{directory}: the tensor {name} is missing ({len(expected.keys() - weights)} in all)"
            )
        if weights[name].shape != parameter.shape:
            found, wanted = list(weights[name].shape), list(parameter.shape)
            raise CheckpointError(f"{directory}: the tensor {name} has shape {found}, config.json asks for {wanted}")
    extra = sorted(weights.keys() - expected.keys())
    if extra:
        raise CheckpointError(f"{directory}: unknown tensor {extra[0]} ({len(extra)} in all)")
    if dtype is not None:
        weights = {name: tensor.astype(dtype) for name, tensor in weights.items()}
    module.load_weights(list(weights.items()))
    module.eval()


def load_directory(directory: Path, dtype: str | None) -> tuple:
    """Everything in a checkpoint directory: config, generation config, network, codec, tokenizer.

    dtype: "float32", "bfloat16", "float16"; None takes float32 on the CPU and the file's own elsewhere. The codec
    is always float32.
    """
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    config = from_dict(ModelConfig, read_json(directory / "config.json"), "config.json")
    codec_directory = directory / "speech_tokenizer"
    codec_config = from_dict(CodecConfig, read_json(codec_directory / "config.json"), "speech_tokenizer/config.json")
    groups, quantizers = config.talker_config.num_code_groups, codec_config.decoder_config.num_quantizers
    if (groups, config.talker_config.num_codes) != (quantizers, codec_config.decoder_config.codebook_size):
        raise CheckpointError(f"{directory}: the talker and the speech tokenizer do not belong together")
    generation = GenerationConfig()
    if (directory / "generation_config.json").is_file():
        known = {field.name for field in fields(GenerationConfig)}
        data = read_json(directory / "generation_config.json")
        generation = from_dict(
            GenerationConfig,
            {k: v for k, v in data.items() if k in known and v is not None},
            "generation_config.json",
        )
    tokenizer = TextTokenizer.from_directory(directory, config)
    network, codec = Network(config), Codec(codec_config)
    if dtype is None and mx.default_device().type == mx.cpu:
        dtype = "float32"
    load_weights(network, directory, DTYPES[dtype] if dtype else None)
    load_weights(codec, codec_directory, mx.float32)
    # Read now what every request needs, piece by piece so that Ctrl-C is heard; the encoders wait for their first use.
    for part in (*network.talker.model.layers, network.talker, codec.decoder):
        mx.eval(part.parameters())
    return config, generation, network, codec, tokenizer
