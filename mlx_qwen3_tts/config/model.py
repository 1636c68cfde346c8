"""The configuration files of a checkpoint as dataclasses with the files' own names.

    config.json                      -> ModelConfig (talker_config, code_predictor_config, speaker_encoder_config)
    generation_config.json           -> GenerationConfig
    speech_tokenizer/config.json     -> CodecConfig (decoder_config, encoder_config)

A field that shapes the computation is required. A value that this port does not implement is an error that names
the key (`IMPLEMENTED` lists the one value each such key may have). Keys that mean nothing to inference are ignored:
every version of transformers writes a different set of them.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .schema import check_attention, require, require_positive

# Ids 0 .. vocab_size - 1025 of the talker's vocabulary are codes; the last 1,024 are control ids and speakers, which
# may never be generated (but for the end). The official generate() has this number as a literal.
CONTROL_IDS = 1024


@dataclass(frozen=True)
class CodePredictorConfig:
    """`talker_config.code_predictor_config`: the 5-layer transformer over the residual codebooks of one frame."""

    IMPLEMENTED: ClassVar[dict[str, Any]] = {
        "hidden_act": "silu",
        "attention_bias": False,
        "rope_scaling": None,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
    }

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    num_code_groups: int
    rms_norm_eps: float
    rope_theta: float
    layer_types: tuple[str, ...]

    def __post_init__(self) -> None:
        where = "code_predictor_config"
        require_positive(self, where)
        check_attention(self, where)
        require(
            len(self.layer_types) == self.num_hidden_layers,
            f"{where}.layer_types names {len(self.layer_types)} layers, num_hidden_layers is {self.num_hidden_layers}",
        )
        for kind in self.layer_types:
            require(
                kind == "full_attention",
                f"{where}.layer_types has {kind!r}; this port implements 'full_attention'",
            )


@dataclass(frozen=True)
class TalkerConfig:
    """`talker_config`: the 28-layer transformer that predicts codebook 0, and the ids of its prompt."""

    IMPLEMENTED: ClassVar[dict[str, Any]] = {
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
    }

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    text_vocab_size: int
    text_hidden_size: int
    num_code_groups: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict[str, Any]
    max_position_embeddings: int
    codec_bos_id: int
    codec_eos_token_id: int
    codec_think_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    codec_pad_id: int
    codec_language_id: dict[str, int]
    spk_id: dict[str, int]
    spk_is_dialect: dict[str, bool | str]
    code_predictor_config: CodePredictorConfig

    @property
    def num_codes(self) -> int:
        """How many ids of `vocab_size` are codes of codebook 0."""
        return self.vocab_size - CONTROL_IDS

    def __post_init__(self) -> None:
        where = "talker_config"
        require_positive(self, where)
        check_attention(self, where)
        # The three rows of M-RoPE positions are always equal in this model, so its sections and their interleaving
        # change nothing and plain RoPE computes the same. Any other kind of scaling would change it.
        for key in ("rope_type", "type"):
            kind = self.rope_scaling.get(key, "default")
            require(
                kind == "default",
                f"{where}.rope_scaling.{key} is {kind!r}; this port implements 'default' only",
            )
        predictor = self.code_predictor_config
        require(
            predictor.num_code_groups == self.num_code_groups,
            f"{where}.num_code_groups is {self.num_code_groups}, the code predictor's {predictor.num_code_groups}",
        )
        require(
            predictor.vocab_size == self.num_codes,
            f"{where}.vocab_size {self.vocab_size} leaves {self.num_codes} codes, the code predictor has "
            f"{predictor.vocab_size}",
        )
        ids = {f"codec_language_id.{name}": id_ for name, id_ in self.codec_language_id.items()}
        ids |= {f"spk_id.{name}": id_ for name, id_ in self.spk_id.items()}
        ids |= {f.name: getattr(self, f.name) for f in fields(self) if f.name.startswith("codec_") and f.type is int}
        for name, id_ in ids.items():
            require(id_ < self.vocab_size, f"{where}.{name} is {id_}, outside the vocabulary of {self.vocab_size}")
        for speaker, dialect in self.spk_is_dialect.items():
            known = dialect is False or dialect in self.codec_language_id
            require(known, f"{where}.spk_is_dialect.{speaker} is {dialect!r}, which is no language of this model")
        for speaker in self.spk_id:
            require(speaker in self.spk_is_dialect, f"{where}.spk_is_dialect.{speaker} is missing")


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """`speaker_encoder_config` of the Base models; released files name the first two keys, the rest are defaults."""

    IMPLEMENTED: ClassVar[dict[str, Any]] = {"sample_rate": 24000}

    enc_dim: int
    sample_rate: int
    mel_dim: int = 128
    enc_channels: tuple[int, ...] = (512, 512, 512, 512, 1536)
    enc_kernel_sizes: tuple[int, ...] = (5, 3, 3, 3, 1)
    enc_dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    enc_attention_channels: int = 128
    enc_res2net_scale: int = 8
    enc_se_channels: int = 128

    def __post_init__(self) -> None:
        where = "speaker_encoder_config"
        require_positive(self, where)
        sizes = {len(self.enc_channels), len(self.enc_kernel_sizes), len(self.enc_dilations)}
        require(
            len(sizes) == 1 and len(self.enc_channels) >= 3,
            f"{where}: enc_channels, enc_kernel_sizes and enc_dilations must have one length of at least 3",
        )
        # The aggregation layer reads the concatenated outputs of the blocks between the first and the last.
        require(
            sum(self.enc_channels[1:-1]) == self.enc_channels[-1],
            f"{where}.enc_channels: the last must be the sum of those between the first and the last",
        )
        require(
            all(c % self.enc_res2net_scale == 0 for c in self.enc_channels[1:-1]),
            f"{where}.enc_channels must be divisible by enc_res2net_scale {self.enc_res2net_scale}",
        )


@dataclass(frozen=True)
class ModelConfig:
    """config.json."""

    IMPLEMENTED: ClassVar[dict[str, Any]] = {
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
    }

    tts_model_type: str
    tts_model_size: str
    im_start_token_id: int
    im_end_token_id: int
    assistant_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int
    tts_pad_token_id: int
    talker_config: TalkerConfig
    speaker_encoder_config: SpeakerEncoderConfig | None = None

    def __post_init__(self) -> None:
        kinds = ("custom_voice", "voice_design", "base")
        require(
            self.tts_model_type in kinds,
            f"config.json: tts_model_type is {self.tts_model_type!r}; this port implements {', '.join(kinds)}",
        )
        if self.tts_model_type == "base":
            require(self.speaker_encoder_config is not None, "config.json: speaker_encoder_config is missing")
            require(
                self.speaker_encoder_config.enc_dim == self.talker_config.hidden_size,
                f"config.json: speaker_encoder_config.enc_dim is {self.speaker_encoder_config.enc_dim}, "
                f"the talker's hidden_size {self.talker_config.hidden_size}",
            )
        for field in fields(self):
            if field.type is int:
                id_, size = getattr(self, field.name), self.talker_config.text_vocab_size
                require(id_ < size, f"config.json: {field.name} is {id_}, outside the text vocabulary of {size}")


@dataclass(frozen=True)
class GenerationConfig:
    """generation_config.json; the defaults are the official code's own for a checkpoint without the key."""

    do_sample: bool = True
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    subtalker_dosample: bool = True
    subtalker_temperature: float = 0.9
    subtalker_top_k: int = 50
    subtalker_top_p: float = 1.0
    max_new_tokens: int = 2048

    def __post_init__(self) -> None:
        require(self.max_new_tokens >= 2, f"generation_config.json.max_new_tokens is {self.max_new_tokens}")
