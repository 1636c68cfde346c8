"""Miniature checkpoints on which the port is compared with the official package.

"equal": talker and code predictor have the same width (no projection), 4 query heads per key-value head, and the
released codec rates. "projected": the predictor has another width (with small_to_mtp_projection), there are 2 query
heads per key-value head, and the codec has 64 samples per frame. Both have a separate text width, as the released
models do.
"""

import copy
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

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


def write_wide(directory: Path, model_type: str = "custom_voice", dtype: str = "float32", width: int = 64) -> Path:
    """Write a quantizable checkpoint whose greedy speech never ends.

    dtype: the type of its model.safetensors. width: see `wide_configs`.
    """
    return _write_files(directory, _make_wide, model_type, dtype, width)


def _make_wide(directory: Path, model_type: str, dtype: str, width: int) -> None:
    model, codec = wide_configs(model_type, width)
    write_checkpoint(directory, model, codec, GOLDEN_SEED)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["talker.codec_head.weight"][model["talker_config"]["codec_eos_token_id"]] = 0
    typed = {name: mx.array(tensor).astype(getattr(mx, dtype)) for name, tensor in tensors.items()}
    mx.save_safetensors(str(path), typed, {"format": "pt"})


def write(directory: Path, shape: str, model_type: str = "custom_voice", seed: int = GOLDEN_SEED) -> Path:
    """Write a test checkpoint; the weights depend on shape and seed only, not on the model type.

    The EOS logit is always 0, far below the largest logit, so that greedy speech never ends. (Tests of the end use an
    ordinary code as EOS.)
    """
    return _write_files(directory, _make, shape, model_type, seed)


def _make(directory: Path, shape: str, model_type: str, seed: int) -> None:
    model, codec = configs(shape, model_type)
    write_checkpoint(directory, model, codec, seed)
    tensors = load_file(directory / "model.safetensors")
    tensors["talker.codec_head.weight"][model["talker_config"]["codec_eos_token_id"]] = 0
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def _write_files(directory: Path, make: Callable[..., None], *args) -> Path:
    """Write the files that `make` writes into a directory."""
    for name, data in _files(make, *args).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


@lru_cache(maxsize=16)
def _files(make: Callable[..., None], *args) -> dict[Path, bytes]:
    """Return the files of a checkpoint by their paths in it. Most tests ask for one of a few, which takes 0.1 s."""
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        make(directory, *args)
        return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
