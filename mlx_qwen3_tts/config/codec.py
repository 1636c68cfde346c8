"""speech_tokenizer/config.json as dataclasses."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from .schema import MAX_INTEGER, check_attention, require, require_positive

MAX_WINDOW = 1024  # positions, 82 s of audio; the codec's decoder reserves memory for all of them


@dataclass(frozen=True)
class CodecDecoderConfig:
    """`decoder_config` of speech_tokenizer/config.json: codes to waveform."""

    IMPLEMENTED: ClassVar[dict[str, object]] = {
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
        """Audio samples per frame of codes."""
        return prod(self.upsample_rates) * prod(self.upsampling_ratios)

    def __post_init__(self) -> None:
        key = "speech_tokenizer decoder_config"
        require_positive(self, key)
        check_attention(self, key)
        require(self.codebook_dim % 2 == 0, f"{key}.codebook_dim is {self.codebook_dim}; it must be even")
        require(
            self.sliding_window <= MAX_WINDOW,
            f"{key}.sliding_window is {self.sliding_window}; the limit is {MAX_WINDOW}",
        )
        halvings = 2 ** len(self.upsample_rates)
        require(
            self.decoder_dim % halvings == 0,
            f"{key}.decoder_dim is {self.decoder_dim}; it must be divisible by {halvings}",
        )
        require(
            self.num_quantizers >= 2,
            f"{key}.num_quantizers is {self.num_quantizers}; it must be at least 2",
        )


@dataclass(frozen=True)
class CodecEncoderConfig:
    """`encoder_config` of speech_tokenizer/config.json: waveform to codes (a Mimi encoder).

    `sliding_window` is ignored, because the official code attends to all earlier frames (see codec/encoder.py).
    """

    IMPLEMENTED: ClassVar[dict[str, object]] = {
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
        key = "speech_tokenizer encoder_config"
        require_positive(self, key)
        check_attention(self, key)
        require(
            self.codebook_dim == self.vector_quantization_hidden_dimension,
            f"{key}.codebook_dim must equal vector_quantization_hidden_dimension",
        )
        require(
            self.num_filters % self.compress == 0,
            f"{key}.compress is {self.compress}; it must divide num_filters, {self.num_filters}",
        )
        width = self.num_filters * 2 ** len(self.upsampling_ratios)
        require(width <= MAX_INTEGER, f"{key}: num_filters and upsampling_ratios give a width of {width:.0e}")
        ratio = self.sampling_rate / prod(self.upsampling_ratios) / self._frame_rate
        require(ratio == 2, f"{key}: the encoder runs at {ratio:g} times _frame_rate; this port implements only 2")


@dataclass(frozen=True)
class CodecConfig:
    """speech_tokenizer/config.json."""

    IMPLEMENTED: ClassVar[dict[str, object]] = {
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
        key = "speech_tokenizer/config.json"
        decoder = self.decoder_config
        encoder = self.encoder_config
        require(
            decoder.samples_per_frame == self.decode_upsample_rate,
            f"{key}: decode_upsample_rate is {self.decode_upsample_rate}, but the decoder's rates multiply to "
            f"{decoder.samples_per_frame}",
        )
        encoder_rate = 2 * prod(encoder.upsampling_ratios)
        require(
            encoder_rate == self.encode_downsample_rate,
            f"{key}: encode_downsample_rate is {self.encode_downsample_rate}, but the encoder's rates multiply to "
            f"{encoder_rate}",
        )
        require(
            self.encoder_valid_num_quantizers == decoder.num_quantizers <= encoder.num_quantizers,
            f"{key}: encoder_valid_num_quantizers is {self.encoder_valid_num_quantizers}, but the decoder has "
            f"{decoder.num_quantizers} quantizers and the encoder {encoder.num_quantizers}",
        )
        require(
            decoder.codebook_size == encoder.codebook_size,
            f"{key}: codebook_size is {encoder.codebook_size} in the encoder, {decoder.codebook_size} in the decoder",
        )
