"""Mel spectrogram to speaker embedding: the ECAPA-TDNN of the Base models.

    mel [frames, 128] ─ blocks.0: conv ─ blocks.1..3: SE-Res2Net ─ mfa: conv over all three ─ asp: attentive mean and
    standard deviation ─ fc ─ embedding [enc_dim]

Keys: speaker_encoder.*. Source: Qwen3TTSSpeakerEncoder (Desplanques et al. 2020, arXiv:2005.07143).
"""

import mlx.core as mx
import mlx.nn as nn

from ..config.model import SpeakerEncoderConfig

VARIANCE_FLOOR = 1e-12  # the official clamp below the square root of the pooled variance


def _reflect_pad(x: mx.array, pad: int) -> mx.array:
    """Mirror `pad` steps around both ends of [batch, time, channels], without repeating the ends."""
    if pad == 0:
        return x
    time = x.shape[1]
    index = [abs(i) for i in range(-pad, time)] + [time - 2 - i for i in range(pad)]
    return mx.take(x, mx.array(index), axis=1)


class TimeDelayNetBlock(nn.Module):
    """conv ("same" length, reflect padding) ─ ReLU"""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, dilation=dilation)
        self.pad = (kernel_size - 1) * dilation // 2

    def __call__(self, x: mx.array) -> mx.array:
        return nn.relu(self.conv(_reflect_pad(x, self.pad)))


class Res2NetBlock(nn.Module):
    """The channels in `scale` parts; each part but the first is convolved after the previous result is added."""

    def __init__(self, channels: int, scale: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        width = channels // scale
        self.blocks = [TimeDelayNetBlock(width, width, kernel_size, dilation) for _ in range(scale - 1)]

    def __call__(self, x: mx.array) -> mx.array:
        first, *rest = mx.split(x, len(self.blocks) + 1, axis=-1)
        outputs = [first]
        for i, (block, part) in enumerate(zip(self.blocks, rest, strict=True)):
            if i:
                part = part + outputs[-1]
            outputs.append(block(part))
        return mx.concatenate(outputs, axis=-1)


class SqueezeExcitationBlock(nn.Module):
    """Channels weighted by a gate computed from their mean over time."""

    def __init__(self, channels: int, se_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, se_channels, 1)
        self.conv2 = nn.Conv1d(se_channels, channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        mean = mx.mean(x, axis=1, keepdims=True)
        return x * mx.sigmoid(self.conv2(nn.relu(self.conv1(mean))))


class SqueezeExcitationRes2NetBlock(nn.Module):
    """TDNN ─ Res2Net ─ TDNN ─ squeeze-excitation ─ +"""

    def __init__(
        self, config: SpeakerEncoderConfig, in_channels: int, channels: int, kernel: int, dilation: int
    ) -> None:
        super().__init__()
        self.tdnn1 = TimeDelayNetBlock(in_channels, channels, 1, 1)
        self.res2net_block = Res2NetBlock(channels, config.enc_res2net_scale, kernel, dilation)
        self.tdnn2 = TimeDelayNetBlock(channels, channels, 1, 1)
        self.se_block = SqueezeExcitationBlock(channels, config.enc_se_channels)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))))


class AttentiveStatisticsPooling(nn.Module):
    """Mean and standard deviation over time, weighted by an attention that sees the unweighted ones."""

    def __init__(self, channels: int, attention_channels: int) -> None:
        super().__init__()
        self.tdnn = TimeDelayNetBlock(3 * channels, attention_channels, 1, 1)
        self.conv = nn.Conv1d(attention_channels, channels, 1)

    def _statistics(self, x: mx.array, weight: mx.array | float) -> tuple[mx.array, mx.array]:
        mean = mx.sum(weight * x, axis=1, keepdims=True)
        variance = mx.sum(weight * mx.square(x - mean), axis=1, keepdims=True)
        return mean, mx.sqrt(mx.maximum(variance, VARIANCE_FLOOR))

    def __call__(self, x: mx.array) -> mx.array:
        """[batch, time, channels] -> [batch, 1, 2 * channels]."""
        context = [mx.broadcast_to(part, x.shape) for part in self._statistics(x, 1 / x.shape[1])]
        attention = self.conv(mx.tanh(self.tdnn(mx.concatenate([x, *context], axis=-1))))
        return mx.concatenate([*self._statistics(x, mx.softmax(attention, axis=1))], axis=-1)


class SpeakerEncoder(nn.Module):
    """Mel spectrogram to speaker embedding."""

    def __init__(self, config: SpeakerEncoderConfig) -> None:
        super().__init__()
        channels = config.enc_channels
        kernels = config.enc_kernel_sizes
        dilations = config.enc_dilations
        self.mel_dim = config.mel_dim
        self.blocks: list[nn.Module] = [TimeDelayNetBlock(config.mel_dim, channels[0], kernels[0], dilations[0])]
        for i in range(1, len(channels) - 1):
            self.blocks.append(
                SqueezeExcitationRes2NetBlock(config, channels[i - 1], channels[i], kernels[i], dilations[i])
            )
        self.mfa = TimeDelayNetBlock(channels[-1], channels[-1], kernels[-1], dilations[-1])
        self.asp = AttentiveStatisticsPooling(channels[-1], config.enc_attention_channels)
        self.fc = nn.Conv1d(2 * channels[-1], config.enc_dim, 1)

    def __call__(self, mel: mx.array) -> mx.array:
        """Log-mel [batch, frames, mel_dim] -> [batch, enc_dim]."""
        x = mel
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = self.mfa(mx.concatenate(outputs[1:], axis=-1))
        return self.fc(self.asp(x))[:, 0]
