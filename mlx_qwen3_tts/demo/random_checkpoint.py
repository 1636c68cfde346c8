"""Random checkpoints of any size in the released layout, on which the tests compare with the official package.

    config.json ─ names and shapes of our own modules ─ init_tensor ─ model.safetensors, ...

`init_tensor` leaves no branch near zero: with the usual initial values (layer scales of 0.01, ConvNeXt gammas of 1e-6,
codebooks of 0) half of the network could be missing unnoticed.
"""

import json
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers.pre_tokenizers import ByteLevel

from ..checkpoint.weights import stored_shapes
from ..codec.codec import CodecNetwork
from ..config.codec import CodecConfig
from ..config.model import ModelConfig
from ..config.schema import from_dict
from ..mlx_thread import MLX_THREAD
from ..models.network import Network

WORDS = [
    "assistant", "user", "the", "and", "hello", "is", "it", "to", "of", "in", "that", "world", "voice", "speech", "a",
    "this",
]  # fmt: skip
CONTROL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>",
    "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>", "<|audio_pad|>",
]  # fmt: skip
CODES = 256  # per codebook
TRANSFORMER = {
    "hidden_act": "silu", "attention_bias": False, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "use_sliding_window": False, "num_code_groups": 16,
}  # fmt: skip
CODE_PREDICTOR = TRANSFORMER | {
    "model_type": "qwen3_tts_talker_code_predictor", "hidden_size": 48, "intermediate_size": 96,
    "num_hidden_layers": 2, "vocab_size": CODES, "rope_scaling": None, "tie_word_embeddings": False,
    "layer_types": ["full_attention"] * 2, "max_position_embeddings": 65536,
}  # fmt: skip
TALKER = TRANSFORMER | {
    "model_type": "qwen3_tts_talker", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "vocab_size": CODES + 1024, "text_vocab_size": 512, "text_hidden_size": 48, "max_position_embeddings": 32768,
    "rope_scaling": {"interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default", "type": "default"},
    "codec_pad_id": CODES + 100, "codec_bos_id": CODES + 101, "codec_eos_token_id": CODES + 102,
    "codec_think_id": CODES + 106, "codec_nothink_id": CODES + 107, "codec_think_bos_id": CODES + 108,
    "codec_think_eos_id": CODES + 109,
    "codec_language_id": {"english": CODES + 2, "chinese": CODES + 7, "sichuan_dialect": CODES + 14},
    "spk_id": {"ada": CODES + 1000, "ben": CODES + 1001, "chuan": CODES + 1002},
    "spk_is_dialect": {"ada": False, "ben": False, "chuan": "sichuan_dialect"},
    "code_predictor_config": CODE_PREDICTOR,
}  # fmt: skip
MODEL = {
    "architectures": ["Qwen3TTSForConditionalGeneration"], "model_type": "qwen3_tts",
    "tokenizer_type": "qwen3_tts_tokenizer_12hz", "tts_model_type": "custom_voice", "tts_model_size": "1b7",
    "talker_config": TALKER,
    # Not the released 4.57.3: from that version on transformers replaces the pre-tokenizer of a local model (see
    # text/tokenizer.py).
    "transformers_version": "4.57.1",
}  # fmt: skip
CODEC = {
    "architectures": ["Qwen3TTSTokenizerV2Model"], "model_type": "qwen3_tts_tokenizer_12hz",
    "input_sample_rate": 24000, "output_sample_rate": 24000, "decode_upsample_rate": 1920,
    "encode_downsample_rate": 1920, "encoder_valid_num_quantizers": 16,
    "decoder_config": {
        "attention_bias": False, "hidden_act": "silu", "latent_dim": 64, "codebook_dim": 32, "codebook_size": CODES,
        "decoder_dim": 96, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8, "num_attention_heads": 4,
        "num_key_value_heads": 4, "num_hidden_layers": 2, "num_quantizers": 16, "num_semantic_quantizers": 1,
        "rms_norm_eps": 1e-5, "rope_theta": 10000, "sliding_window": 72, "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2], "max_position_embeddings": 8000, "layer_scale_initial_scale": 0.01,
    },
    "encoder_config": {
        "_frame_rate": 12.5, "attention_bias": False, "audio_channels": 1, "codebook_dim": 16, "codebook_size": CODES,
        "compress": 2, "dilation_growth_rate": 2, "head_dim": 8, "hidden_act": "gelu", "hidden_size": 32,
        "intermediate_size": 64, "kernel_size": 7, "last_kernel_size": 3, "max_position_embeddings": 8000,
        "norm_eps": 1e-5, "normalize": False, "num_attention_heads": 4, "num_filters": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 4, "num_quantizers": 32, "num_residual_layers": 1, "num_semantic_quantizers": 1,
        "pad_mode": "constant", "residual_kernel_size": 3, "rope_theta": 10000.0, "sampling_rate": 24000,
        "sliding_window": 250, "trim_right_ratio": 1.0, "upsample_groups": 32, "upsampling_ratios": [8, 6, 5, 4],
        "use_cache": False, "use_causal_conv": True, "use_conv_shortcut": False, "use_streaming": False,
        "vector_quantization_hidden_dimension": 16,
    },
}  # fmt: skip
GENERATION = {
    "do_sample": True, "temperature": 0.9, "top_p": 1.0, "top_k": 50, "repetition_penalty": 1.05,
    "subtalker_dosample": True, "subtalker_temperature": 0.9, "subtalker_top_p": 1.0, "subtalker_top_k": 50,
    "max_new_tokens": 8192,
}  # fmt: skip
BASE = MODEL | {
    "tts_model_type": "base",
    "talker_config": TALKER | {"spk_id": {}, "spk_is_dialect": {}},
    "speaker_encoder_config": {
        "enc_dim": TALKER["hidden_size"], "sample_rate": 24000, "enc_channels": [32, 32, 32, 32, 96],
        "enc_attention_channels": 16, "enc_se_channels": 16,
    },
}  # fmt: skip


def write_checkpoint(directory: Path, model: dict[str, Any], codec: dict[str, Any], seed: int) -> None:
    """Write a random checkpoint in the released directory layout.

    model, codec: config.json, in which the text control ids are filled in here, and speech_tokenizer/config.json.
    seed: every weight is a function of its name, its shape and this number, on every platform.
    """
    tokens = [token for word in WORDS for token in (word, "Ġ" + word)]
    model = write_configs(directory, model, codec, tokens, GENERATION)
    config = from_dict(ModelConfig, model, "config.json")
    codec_config = from_dict(CodecConfig, codec, "config.json")
    shapes, codec_shapes = MLX_THREAD.run(_stored_shapes, config, codec_config)
    _save(shapes, directory / "model.safetensors", seed)
    _save(codec_shapes, directory / "speech_tokenizer" / "model.safetensors", seed)


def write_configs(
    directory: Path, model: dict[str, Any], codec: dict[str, Any], tokens: list[str], generation: dict[str, Any]
) -> dict[str, Any]:
    """Write a checkpoint except its weights, and return config.json with the text control ids filled in.

    model, codec: as in `write_checkpoint`. tokens: of the vocabulary, in addition to the 256 bytes. generation:
    generation_config.json.
    """
    vocab, merges = byte_level_vocabulary(tokens)
    control = {token: len(vocab) + i for i, token in enumerate(CONTROL_TOKENS)}
    model = model | {
        "im_start_token_id": control["<|im_start|>"], "im_end_token_id": control["<|im_end|>"],
        "assistant_token_id": vocab["assistant"], "tts_pad_token_id": control["<tts_pad>"],
        "tts_bos_token_id": control["<tts_text_bos>"], "tts_eos_token_id": control["<tts_text_eod>"],
    }  # fmt: skip
    tokenizer = {
        "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 131072, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "bos_token": None, "add_prefix_space": False,
        "additional_special_tokens": CONTROL_TOKENS,
        "added_tokens_decoder": {
            str(id_): {"content": token, "lstrip": False, "normalized": False, "rstrip": False,
                       "single_word": False, "special": True}
            for token, id_ in control.items()
        },
    }  # fmt: skip
    extractor = {
        "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": codec["input_sample_rate"],
    }  # fmt: skip
    speech = directory / "speech_tokenizer"
    speech.mkdir(parents=True, exist_ok=True)
    for path, data in {
        directory / "config.json": model,
        directory / "generation_config.json": generation,
        directory / "tokenizer_config.json": tokenizer,
        directory / "vocab.json": vocab,
        speech / "config.json": codec,
        speech / "preprocessor_config.json": extractor,
    }.items():
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
    merges_text = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
    (directory / "merges.txt").write_text(merges_text, encoding="utf-8")
    return model


def byte_level_vocabulary(tokens: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the ids and merges of a BPE vocabulary of the 256 bytes and `tokens`, which grow letter by letter.

    Ġ stands for a space.
    """
    known = sorted(ByteLevel.alphabet())
    merges = []
    for token in tokens:
        for end in range(2, len(token) + 1):
            if token[:end] not in known:
                known.append(token[:end])
                merges.append((token[: end - 1], token[end - 1]))
    return {token: id_ for id_, token in enumerate(known)}, merges


Shapes = dict[str, tuple[int, ...]]


def _stored_shapes(config: ModelConfig, codec_config: CodecConfig) -> tuple[Shapes, Shapes]:
    return stored_shapes(Network(config), "pt"), stored_shapes(CodecNetwork(codec_config), "pt")


def _save(shapes: Shapes, path: Path, seed: int) -> None:
    tensors = {name: init_tensor(name, shape, seed) for name, shape in shapes.items()}
    save_file(tensors, path, {"format": "pt"})


def init_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return random float32 values for a tensor in PyTorch layout, of a size that keeps every branch alive."""
    # RandomState's uniform numbers have the same bits on every platform and in every version of numpy.
    random = np.random.RandomState(zlib.crc32(f"{seed} {name}".encode()))
    noise = 2 * random.random_sample(shape) - 1
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "initialized":
        values = np.ones(shape)
    elif leaf == "cluster_usage":
        values = 1.25 + 0.75 * noise
        values[3::7] = 0  # codes that training never used: their count is clamped
    elif leaf in ("embedding_sum", "embed_sum"):
        values = 1.7 * noise
        values[3::7] *= 1e-5
    elif leaf in LEAF_RANGES:
        center, spread = LEAF_RANGES[leaf]
        values = center + spread * noise
    elif len(shape) == 1:  # norms
        values = 1 + 0.4 * noise
    elif "embedding" in name:
        values = 1.7 * noise
    else:
        values = _matrix_scale(name, shape) * noise
    return values.astype(np.float32)


LEAF_RANGES = {"scale": (0.5, 0.2), "gamma": (0.5, 0.2), "alpha": (0.0, 0.5), "beta": (0.0, 0.5), "bias": (0.0, 0.1)}


def _matrix_scale(name: str, shape: tuple[int, ...]) -> float:
    """Return the bound of a weight's values: by its fan-in, and by its place in the network."""
    is_decoder = name.startswith("decoder.decoder")
    is_transposed = is_decoder and ".block.1.conv." in name
    is_transposed |= name.startswith("decoder.upsample") and name.endswith(".0.conv.weight")
    fan_in = shape[0] if is_transposed else prod(shape[1:])
    if is_decoder and shape[0] == 1:
        gain = 0.05  # the last convolution: hardly any sample is clamped
    elif "head" in name:
        gain = 4.0  # logits that differ
    elif ".conv2.conv." in name:
        gain = 0.4  # residual units that do not explode
    elif is_transposed:
        gain = 0.7
    else:
        gain = 1.0
    return gain * np.sqrt(3 / fan_in)
