"""The configuration files of a checkpoint as dataclasses with the files' own names.

    config.json                      -> ModelConfig (talker_config, code_predictor_config, speaker_encoder_config)
    generation_config.json           -> GenerationConfig
    speech_tokenizer/config.json     -> CodecConfig (decoder_config, encoder_config)

Every field that shapes the computation is required. A value that this port does not implement raises an error naming
the key; `IMPLEMENTED` lists the only value of each such key. Keys without meaning for inference are ignored, because
every version of transformers writes a different set of them.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ..errors import CheckpointError
from .schema import check_attention, require, require_positive

# The last 1,024 ids of the talker's vocabulary are control ids and speakers. Except EOS they may never be generated.
# The official generate() has this number as a literal.
CONTROL_IDS = 1024
MODEL_TYPES = ("custom_voice", "voice_design", "base")


@dataclass(frozen=True)
class CodePredictorConfig:
    """`talker_config.code_predictor_config`: the 5-layer transformer over the residual codebooks of one frame."""

    IMPLEMENTED: ClassVar[dict[str, object]] = {
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
        key = "code_predictor_config"
        require_positive(self, key)
        check_attention(self, key)
        require(
            len(self.layer_types) == self.num_hidden_layers,
            f"{key}.layer_types has {len(self.layer_types)} entries, but num_hidden_layers is {self.num_hidden_layers}",
        )
        for kind in self.layer_types:
            require(
                kind == "full_attention",
                f"{key}.layer_types has {kind!r}; this port implements only 'full_attention'",
            )


@dataclass(frozen=True)
class TalkerConfig:
    """`talker_config`: the 28-layer transformer that predicts codebook 0, and the ids of its prompt."""

    IMPLEMENTED: ClassVar[dict[str, object]] = {
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
        """Number of ids that are codes of codebook 0; they come first in the vocabulary."""
        return self.vocab_size - CONTROL_IDS

    def __post_init__(self) -> None:
        key = "talker_config"
        require_positive(self, key)
        check_attention(self, key)
        # The three rows of M-RoPE positions are always equal in this model, so the sections and their interleaving have
        # no effect, and plain RoPE computes the same. Any other kind of scaling would differ.
        for name in ("rope_type", "type"):
            kind = self.rope_scaling.get(name, "default")
            require(
                kind == "default",
                f"{key}.rope_scaling.{name} is {kind!r}; this port implements only 'default'",
            )
        predictor = self.code_predictor_config
        require(
            predictor.num_code_groups == self.num_code_groups,
            f"{key}.num_code_groups is {self.num_code_groups}, but the code predictor's is {predictor.num_code_groups}",
        )
        require(
            predictor.vocab_size == self.num_codes,
            f"{key}.vocab_size {self.vocab_size} leaves {self.num_codes} codes, but the code predictor has "
            f"{predictor.vocab_size}",
        )
        self._check_ids(key)
        for speaker in self.spk_id:
            require(speaker in self.spk_is_dialect, f"{key}.spk_is_dialect.{speaker} is missing")
        for speaker, dialect in self.spk_is_dialect.items():
            known = dialect is False or dialect in self.codec_language_id
            require(known, f"{key}.spk_is_dialect.{speaker} is {dialect!r}, which is not a language of this model")

    def _check_ids(self, key: str) -> None:
        ids = {f"codec_language_id.{name}": id_ for name, id_ in self.codec_language_id.items()}
        ids |= {f"spk_id.{name}": id_ for name, id_ in self.spk_id.items()}
        ids |= {f.name: getattr(self, f.name) for f in fields(self) if f.name.startswith("codec_") and f.type is int}
        for name, id_ in ids.items():
            require(id_ < self.vocab_size, f"{key}.{name} is {id_}, outside the vocabulary of {self.vocab_size}")


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """`speaker_encoder_config` of the Base models. Released files have only the keys without a default."""

    IMPLEMENTED: ClassVar[dict[str, object]] = {"sample_rate": 24000}

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
        key = "speaker_encoder_config"
        require_positive(self, key)
        sizes = {len(self.enc_channels), len(self.enc_kernel_sizes), len(self.enc_dilations)}
        require(
            len(sizes) == 1 and len(self.enc_channels) >= 3,
            f"{key}: enc_channels, enc_kernel_sizes and enc_dilations must have the same length, at least 3",
        )
        # The aggregation layer reads the concatenated outputs of the blocks between the first and the last.
        require(
            sum(self.enc_channels[1:-1]) == self.enc_channels[-1],
            f"{key}.enc_channels: the last value must be the sum of the values between the first and the last",
        )
        require(
            all(channels % self.enc_res2net_scale == 0 for channels in self.enc_channels[1:-1]),
            f"{key}.enc_channels must be divisible by enc_res2net_scale {self.enc_res2net_scale}",
        )


@dataclass(frozen=True)
class ModelConfig:
    """config.json."""

    IMPLEMENTED: ClassVar[dict[str, object]] = {
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
        require(
            self.tts_model_type in MODEL_TYPES,
            f"config.json: tts_model_type is {self.tts_model_type!r}; this port implements {', '.join(MODEL_TYPES)}",
        )
        if self.tts_model_type == "base":
            self._check_speaker_encoder()
        vocab_size = self.talker_config.text_vocab_size
        for field in fields(self):
            if field.type is int:
                id_ = getattr(self, field.name)
                require(
                    id_ < vocab_size,
                    f"config.json: {field.name} is {id_}, outside the text vocabulary of {vocab_size}",
                )

    def _check_speaker_encoder(self) -> None:
        encoder = self.speaker_encoder_config
        if encoder is None:
            raise CheckpointError("config.json: speaker_encoder_config is missing")
        hidden_size = self.talker_config.hidden_size
        require(
            encoder.enc_dim == hidden_size,
            f"config.json: speaker_encoder_config.enc_dim is {encoder.enc_dim}, but the talker's hidden_size is "
            f"{hidden_size}",
        )


@dataclass(frozen=True)
class GenerationConfig:
    """generation_config.json. The defaults are those of the official code for missing keys."""

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
        require(
            self.max_new_tokens >= 2,
            f"generation_config.json.max_new_tokens is {self.max_new_tokens}; it must be at least 2",
        )
