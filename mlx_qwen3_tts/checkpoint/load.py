"""A path or a hub id to everything that a model is made of.

"demo" | directory | hub id ─ resolve ─ directory ─ config.json, tokenizer, weights ─► Qwen3TTS
"""

import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from ..codec.codec import Codec
from ..config.model import CodecConfig, GenerationConfig, ModelConfig
from ..config.schema import from_dict, read_json
from ..demo import registry as demo
from ..errors import CheckpointError, DownloadError, RequestError
from ..generation.sampling import DEFAULTS
from ..models.fused import fuse
from ..models.speaker_encoder import SpeakerEncoder
from ..models.talker import Talker
from ..text.tokenizer import TextTokenizer
from .quantization import read_quantization
from .weights import load_weights

CONFIG_FILES = ["config.json"]
FILES = [
    *CONFIG_FILES, "generation_config.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "model*.safetensors", "model.safetensors.index.json", "speech_tokenizer/config.json",
    "speech_tokenizer/model*.safetensors", "speech_tokenizer/model.safetensors.index.json",
]  # fmt: skip
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
FORMAT = 1  # of the checkpoints that convert.py writes: `mlx_qwen3_tts.format` in their config.json
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Network(nn.Module):
    """What model.safetensors holds."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.talker = Talker(config.talker_config)
        if config.tts_model_type == "base":
            self.speaker_encoder = SpeakerEncoder(config.speaker_encoder_config)


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    config: ModelConfig
    generation_config: GenerationConfig
    network: Network
    codec: Codec
    tokenizer: TextTokenizer


@contextmanager
def resolve(
    model: str | Path, progress: bool = False, files: list[str] = FILES, revision: str | None = None
) -> Iterator[Path]:
    """The directory that holds `model`: a directory, a hub id (fetched, or from the hub's cache), or "demo".

    progress: show the download on stderr. files: what to fetch. revision: a hub model's branch, tag or commit.
    Raises DownloadError, CheckpointError, and RequestError for a revision of what comes from no hub.
    """
    if not isinstance(model, str | os.PathLike):  # bytes would name a path, but no hub id
        raise RequestError(f"a model is named by a directory, a hub id or 'demo', not by {model!r}")
    path = os.path.expanduser(model)
    if revision is not None and (str(model) in demo.NAMES or os.path.exists(path)):
        raise RequestError(f"{model} comes from no hub and has no revisions; leave revision out")
    if revision is not None and not (isinstance(revision, str) and revision.strip()):
        raise RequestError("revision must be the name of a branch or tag, or a commit")
    if str(model) in demo.NAMES:
        with demo.checkpoint(str(model)) as directory:
            yield directory
    elif os.path.isdir(path):
        yield Path(path)
    elif os.path.exists(path):
        raise CheckpointError(f"{path} is a file; name the checkpoint's directory")
    elif HUB_ID.fullmatch(str(model)) and len(str(model)) < 100:
        yield _download(str(model), progress, files, revision)
    else:
        raise CheckpointError(f"{path!r} is no directory, and no hub id of the form owner/name either")


def _download(hub_id: str, progress: bool, files: list[str], revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from tqdm import tqdm

    class Bar(tqdm):
        """A bar that goes when it is done, and that is shown only where standard error is a terminal."""

        def __init__(self, *args, **kwargs) -> None:  # noqa: ANN002, ANN003
            kwargs.pop("name", None)  # an argument of huggingface_hub's own bar
            super().__init__(*args, **kwargs | {"disable": None if progress else True, "leave": False})

    other = "name a local directory, or --model demo"
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=files, tqdm_class=Bar))
    except GatedRepoError:
        why = f"{hub_id} asks for your consent on its page; give it, sign in with `hf auth login`, or {other}"
    except RepositoryNotFoundError:
        why = f"{hub_id} is neither a directory here nor a model on the hub; check the name, or {other}"
    except RevisionNotFoundError:
        why = f"{hub_id} has no revision {revision!r}; check its name, or leave it out"
    except LocalEntryNotFoundError:
        why = f"{hub_id} is not here yet and the hub cannot be reached; connect to the network, {other}"
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        why = f"cannot fetch {hub_id}: {textwrap.shorten(str(error), 200, placeholder=' ...')}; try later, or {other}"
    raise DownloadError(why)


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
