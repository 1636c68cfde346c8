"""speech_tokenizer/config.json as dataclasses."""

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from .schema import LARGEST, check_attention, require, require_positive

LONGEST_WINDOW = 1024  # positions that the codec's decoder may look back, 82 s; its state holds room for all of them


@dataclass(frozen=True)
class CodecDecoderConfig:
    """`decoder_config` of speech_tokenizer/config.json: codes to waveform."""

    IMPLEMENTED: ClassVar[dict[str, Any]] = {
        "hidden_act": "silu",
        "attention_bias": False,
        "num_semantic_quantizers": 1,
    }

    latent_dim: int
    codebook_dim: int
    codebook_size: int
    decoder_dim: int
    hidden_size: int
    intermediate_size: int
    head_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    num_hidden_layers: int
    num_quantizers: int
    rms_norm_eps: float
    rope_theta: float
    sliding_window: int
    upsample_rates: tuple[int, ...]
    upsampling_ratios: tuple[int, ...]

    @property
    def samples_per_frame(self) -> int:
        """Audio samples that one frame of codes becomes."""
        return prod(self.upsample_rates) * prod(self.upsampling_ratios)

    def __post_init__(self) -> None:
        where = "speech_tokenizer decoder_config"
        require_positive(self, where)
        check_attention(self, where)
        require(self.codebook_dim % 2 == 0, f"{where}.codebook_dim is {self.codebook_dim}; it must be even")
        require(
            self.sliding_window <= LONGEST_WINDOW,
            f"{where}.sliding_window is {self.sliding_window}; at most {LONGEST_WINDOW} are possible",
        )
        halvings = 2 ** len(self.upsample_rates)
        require(
            self.decoder_dim % halvings == 0,
            f"{where}.decoder_dim is {self.decoder_dim}, not divisible by {halvings}",
        )
        require(
            self.num_quantizers >= 2,
            f"{where}.num_quantizers is {self.num_quantizers}; at least 2 are needed",
        )


@dataclass(frozen=True)
class CodecEncoderConfig:
    """`encoder_config` of speech_tokenizer/config.json: waveform to codes (a Mimi encoder).

    `sliding_window` is not read: the official run attends to all earlier frames (see codec/encoder.py).
    """

    IMPLEMENTED: ClassVar[dict[str, Any]] = {
        "hidden_act": "gelu",
        "attention_bias": False,
        "audio_channels": 1,
        "num_residual_layers": 1,
        "num_semantic_quantizers": 1,
        "pad_mode": "constant",
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "use_streaming": False,
    }

    hidden_size: int
    intermediate_size: int
    head_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    num_hidden_layers: int
    num_filters: int
    kernel_size: int
    last_kernel_size: int
    residual_kernel_size: int
    compress: int
    dilation_growth_rate: int
    upsampling_ratios: tuple[int, ...]
    num_quantizers: int
    codebook_size: int
    codebook_dim: int
    vector_quantization_hidden_dimension: int
    norm_eps: float
    rope_theta: float
    sampling_rate: int
    _frame_rate: float

    def __post_init__(self) -> None:
        where = "speech_tokenizer encoder_config"
        require_positive(self, where)
        check_attention(self, where)
        require(
            self.codebook_dim == self.vector_quantization_hidden_dimension,
            f"{where}.codebook_dim must equal vector_quantization_hidden_dimension",
        )
        require(
            self.num_filters % self.compress == 0,
            f"{where}.compress is {self.compress}, which does not divide num_filters {self.num_filters}",
        )
        width = self.num_filters * 2 ** len(self.upsampling_ratios)
        require(width <= LARGEST, f"{where}: num_filters and upsampling_ratios make it {width:.0e} wide")
        ratio = self.sampling_rate / prod(self.upsampling_ratios) / self._frame_rate
        require(ratio == 2, f"{where}: the frame rate is {ratio:g} times too high; this port implements 2")


@dataclass(frozen=True)
class CodecConfig:
    """speech_tokenizer/config.json."""

    IMPLEMENTED: ClassVar[dict[str, Any]] = {
        "model_type": "qwen3_tts_tokenizer_12hz",
        "input_sample_rate": 24000,
        "output_sample_rate": 24000,
    }

    input_sample_rate: int
    output_sample_rate: int
    decode_upsample_rate: int
    encode_downsample_rate: int
    encoder_valid_num_quantizers: int
    decoder_config: CodecDecoderConfig
    encoder_config: CodecEncoderConfig

    def __post_init__(self) -> None:
        where = "speech_tokenizer/config.json"
        decoder, encoder = self.decoder_config, self.encoder_config
        require(
            decoder.samples_per_frame == self.decode_upsample_rate,
            f"{where}: decode_upsample_rate is {self.decode_upsample_rate}, but the decoder's rates multiply to "
            f"{decoder.samples_per_frame}",
        )
        require(
            2 * prod(encoder.upsampling_ratios) == self.encode_downsample_rate,
            f"{where}: encode_downsample_rate is {self.encode_downsample_rate}, but the encoder's rates multiply to "
            f"{2 * prod(encoder.upsampling_ratios)}",
        )
        require(
            self.encoder_valid_num_quantizers == decoder.num_quantizers <= encoder.num_quantizers,
            f"{where}: encoder_valid_num_quantizers is {self.encoder_valid_num_quantizers}, the decoder has "
            f"{decoder.num_quantizers} quantizers and the encoder {encoder.num_quantizers}",
        )
        require(
            decoder.codebook_size == encoder.codebook_size,
            f"{where}: encoder and decoder differ in codebook_size",
        )
