"""Miniature checkpoints on which the port is compared with the official package.

"equal": talker and code predictor have the same width (no projection), 4 query heads per key-value head, and the
released codec rates. "projected": the predictor has another width (with small_to_mtp_projection), there are 2 query
heads per key-value head, and the codec has 64 samples per frame. Both have a separate text width, as the released
models do.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import mlx.core as mx
from safetensors.numpy import load_file, save_file

from mlx_qwen3_tts.demo.random_checkpoint import CODEC, CODES, MODEL, write_checkpoint
from tests.support import released

SPEAKER_ENCODER = {
    "enc_dim": 32, "sample_rate": 24000, "enc_channels": [16, 16, 16, 16, 48], "enc_attention_channels": 8,
    "enc_res2net_scale": 4, "enc_se_channels": 8,
}  # fmt: skip
SHAPES = ("equal", "projected")
GOLDEN_SEED = 2
_written: dict[str, Path] = {}
_root = tempfile.TemporaryDirectory(prefix="mlx-qwen3-tts-tests-")  # removed at the end of the process


def kept(write: Callable[..., object]) -> Callable[..., Path]:
    """Return a function that writes each checkpoint once, and copies it from then on: random weights take a while."""

    @wraps(write)
    def write_or_copy(directory: Path, *args: object, **named: object) -> Path:
        key = f"{write.__name__} {args} {named}"
        if key not in _written:
            new = Path(tempfile.mkdtemp(dir=_root.name)) / "checkpoint"
            new.mkdir()
            write(new, *args, **named)
            _written[key] = new
        shutil.copytree(_written[key], directory, copy_function=shutil.copyfile, dirs_exist_ok=True)
        return directory

    return write_or_copy


def configs(shape: str, model_type: str = "custom_voice") -> tuple[dict, dict]:
    """Return config.json and speech_tokenizer/config.json of a test checkpoint."""
    model, codec = copy.deepcopy(MODEL), copy.deepcopy(CODEC)
    model["tts_model_type"] = model_type
    talker, predictor = model["talker_config"], model["talker_config"]["code_predictor_config"]
    talker |= {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2}
    predictor |= {"num_hidden_layers": 2, "intermediate_size": 64}
    codec["decoder_config"] |= {"decoder_dim": 32, "latent_dim": 48}
    if model_type == "base":
        talker |= {"spk_id": {}, "spk_is_dialect": {}}
        model["speaker_encoder_config"] = SPEAKER_ENCODER
    if shape == "equal":
        talker |= {"num_key_value_heads": 1}
        predictor |= {"hidden_size": 32}
    else:
        predictor |= {"hidden_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2}
        codec["decoder_config"] |= {"upsample_rates": [4, 2, 2, 1], "num_key_value_heads": 2}
        codec["decode_upsample_rate"] = 64
    return model, codec


def full_size_configs(hidden: int) -> tuple[dict, dict]:
    """Return configs of a Base checkpoint with speaker encoder and codec at released sizes; the talker is a stub."""
    model, codec = released.config("0.6B-Base" if hidden == 1024 else "1.7B-Base"), copy.deepcopy(released.CODEC)
    talker = model["talker_config"]
    talker |= {"num_hidden_layers": 1, "intermediate_size": 64, "text_vocab_size": 512, "text_hidden_size": 32}
    talker["code_predictor_config"] |= {
        "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "layer_types": ["full_attention"],
    }  # fmt: skip
    return model, codec


def wide_configs(model_type: str = "custom_voice", width: int = 64) -> tuple[dict, dict]:
    """Return the configs of a quantizable checkpoint with 4 codebooks of 64 codes.

    width: of the narrowest layer, a multiple of 64, of which every width is a multiple.
    """
    model, codec = copy.deepcopy(MODEL), copy.deepcopy(CODEC)
    model["tts_model_type"] = model_type
    talker, predictor, codes = model["talker_config"], model["talker_config"]["code_predictor_config"], 64
    for key, value in talker.items():
        if key.startswith("codec_") and isinstance(value, int):
            talker[key] = value - CODES + codes
    for names in ("codec_language_id", "spk_id"):
        talker[names] = {name: id_ - CODES + codes for name, id_ in talker[names].items()}
    sizes = {"num_code_groups": 4, "num_hidden_layers": 2}
    head_dim = width // talker["num_attention_heads"]
    talker |= sizes | {
        "text_hidden_size": width, "hidden_size": width, "head_dim": head_dim, "vocab_size": codes + 1024,
    }  # fmt: skip
    talker["rope_scaling"] = talker["rope_scaling"] | {"mrope_section": [head_dim // 4, head_dim // 8, head_dim // 8]}
    predictor |= sizes | {
        "hidden_size": 128, "intermediate_size": width, "head_dim": head_dim, "vocab_size": codes,
    }  # fmt: skip
    codec["encoder_valid_num_quantizers"] = 4
    codec["decoder_config"] |= {"num_quantizers": 4, "codebook_size": codes, "decoder_dim": 32, "latent_dim": 32}
    codec["encoder_config"] |= {"num_quantizers": 8, "codebook_size": codes}
    if model_type == "base":
        talker |= {"spk_id": {}, "spk_is_dialect": {}}
        model["speaker_encoder_config"] = {  # channels above 64: mlx-audio guesses the layout from the shapes
            "enc_dim": width, "sample_rate": 24000, "enc_channels": [68, 68, 68, 68, 204], "enc_attention_channels": 66,
            "enc_res2net_scale": 4, "enc_se_channels": 66,
        }  # fmt: skip
    return model, codec


@kept
def write_wide(directory: Path, model_type: str = "custom_voice", dtype: str = "float32", width: int = 64) -> Path:
    """Write a quantizable checkpoint whose greedy speech never ends.

    dtype: the type of its model.safetensors. width: see `wide_configs`.
    """
    model, codec = wide_configs(model_type, width)
    write_checkpoint(directory, model, codec, GOLDEN_SEED)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["talker.codec_head.weight"][model["talker_config"]["codec_eos_token_id"]] = 0
    typed = {name: mx.array(tensor).astype(getattr(mx, dtype)) for name, tensor in tensors.items()}
    mx.save_safetensors(str(path), typed, {"format": "pt"})
    return directory


@kept
def write(directory: Path, shape: str, model_type: str = "custom_voice", seed: int = GOLDEN_SEED) -> Path:
    """Write a test checkpoint; the weights depend on shape and seed only, not on the model type.

    The EOS logit is always 0, far below the largest logit, so that greedy speech never ends. (Tests of the end use an
    ordinary code as EOS.)
    """
    model, codec = configs(shape, model_type)
    write_checkpoint(directory, model, codec, seed)
    tensors = load_file(directory / "model.safetensors")
    tensors["talker.codec_head.weight"][model["talker_config"]["codec_eos_token_id"]] = 0
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory
