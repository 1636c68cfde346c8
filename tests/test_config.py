"""Configurations: the five released models, and unsupported values."""

import copy
import json

import pytest

from mlx_qwen3_tts import CheckpointError
from mlx_qwen3_tts.checkpoint.weights import stored_shapes
from mlx_qwen3_tts.codec.codec import CodecNetwork
from mlx_qwen3_tts.config.codec import CodecConfig
from mlx_qwen3_tts.config.model import GenerationConfig, ModelConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.models.network import Network
from tests.support import released
from tests.support.golden import SHARED


@pytest.mark.parametrize("name", released.MODELS)
def test_released_model_has_its_tensors(name):
    network = Network(from_dict(ModelConfig, released.config(name), "config.json"))
    assert stored_shapes(network, "pt") == released.tensors(name)


def test_tensor_counts():
    """The 0.6B models share 402 tensors, and the speaker encoder has 76."""
    assert len(released.tensors("0.6B-CustomVoice")) == 402
    assert len(released.tensors("0.6B-Base")) == 402 + 76


def test_released_codec_has_its_tensors():
    codec = CodecNetwork(from_dict(CodecConfig, released.CODEC, "config.json"))
    assert stored_shapes(codec, "pt") == released.codec_tensors()


@pytest.mark.parametrize(
    "name, kind, ours",
    [
        ("Qwen3-TTS-12Hz-0.6B-CustomVoice.config.json", ModelConfig, released.config("0.6B-CustomVoice")),
        ("speech_tokenizer.config.json", CodecConfig, released.CODEC),
    ],
)
def test_released_files(name, kind, ours):
    path = SHARED / "configs" / name
    if not path.exists():
        pytest.skip("the released config files are not here")
    assert from_dict(kind, json.loads(path.read_text()), name) == from_dict(kind, ours, name)


def at(config: dict, path: str) -> tuple[dict, str]:
    *parents, key = path.split(".")
    for parent in parents:
        config = config[parent]
    return config, key


REFUSED = {
    "model_type": "qwen3_omni",
    "tokenizer_type": "qwen3_tts_tokenizer_25hz",
    "tts_model_type": "singing",
    "talker_config.hidden_act": "gelu",
    "talker_config.attention_bias": True,
    "talker_config.use_sliding_window": True,
    "talker_config.rope_scaling.rope_type": "yarn",
    "talker_config.rope_scaling.type": "linear",
    "talker_config.num_code_groups": 8,
    "talker_config.vocab_size": 4096,
    "talker_config.num_key_value_heads": 3,
    "talker_config.head_dim": 127,
    "talker_config.codec_bos_id": 3072,
    "talker_config.hidden_size": "1024",
    "talker_config.rms_norm_eps": None,
    "talker_config.code_predictor_config.hidden_act": "relu",
    "talker_config.code_predictor_config.rope_scaling": {"rope_type": "yarn"},
    "talker_config.code_predictor_config.tie_word_embeddings": True,
    "talker_config.code_predictor_config.layer_types": ["sliding_attention"] * 5,
    "talker_config.code_predictor_config.num_hidden_layers": 6,
    "talker_config.spk_is_dialect": {},
    "talker_config.codec_language_id": [1, 2],
    "im_start_token_id": 999999,
    "talker_config.rope_theta": float("nan"),
    "talker_config.intermediate_size": 10**12,
    "talker_config.num_hidden_layers": 10**6,
    "talker_config.code_predictor_config.rms_norm_eps": float("inf"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_values_not_implemented(path):
    config = released.config("1.7B-CustomVoice")
    parent, key = at(config, path)
    parent[key] = REFUSED[path]
    with pytest.raises(CheckpointError) as error:
        from_dict(ModelConfig, config, "config.json")
    assert key in str(error.value)
    assert "\n" not in str(error.value)


CODEC_REFUSED = {
    "model_type": "qwen3_tts_tokenizer_25hz",
    "decode_upsample_rate": 1280,
    "output_sample_rate": 22050,
    "encode_downsample_rate": 960,
    "encoder_valid_num_quantizers": 8,
    "decoder_config.hidden_act": "relu",
    "decoder_config.num_semantic_quantizers": 2,
    "decoder_config.num_quantizers": 1,
    "decoder_config.upsample_rates": [8, 5, 4],
    "decoder_config.decoder_dim": 100,
    "decoder_config.codebook_size": 1024,
    "encoder_config.use_causal_conv": False,
    "encoder_config.pad_mode": "reflect",
    "encoder_config.num_residual_layers": 2,
    "encoder_config._frame_rate": 25,
    "encoder_config.use_streaming": True,
}


@pytest.mark.parametrize("path", CODEC_REFUSED)
def test_codec_values_not_implemented(path):
    config = copy.deepcopy(released.CODEC)
    parent, key = at(config, path)
    parent[key] = CODEC_REFUSED[path]
    with pytest.raises(CheckpointError) as error:
        from_dict(CodecConfig, config, "config.json")
    assert "\n" not in str(error.value)


def fields_of(config: dict, prefix: str = "") -> list[str]:
    paths = []
    for key, value in config.items():
        paths.append(prefix + key)
        if isinstance(value, dict) and key.endswith("_config"):
            paths += fields_of(value, f"{prefix}{key}.")
    return paths


IGNORED = {
    "architectures", "transformers_version", "max_window_layers", "sliding_window", "max_position_embeddings",
    "attention_dropout", "top_k", "temperature", "do_sample", "initializer_range", "pad_token_id",
    "position_id_per_seconds", "layer_scale_initial_scale", "semantic_codebook_size", "trim_right_ratio",
    "upsample_groups", "normalize", "use_cache", "dtype", "vector_quantization_hidden_dimension",
}  # fmt: skip
SHAPING = {"talker_config.max_position_embeddings", "decoder_config.sliding_window",
           "encoder_config.vector_quantization_hidden_dimension"}  # fmt: skip


@pytest.mark.parametrize("path", fields_of(released.config("1.7B-Base")) + fields_of(released.CODEC))
def test_every_field_is_required_or_ignored(path):
    """A key that affects the computation has no silent default; other keys are optional."""
    codec = path in fields_of(released.CODEC) and path not in ("model_type", "architectures")
    kind, config = (CodecConfig, released.CODEC) if codec else (ModelConfig, released.config("1.7B-Base"))
    config = copy.deepcopy(config)
    parent, key = at(config, path)
    if key == "rope_scaling" and "code_predictor" not in path:
        del parent[key]
    else:
        parent.pop(key)
    # `model_type` inside a nested object is ignored, because the object's key already names it.
    ignored = (key in IGNORED and path not in SHAPING) or (key == "model_type" and "." in path)
    if ignored:
        from_dict(kind, config, "config.json")
    else:
        with pytest.raises(CheckpointError, match=f"{key}.* missing"):
            from_dict(kind, config, "config.json")


def test_keys_of_other_versions_are_ignored():
    config = released.config("0.6B-Base")
    config["talker_config"]["a_new_key"] = {"of": "transformers 9"}
    assert from_dict(ModelConfig, config, "c") == from_dict(ModelConfig, released.config("0.6B-Base"), "c")


def test_generation_config_defaults():
    assert GenerationConfig().max_new_tokens == 2048
    assert from_dict(GenerationConfig, {"max_new_tokens": 8192, "eos_token_id": 1}, "g").max_new_tokens == 8192
