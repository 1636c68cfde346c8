"""The codec's encoder: waveform to codes, the encoder half of Mimi (Kyutai) as transformers runs it.

    samples ─ encoder (/4, /5, /6, /8) ─ encoder_transformer ─ downsample (/2) ─ quantizer ─ codes [frames, 16]
              conv, 4 x (residual, ELU,  8 layers of 512,      edge padding      1 semantic, 31 acoustic codebooks,
              strided conv), conv        25 Hz, all of the past                  of which the first 15 are used

Keys: encoder.* of speech_tokenizer/model.safetensors. Source: MimiModel of transformers 4.57.3 as
Qwen3TTSTokenizerV2Encoder uses it.
"""

from functools import partial

import mlx.core as mx
import mlx.nn as nn

from ..config.codec import CodecEncoderConfig
from .layers import CausalConv1d, State, TransformerLayer, run
from .quantizer import VectorQuantization


class ELU(nn.Module):
    """ELU that passes a state along."""

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        return nn.elu(x), state


class ResnetBlock(nn.Module):
    """ELU ─ conv to a narrower width ─ ELU ─ pointwise conv back ─ +. Source: MimiResnetBlock."""

    def __init__(self, config: CodecEncoderConfig, dim: int) -> None:
        super().__init__()
        hidden = dim // config.compress
        self.block = [
            ELU(),
            CausalConv1d(dim, hidden, config.residual_kernel_size),
            ELU(),
            CausalConv1d(hidden, dim, 1),
        ]

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        hidden, state = run(self.block, x, state)
        return x + hidden, state


class ConvEncoder(nn.Module):
    """Samples [batch, samples, 1] to features at 25 Hz, [batch, steps, hidden]. Source: MimiEncoder."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        width = config.num_filters
        self.layers: list[nn.Module] = [CausalConv1d(1, width, config.kernel_size)]
        for ratio in reversed(config.upsampling_ratios):
            self.layers += [
                ResnetBlock(config, width),
                ELU(),
                CausalConv1d(width, 2 * width, 2 * ratio, stride=ratio),
            ]
            width *= 2
        self.layers += [ELU(), CausalConv1d(width, config.hidden_size, config.last_kernel_size)]

    def __call__(self, x: mx.array, state: State = None) -> tuple[mx.array, State]:
        return run(self.layers, x, state)


class MLP(nn.Module):
    """Feed-forward layer with exact GELU. Source: MimiMLP."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.fc2 = nn.Linear(intermediate_size, hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(nn.gelu(self.fc1(x)))


class Transformer(nn.Module):
    """The layers, without a final norm."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=config.norm_eps)
        # config.sliding_window (250) is not applied: the official run masks with plain causality.
        self.layers = [
            TransformerLayer(config, norm, MLP(config.hidden_size, config.intermediate_size), window=None)
            for _ in range(config.num_hidden_layers)
        ]

    def __call__(self, x: mx.array) -> mx.array:
        return run(self.layers, x, None)[0]


class ResidualVectorQuantizer(nn.Module):
    """Nearest codebook vector, then the nearest to what is left, and so on. Source: MimiResidualVectorQuantizer."""

    def __init__(self, config: CodecEncoderConfig, num_quantizers: int) -> None:
        super().__init__()
        width = config.hidden_size
        dim = config.codebook_dim
        self.input_proj = nn.Conv1d(width, dim, 1, bias=False)
        self.output_proj = nn.Conv1d(dim, width, 1, bias=False)
        self.layers = [VectorQuantization(config.codebook_size, dim) for _ in range(num_quantizers)]

    def __call__(self, x: mx.array, num_quantizers: int) -> mx.array:
        """[batch, frames, hidden] -> codes [batch, frames, num_quantizers]."""
        residual = x @ self.input_proj.weight[:, 0, :].T
        codes = []
        for layer in self.layers[:num_quantizers]:
            table = layer.codebook.weight
            # The nearest vector has the least |v|^2 - 2 x.v; |x|^2 is the same for all.
            distance = mx.sum(table * table, axis=-1) - 2 * (residual @ table.T)
            nearest = mx.argmin(distance, axis=-1)
            codes.append(nearest)
            residual = residual - layer.codebook(nearest)
        return mx.stack(codes, axis=-1)


class SplitResidualVectorQuantizer(nn.Module):
    """Both groups quantize the same features: the acoustic one does not start from the semantic one's residual."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        self.semantic_residual_vector_quantizer = ResidualVectorQuantizer(config, 1)
        self.acoustic_residual_vector_quantizer = ResidualVectorQuantizer(config, config.num_quantizers - 1)

    def __call__(self, x: mx.array, num_quantizers: int) -> mx.array:
        semantic = self.semantic_residual_vector_quantizer(x, 1)
        acoustic = self.acoustic_residual_vector_quantizer(x, num_quantizers - 1)
        return mx.concatenate([semantic, acoustic], axis=-1)


class CodecEncoder(nn.Module):
    """Waveform to codes."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        self.encoder = ConvEncoder(config)
        self.encoder_transformer = Transformer(config)
        width = config.hidden_size
        self.downsample = CausalConv1d(width, width, kernel_size=4, stride=2, bias=False, pad_edge=True)
        self.quantizer = SplitResidualVectorQuantizer(config)

    def features(self, samples: mx.array, state: State = None) -> tuple[mx.array, State]:
        """Encode the next block of a signal, float [batch, samples] -> [batch, steps, hidden], and a state.

        The length of all blocks but the last must be a multiple of the product of the strides (960 samples).
        """
        return self.encoder(samples[..., None], state)

    def quantize(self, features: mx.array, num_quantizers: int) -> mx.array:
        """Quantize the features of a whole signal: codes [batch, ceil(samples / 1920), num_quantizers]."""
        return self.quantizer(self.downsample(self.encoder_transformer(features))[0], num_quantizers)
