"""The five released models: their configurations, and the names and shapes of their tensors, written out by hand.

Sizes come from the released config.json files; names and shapes from the released weights (PyTorch layout).
"""

import copy

LANGUAGES = {
    "chinese": 2055, "english": 2050, "german": 2053, "italian": 2070, "portuguese": 2071, "spanish": 2054,
    "japanese": 2058, "korean": 2064, "french": 2061, "russian": 2069, "beijing_dialect": 2074,
    "sichuan_dialect": 2062,
}  # fmt: skip
SPEAKERS = {
    "serena": 3066, "vivian": 3065, "uncle_fu": 3010, "ryan": 3061, "aiden": 2861, "ono_anna": 2873, "sohee": 2864,
    "eric": 2875, "dylan": 2878,
}  # fmt: skip
DIALECTS = dict.fromkeys(SPEAKERS, False) | {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}
MODELS = {
    "0.6B-Base": ("base", "0b6", 1024, 3072),
    "0.6B-CustomVoice": ("custom_voice", "0b6", 1024, 3072),
    "1.7B-Base": ("base", "1b7", 2048, 6144),
    "1.7B-CustomVoice": ("custom_voice", "1b7", 2048, 6144),
    "1.7B-VoiceDesign": ("voice_design", "1b7", 2048, 6144),
}
PREDICTOR = {
    "model_type": "qwen3_tts_talker_code_predictor", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 5, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 2048,
    "num_code_groups": 16, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": None,
    "layer_types": ["full_attention"] * 5, "max_position_embeddings": 65536, "sliding_window": None,
    "use_sliding_window": False, "max_window_layers": 28, "tie_word_embeddings": False, "hidden_act": "silu",
    "attention_bias": False, "attention_dropout": 0, "top_k": 50, "temperature": 1.0, "do_sample": False,
}  # fmt: skip
TALKER = {
    "model_type": "qwen3_tts_talker", "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 3072, "text_vocab_size": 151936, "text_hidden_size": 2048, "num_code_groups": 16,
    "rms_norm_eps": 1e-6, "rope_theta": 1000000, "max_position_embeddings": 32768, "position_id_per_seconds": 13,
    "rope_scaling": {"interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default", "type": "default"},
    "attention_bias": False, "attention_dropout": 0, "hidden_act": "silu", "sliding_window": None,
    "use_sliding_window": False, "initializer_range": 0.02, "pad_token_id": 2148, "codec_pad_id": 2148,
    "codec_bos_id": 2149, "codec_eos_token_id": 2150, "codec_think_id": 2154, "codec_nothink_id": 2155,
    "codec_think_bos_id": 2156, "codec_think_eos_id": 2157, "codec_language_id": LANGUAGES,
    "code_predictor_config": PREDICTOR,
}  # fmt: skip
TOP = {
    "architectures": ["Qwen3TTSForConditionalGeneration"], "model_type": "qwen3_tts",
    "tokenizer_type": "qwen3_tts_tokenizer_12hz", "im_start_token_id": 151644, "im_end_token_id": 151645,
    "assistant_token_id": 77091, "tts_pad_token_id": 151671, "tts_bos_token_id": 151672, "tts_eos_token_id": 151673,
    "transformers_version": "4.57.3",
}  # fmt: skip
CODEC = {
    "architectures": ["Qwen3TTSTokenizerV2Model"], "model_type": "qwen3_tts_tokenizer_12hz",
    "encoder_valid_num_quantizers": 16, "input_sample_rate": 24000, "output_sample_rate": 24000,
    "decode_upsample_rate": 1920, "encode_downsample_rate": 1920,
    "decoder_config": {
        "latent_dim": 1024, "codebook_dim": 512, "codebook_size": 2048, "decoder_dim": 1536, "hidden_size": 512,
        "intermediate_size": 1024, "head_dim": 64, "num_attention_heads": 16, "num_key_value_heads": 16,
        "num_hidden_layers": 8, "num_quantizers": 16, "num_semantic_quantizers": 1, "semantic_codebook_size": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 10000, "sliding_window": 72, "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000, "upsample_rates": [8, 5, 4, 3], "upsampling_ratios": [2, 2],
        "vector_quantization_hidden_dimension": 512, "attention_bias": False, "attention_dropout": 0.0,
        "hidden_act": "silu",
    },
    "encoder_config": {
        "_frame_rate": 12.5, "sampling_rate": 24000, "audio_channels": 1, "hidden_size": 512,
        "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8,
        "head_dim": 64, "num_filters": 64, "kernel_size": 7, "last_kernel_size": 3, "residual_kernel_size": 3,
        "num_residual_layers": 1, "compress": 2, "dilation_growth_rate": 2, "upsampling_ratios": [8, 6, 5, 4],
        "num_quantizers": 32, "num_semantic_quantizers": 1, "codebook_size": 2048, "codebook_dim": 256,
        "vector_quantization_hidden_dimension": 256, "sliding_window": 250, "rope_theta": 10000.0, "norm_eps": 1e-5,
        "hidden_act": "gelu", "use_causal_conv": True, "pad_mode": "constant", "trim_right_ratio": 1.0,
        "use_conv_shortcut": False, "upsample_groups": 512, "normalize": False, "use_cache": False,
        "use_streaming": False, "max_position_embeddings": 8000, "dtype": "float32", "attention_bias": False,
    },
}  # fmt: skip


def config(name: str) -> dict:
    """config.json of a released model."""
    kind, size, hidden, intermediate = MODELS[name]
    preset = kind == "custom_voice"
    talker = TALKER | {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "spk_id": SPEAKERS if preset else {},
        "spk_is_dialect": DIALECTS if preset else {},
    }
    result = TOP | {"tts_model_type": kind, "tts_model_size": size, "talker_config": talker}
    if kind == "base":
        result["speaker_encoder_config"] = {"enc_dim": hidden, "sample_rate": 24000}
    return copy.deepcopy(result)


def _layer(prefix: str, hidden: int, intermediate: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.{name}.weight": shape
        for name, shape in {
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (2048, hidden),
            "self_attn.k_proj": (1024, hidden),
            "self_attn.v_proj": (1024, hidden),
            "self_attn.o_proj": (hidden, 2048),
            "self_attn.q_norm": (128,),
            "self_attn.k_norm": (128,),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "mlp.down_proj": (hidden, intermediate),
        }.items()
    }


def _with_bias(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Expand layers to weights and biases; a bias has the length of the first dimension."""
    return {f"{n}.weight": s for n, s in shapes.items()} | {f"{n}.bias": s[:1] for n, s in shapes.items()}


def tensors(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in model.safetensors."""
    kind, _, hidden, intermediate = MODELS[name]
    result = {
        "talker.model.text_embedding.weight": (151936, 2048),
        "talker.model.codec_embedding.weight": (3072, hidden),
        "talker.model.norm.weight": (hidden,),
        "talker.codec_head.weight": (3072, hidden),
        "talker.code_predictor.model.norm.weight": (1024,),
    }
    result |= _with_bias(
        {"talker.text_projection.linear_fc1": (2048, 2048), "talker.text_projection.linear_fc2": (hidden, 2048)}
    )
    for i in range(28):
        result |= _layer(f"talker.model.layers.{i}", hidden, intermediate)
    for i in range(5):
        result |= _layer(f"talker.code_predictor.model.layers.{i}", 1024, 3072)
    for i in range(15):
        result[f"talker.code_predictor.model.codec_embedding.{i}.weight"] = (2048, hidden)
        result[f"talker.code_predictor.lm_head.{i}.weight"] = (2048, 1024)
    if hidden == 2048:
        result |= _with_bias({"talker.code_predictor.small_to_mtp_projection": (1024, 2048)})
    return result | (_speaker_encoder(hidden) if kind == "base" else {})


def _speaker_encoder(width: int) -> dict[str, tuple[int, ...]]:
    layers = {
        "blocks.0.conv": (512, 128, 5),
        "mfa.conv": (1536, 1536, 1),
        "asp.tdnn.conv": (128, 4608, 1),
        "asp.conv": (1536, 128, 1),
        "fc": (width, 3072, 1),
    }
    for i in (1, 2, 3):
        layers |= {f"blocks.{i}.{tdnn}.conv": (512, 512, 1) for tdnn in ("tdnn1", "tdnn2")}
        layers |= {f"blocks.{i}.res2net_block.blocks.{j}.conv": (64, 64, 3) for j in range(7)}
        layers |= {f"blocks.{i}.se_block.conv1": (128, 512, 1), f"blocks.{i}.se_block.conv2": (512, 128, 1)}
    return {f"speaker_encoder.{layer}": shape for layer, shape in _with_bias(layers).items()}


def codec_tensors() -> dict[str, tuple[int, ...]]:
    """Names and shapes in speech_tokenizer/model.safetensors."""
    decoder: dict[str, tuple[int, ...]] = {}
    for group, count in (("rvq_first", 1), ("rvq_rest", 15)):
        prefix = f"quantizer.{group}"
        decoder |= {f"{prefix}.input_proj.weight": (256, 512, 1), f"{prefix}.output_proj.weight": (512, 256, 1)}
        for i in range(count):
            decoder[f"{prefix}.vq.layers.{i}._codebook.embedding_sum"] = (2048, 256)
            decoder[f"{prefix}.vq.layers.{i}._codebook.cluster_usage"] = (2048,)
    decoder |= _with_bias({
        "pre_conv.conv": (1024, 512, 3),
        "pre_transformer.input_proj": (512, 1024),
        "pre_transformer.output_proj": (1024, 512),
        "decoder.0.conv": (1536, 1024, 7),
        "decoder.6.conv": (1, 96, 7),
    })  # fmt: skip
    decoder["pre_transformer.norm.weight"] = (512,)
    for i in range(8):
        prefix = f"pre_transformer.layers.{i}"
        decoder |= {f"{prefix}.{n}.weight": (512,) for n in ("input_layernorm", "post_attention_layernorm")}
        decoder |= {f"{prefix}.self_attn.{n}_proj.weight": (1024, 512) for n in "qkv"}
        decoder |= {f"{prefix}.mlp.{n}_proj.weight": (1024, 512) for n in ("gate", "up")}
        decoder |= {f"{prefix}.self_attn.o_proj.weight": (512, 1024), f"{prefix}.mlp.down_proj.weight": (512, 1024)}
        decoder |= {f"{prefix}.{n}_layer_scale.scale": (512,) for n in ("self_attn", "mlp")}
    for i in range(2):
        prefix = f"upsample.{i}"
        decoder |= {f"{prefix}.0.conv.weight": (1024, 1024, 2), f"{prefix}.0.conv.bias": (1024,)}
        decoder |= _with_bias({
            f"{prefix}.1.dwconv.conv": (1024, 1, 7),
            f"{prefix}.1.norm": (1024,),
            f"{prefix}.1.pwconv1": (4096, 1024),
            f"{prefix}.1.pwconv2": (1024, 4096),
        })  # fmt: skip
        decoder[f"{prefix}.1.gamma"] = (1024,)
    widths = (1536, 768, 384, 192, 96)
    for i, (wide, narrow, rate) in enumerate(zip(widths, widths[1:], (8, 5, 4, 3), strict=False), start=1):
        prefix = f"decoder.{i}.block"
        decoder |= {f"{prefix}.0.{n}": (wide,) for n in ("alpha", "beta")}
        decoder |= {f"{prefix}.1.conv.weight": (wide, narrow, 2 * rate), f"{prefix}.1.conv.bias": (narrow,)}
        for j in (2, 3, 4):
            decoder |= {f"{prefix}.{j}.{act}.{n}": (narrow,) for act in ("act1", "act2") for n in ("alpha", "beta")}
            decoder |= _with_bias({
                f"{prefix}.{j}.conv1.conv": (narrow, narrow, 7),
                f"{prefix}.{j}.conv2.conv": (narrow, narrow, 1),
            })  # fmt: skip
    decoder |= {f"decoder.5.{n}": (96,) for n in ("alpha", "beta")}
    return {f"decoder.{n}": s for n, s in decoder.items()} | {f"encoder.{n}": s for n, s in _codec_encoder().items()}


def _codec_encoder() -> dict[str, tuple[int, ...]]:
    convs = {
        0: (64, 1, 7),
        3: (128, 64, 8),
        6: (256, 128, 10),
        9: (512, 256, 12),
        12: (1024, 512, 16),
        14: (512, 1024, 3),
    }
    encoder = _with_bias({f"encoder.layers.{i}.conv": shape for i, shape in convs.items()})
    for i, width in ((1, 64), (4, 128), (7, 256), (10, 512)):
        encoder |= _with_bias({
            f"encoder.layers.{i}.block.1.conv": (width // 2, width, 3),
            f"encoder.layers.{i}.block.3.conv": (width, width // 2, 1),
        })  # fmt: skip
    for i in range(8):
        prefix = f"encoder_transformer.layers.{i}"
        encoder |= _with_bias({f"{prefix}.{n}": (512,) for n in ("input_layernorm", "post_attention_layernorm")})
        encoder |= {f"{prefix}.self_attn.{n}_proj.weight": (512, 512) for n in "qkvo"}
        encoder |= {f"{prefix}.mlp.fc1.weight": (2048, 512), f"{prefix}.mlp.fc2.weight": (512, 2048)}
        encoder |= {f"{prefix}.{n}_layer_scale.scale": (512,) for n in ("self_attn", "mlp")}
    encoder["downsample.conv.weight"] = (512, 512, 4)
    for group, count in (("semantic", 1), ("acoustic", 31)):
        prefix = f"quantizer.{group}_residual_vector_quantizer"
        encoder |= {f"{prefix}.input_proj.weight": (256, 512, 1), f"{prefix}.output_proj.weight": (512, 256, 1)}
        for i in range(count):
            encoder |= {
                f"{prefix}.layers.{i}.codebook.embed_sum": (2048, 256),
                f"{prefix}.layers.{i}.codebook.cluster_usage": (2048,),
                f"{prefix}.layers.{i}.codebook.initialized": (1,),
            }
    return encoder
