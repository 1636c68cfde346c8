"""The codec's decoder: codes to waveform, 16 codes a frame, exact however the frames are cut into chunks.

    codes ─ quantizer ─ pre_conv ─ pre_transformer ─ upsample (x2, x2) ─ decoder (x8, x5, x4, x3) ─ clamp ─ samples
            [512]       [1024]     8 layers of 512,   transposed conv    conv, 4 blocks of
                                   window of 72       and ConvNeXt       SnakeBeta, transposed conv, 3 residual units

Widths in brackets are the released ones. Keys: decoder.* of speech_tokenizer/model.safetensors.
Source: Qwen3TTSTokenizerV2Decoder. It equals the official `forward` over all frames at once; the official
`chunked_decode` differs from its own forward after 300 frames, because the 25 frames of context that it gives each
chunk are fewer than the transformer sees.
"""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..config.codec import CodecDecoderConfig
from ..models.qwen3 import MLP
from .layers import CausalConv1d, CausalConvTranspose1d, State, TransformerLayer, run
from .quantizer import SplitResidualVectorQuantizer


class PreTransformer(nn.Module):
    """latent_dim ─ input_proj ─ layers ─ norm ─ output_proj ─ latent_dim"""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(config.latent_dim, config.hidden_size)
        norm = partial(nn.RMSNorm, eps=config.rms_norm_eps)
        self.layers = [
            TransformerLayer(config, norm, MLP(config.hidden_size, config.intermediate_size), config.sliding_window)
            for _ in range(config.num_hidden_layers)
        ]
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.output_proj = nn.Linear(config.hidden_size, config.latent_dim)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        x, state = run(self.layers, self.input_proj(x), state)
        return self.output_proj(self.norm(x)), state


class ConvNeXtBlock(nn.Module):
    """depthwise conv ─ LayerNorm ─ x4 ─ GELU ─ back ─ gamma ─ +. Source: Qwen3TTSTokenizerV2ConvNeXtBlock."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = CausalConv1d(dim, dim, kernel_size=7, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = mx.ones(dim)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        hidden, state = self.dwconv(x, state)
        hidden = self.pwconv2(nn.gelu(self.pwconv1(self.norm(hidden))))
        return x + self.gamma * hidden, state


class SnakeBeta(nn.Module):
    """x + sin^2(x exp(alpha)) / exp(beta), per channel (Ziyin et al. 2020, arXiv:2006.08195). It has no state."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = mx.zeros(channels)
        self.beta = mx.zeros(channels)

    def factors(self) -> tuple[mx.array, mx.array]:
        """Return what the sine's argument and its square are multiplied by."""
        return mx.exp(self.alpha), 1 / (mx.exp(self.beta) + 1e-9)

    def fused(self) -> nn.Module:
        """Return the same layer with its exponentials taken."""
        return FusedSnakeBeta(self)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        frequency, strength = self.factors()
        return snake(x, frequency, strength), state


class FusedSnakeBeta(nn.Module):
    """A SnakeBeta whose exponentials are computed once."""

    def __init__(self, layer: SnakeBeta) -> None:
        super().__init__()
        self.frequency, self.strength = layer.factors()

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        return snake(x, self.frequency, self.strength), state


def snake(x: mx.array, frequency: mx.array, strength: mx.array) -> mx.array:
    """Return x + strength * sin^2(frequency * x)."""
    wave = mx.sin(x * frequency)
    return x + wave * wave * strength


class ResidualUnit(nn.Module):
    """SnakeBeta ─ dilated conv ─ SnakeBeta ─ pointwise conv ─ +"""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(dim)
        self.conv1 = CausalConv1d(dim, dim, kernel_size=7, dilation=dilation)
        self.act2 = SnakeBeta(dim)
        self.conv2 = CausalConv1d(dim, dim, kernel_size=1)

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        hidden, state = run([self.act1, self.conv1, self.act2, self.conv2], x, state)
        return x + hidden, state


class DecoderBlock(nn.Module):
    """SnakeBeta ─ upsampling by `rate` ─ residual units of dilation 1, 3, 9"""

    def __init__(self, in_dim: int, out_dim: int, rate: int) -> None:
        super().__init__()
        self.block = [
            SnakeBeta(in_dim),
            CausalConvTranspose1d(in_dim, out_dim, 2 * rate, rate),
            *(ResidualUnit(out_dim, dilation) for dilation in (1, 3, 9)),
        ]

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        return run(self.block, x, state)


class CodecDecoder(nn.Module):
    """Codes to waveform."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        latent = config.latent_dim
        width = config.decoder_dim
        rates = config.upsample_rates
        self.quantizer = SplitResidualVectorQuantizer(config.num_quantizers, config.codebook_size, config.codebook_dim)
        self.pre_conv = CausalConv1d(config.codebook_dim, latent, kernel_size=3)
        self.pre_transformer = PreTransformer(config)
        self.upsample = [
            [CausalConvTranspose1d(latent, latent, factor, factor), ConvNeXtBlock(latent)]
            for factor in config.upsampling_ratios
        ]
        widths = [width // 2**i for i in range(len(rates) + 1)]
        self.decoder = [
            CausalConv1d(latent, width, kernel_size=7),
            *(DecoderBlock(*pair) for pair in zip(widths[:-1], widths[1:], rates, strict=True)),
            SnakeBeta(widths[-1]),
            CausalConv1d(widths[-1], 1, kernel_size=7),
        ]

    def fuse(self) -> None:
        """Replace layers by faster ones with the same results, in place, once the weights are loaded."""
        replaced = {}
        for path, layer in self.named_modules():
            if isinstance(layer, SnakeBeta | CausalConv1d | CausalConvTranspose1d):
                replaced[path] = layer.fused()
        self.update_modules(tree_unflatten(list(replaced.items())))

    def __call__(self, codes: mx.array, state: State = None) -> tuple[mx.array, State]:
        """Decode the next frames of a signal.

        codes: int [batch, frames, num_quantizers], each in 0 .. codebook_size - 1.
        state: what the call for the frames before these returned; None at the start.
        Returns the samples [batch, frames * samples_per_frame] in -1 .. 1, and the state for the next call.
        """
        stages = [
            self.pre_conv,
            self.pre_transformer,
            *(layer for pair in self.upsample for layer in pair),
            *self.decoder,
        ]
        wave, state = run(stages, self.quantizer(codes), state)
        return mx.clip(wave[..., 0], -1, 1), state
