"""The demo's codec: 16 codes for each of a few hundred distinct frames, and the decoder that turns them into sound.

    frames ─ log spectra ─ PCA ─ residual k-means ─ codes [16] and codebooks ─┐
    random sentences ─ their codes and their waveform ────────────────────────┴─ gradient descent on the decoder

The codebooks start as the k-means centroids and are trained with the decoder. The last ones have no residual left to
describe; the very last one has another purpose (demo_talker.py). The codec's encoder is not trained, because it never
encodes a frame.
"""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from demo_speech import FRAME, RATE, VOICES, Key, Utterance
from mlx_qwen3_tts.codec.decoder import CodecDecoder, ConvNeXtBlock, ResidualUnit, SnakeBeta
from mlx_qwen3_tts.codec.layers import run
from mlx_qwen3_tts.config.codec import CodecDecoderConfig
from mlx_qwen3_tts.training.descent import Descent, DescentOptions, Step

WINDOWS = (256, 512, 1024, 2048)  # of the spectral loss, in samples
FAINT = 1e-6  # power below which sound is inaudible
DWELL = 100  # steps between updates of which clips are hard
SHAPES = ((4, 16), (2, 32), (1, 64))  # sentences at a time, and frames of each

Clips = dict[tuple[str, Key], np.ndarray]


def features(frames: np.ndarray, width: int) -> np.ndarray:
    """[frames, 1920] -> float [frames, width]: the log power of 32 bands in 4 quarters of a frame, reduced by PCA."""
    quarters = frames.reshape(len(frames), 4, FRAME // 4) * np.hanning(FRAME // 4)
    power = np.abs(np.fft.rfft(quarters, 512)) ** 2
    edges = np.unique(np.geomspace(3, 180, 33).astype(int))
    bands = np.stack([power[..., a:b].mean(-1) for a, b in pairwise(edges)], -1)
    logs = np.log(bands + 1e-3).reshape(len(frames), -1)
    logs -= logs.mean(0)
    _, scale, axes = np.linalg.svd(logs, full_matrices=False)
    reduced = logs @ axes[:width].T / (scale[0] / len(frames) ** 0.5)
    return np.pad(reduced, ((0, 0), (0, width - reduced.shape[1])))


def k_means(
    points: np.ndarray, count: int, rng: np.random.RandomState, rounds: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids [count, width], and the nearest one of each point."""
    centroids = points[rng.permutation(len(points))[:1]]
    while len(centroids) < count:  # the next one is the point farthest from all so far
        distance = ((points[:, None] - centroids[None]) ** 2).sum(-1).min(1)
        centroids = np.concatenate([centroids, points[distance.argmax()][None]])
    for _ in range(rounds):
        nearest = ((points[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
        for i in np.unique(nearest):
            centroids[i] = points[nearest == i].mean(0)
    return centroids, ((points[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)


def quantize(points: np.ndarray, books: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Residual k-means: codes [points, books] and codebooks [books, size, width]."""
    rng, residual, codes, tables = np.random.RandomState(seed), points.copy(), [], []
    for _ in range(books):
        if np.abs(residual).max() < 1e-6:  # no residual is left: the remaining codes are 0 and add nothing
            codes.append(np.zeros(len(points), int))
            tables.append(np.zeros((size, points.shape[1])))
            continue
        table, nearest = k_means(residual, size, rng)
        residual = residual - table[nearest]
        codes.append(nearest)
        tables.append(table)
    return np.stack(codes, 1), np.stack(tables)


def encode(clips: Clips, config: CodecDecoderConfig, seed: int) -> tuple[dict[tuple[str, Key], np.ndarray], np.ndarray]:
    """Return the codes of each clip, int32 [frames, 16], and the codebooks [16, size, width / 2]."""
    points = features(np.concatenate(list(clips.values())), config.codebook_dim // 2)
    codes, tables = quantize(points, config.num_quantizers, config.codebook_size, seed)
    cuts = np.cumsum([len(clip) for clip in clips.values()])[:-1]
    return dict(zip(clips, np.split(codes.astype(np.int32), cuts), strict=True)), tables


def begin(decoder: CodecDecoder, tables: np.ndarray) -> None:
    """Set the codebooks, and near-linear initial values that keep the signal's scale."""
    first, rest = decoder.quantizer.rvq_first, decoder.quantizer.rvq_rest
    for layer, table in zip([*first.vq.layers, *rest.vq.layers], tables, strict=True):
        layer.codebook.weight = mx.array(table.astype(np.float32))
    for _, part in decoder.named_modules():
        if isinstance(part, SnakeBeta):
            part.beta = part.beta + 4.0
        elif isinstance(part, ResidualUnit):
            part.conv2.conv.weight = part.conv2.conv.weight * 0.05
        elif isinstance(part, ConvNeXtBlock):
            part.gamma = part.gamma * 0.3
        elif isinstance(part, nn.ConvTranspose1d):
            _, kernel, width = part.weight.shape
            taps = 1 if kernel == 2 else 2  # taps that contribute to one output sample
            part.weight = mx.random.normal(part.weight.shape) * (taps * width) ** -0.5


def spectra(n: int) -> Callable[[mx.array], mx.array]:
    """Samples [batch, time] -> magnitudes [batch, frames, n / 2 + 1] of a Hann window of n, every n / 4 samples."""
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n // 2 + 1)) / n
    basis = np.hanning(n + 1)[:n, None] * np.concatenate([np.cos(angle), np.sin(angle)], 1) / n**0.5
    basis = mx.array(basis.astype(np.float32))

    def transform(wave: mx.array) -> mx.array:
        hops = wave[:, : wave.shape[1] // (n // 4) * (n // 4)].reshape(len(wave), -1, n // 4)
        windows = mx.concatenate([hops[:, i : hops.shape[1] - 3 + i] for i in range(4)], axis=-1)
        real, imaginary = mx.split(windows @ basis, 2, axis=-1)
        return mx.sqrt(real * real + imaginary * imaginary + 1e-7)

    return transform


def bands(n: int, count: int = 40) -> mx.array:
    """Means over bands that widen with frequency, up to 8 kHz: [n / 2 + 1, count]."""
    edges = 700 * (10 ** (np.linspace(60, 2840, count + 2) / 2595) - 1) * n / RATE  # mel scale, in bins
    bins = np.arange(n // 2 + 1)[:, None]
    rising, falling = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    return mx.array((weights / np.maximum(weights.sum(0), 1e-9)).astype(np.float32))


def band_distance(n: int = 512) -> Callable[[mx.array, mx.array], float]:
    """Return how different two waveforms [batch, time] sound: the mean difference of their bands' log power."""
    transform, mean = spectra(n), bands(n)

    def distance(wave: mx.array, target: mx.array) -> float:
        made, wanted = (mx.log(mx.square(transform(one)) @ mean + FAINT) for one in (wave, target))
        return mx.abs(made - wanted).mean().item()

    return distance


def make_loss() -> Callable[[mx.array, mx.array], mx.array]:
    """Return a loss between two waveforms [batch, time]: samples, linear and logarithmic magnitudes, and loudness.

    Loudness is what a recognizer hears: it gives the faint noise of an f or an s the same weight as a vowel.
    """
    transforms = [spectra(n) for n in WINDOWS]
    means = [bands(n) if n >= 512 else None for n in WINDOWS]

    def loss(wave: mx.array, target: mx.array) -> mx.array:
        total = 10 * mx.abs(wave - target).mean()
        for transform, mean in zip(transforms, means, strict=True):
            made, wanted = transform(wave), transform(target)
            total = total + mx.abs(made - wanted).mean() * 3
            total = total + 0.3 * mx.abs(mx.log(made + 3e-3) - mx.log(wanted + 3e-3)).mean()
            if mean is not None:
                loudness = [mx.log(mx.square(one) @ mean + FAINT) for one in (made, wanted)]
                total = total + 0.5 * mx.abs(loudness[0] - loudness[1]).mean()
        return total

    return loss


def upsampler(decoder: CodecDecoder, block: int) -> nn.ConvTranspose1d:
    """The upsampling layer of one of the vocoder's four blocks."""
    return decoder.decoder[block].block[1].conv


def set_taps(layer: nn.ConvTranspose1d, taps: np.ndarray) -> None:
    """Make `layer` map its inputs to `taps` [in, steps, out], with zeros beyond `steps`; other outputs are kept."""
    weight = np.array(layer.weight)  # [out, kernel, in]
    inputs, _, outputs = taps.shape
    weight[:outputs] = 0
    weight[:outputs, : taps.shape[1], :inputs] = taps.transpose(2, 1, 0)
    layer.weight = mx.array(weight)


def begin_vocoder(decoder: CodecDecoder, frames: np.ndarray) -> np.ndarray:
    """Make the vocoder, without its nonlinearities, the best linear map from its latents: two nested PCAs.

    frames: [frames, 1920]. Returns the latents of each, float32 [frames, 4 * width].

        latents 50 Hz ─ PCA ─ 400 Hz ─ PCA ─ 2 kHz: 12 samples side by side ─ 8 kHz: 3 of them ─ 24 kHz
    """
    loudness = frames.std()
    samples = frames / loudness
    wide, narrow = (upsampler(decoder, block).weight.shape[2] for block in (1, 2))
    _, _, basis = np.linalg.svd(samples.reshape(-1, 60), full_matrices=False)
    inner = samples.reshape(-1, 60) @ basis[:narrow].T
    size = inner.std()
    set_taps(upsampler(decoder, 2), (basis[:narrow] * size).reshape(narrow, 5, 12))
    blocks = (inner / size).reshape(-1, 8 * narrow)
    _, scale, outer = np.linalg.svd(blocks, full_matrices=False)
    deviation = scale[:wide, None] / len(blocks) ** 0.5
    weight = (deviation / deviation.mean()) ** 0.5  # louder components get larger weights, but less than proportionally
    latents = blocks @ outer[:wide].T
    level = (latents / weight.T).std()
    set_taps(upsampler(decoder, 1), (outer[:wide] * weight * level).reshape(wide, 8, narrow))
    set_taps(upsampler(decoder, 3), np.eye(12).reshape(12, 4, 3))
    set_taps(upsampler(decoder, 4), np.eye(3).reshape(3, 3, 1))
    last = decoder.decoder[-1].conv
    weight_out = np.zeros(last.weight.shape, np.float32)
    weight_out[0, -1, 0] = loudness
    last.weight = mx.array(weight_out)
    return (latents / weight.T / level).reshape(len(frames), -1).astype(np.float32)


class Sentences:
    """Codes and samples of random sentences, and of clips in random order, because some words are rare in sentences."""

    def __init__(self, sentence: Callable[[random.Random], Utterance], clips: Clips, codes: Clips, seed: int) -> None:
        self._sentence, self.clips, self.codes, self._rng = sentence, clips, codes, random.Random(seed)
        self._hardness = dict.fromkeys(clips, 1.0)

    def batch(self, count: int, length: int, wanted: Clips) -> tuple[mx.array, mx.array]:
        """Return `count` pieces of `length` frames: codes [count, length, 16] and their targets from `wanted`."""
        all_codes, targets = [], []
        while len(targets) < count:
            voice, keys = self._rng.choice(VOICES), []
            while sum(len(self.codes[voice, key]) for key in keys) < length:
                keys += self._sentence(self._rng).keys if self._rng.random() < 0.3 else self._any_clips(voice)
            all_codes.append(np.concatenate([self.codes[voice, key] for key in keys])[:length])
            targets.append(np.concatenate([wanted[voice, key] for key in keys])[:length])
        return mx.array(np.stack(all_codes)), mx.array(np.stack(targets))

    def _any_clips(self, voice: str) -> list[Key]:
        keys = [key for speaker, key in self.clips if speaker == voice]
        return self._rng.choices(keys, [self._hardness[voice, key] for key in keys], k=10)

    def dwell(self, distance: Callable[[np.ndarray, np.ndarray], float]) -> None:
        """Draw clips more often if their codes still sound different. distance: a function of codes and samples."""
        self._hardness = {key: distance(self.codes[key], clip) ** 2 for key, clip in self.clips.items()}


def front(decoder: CodecDecoder, codes: mx.array) -> mx.array:
    """Map codes [batch, frames, 16] to the input of the vocoder's blocks."""
    stages = [decoder.pre_conv, decoder.pre_transformer, *(layer for pair in decoder.upsample for layer in pair)]
    return run([*stages, decoder.decoder[0]], decoder.quantizer(codes), None)[0]


def descend(
    decoder: CodecDecoder,
    loss: Callable[..., tuple[mx.array]],
    next_batch: Callable[[int], tuple[mx.array, mx.array]],
    steps: int,
    peak: float,
) -> Iterator[Step]:
    """Train the decoder on a batch a step; yields after each."""
    options = DescentOptions(
        steps=steps,
        learning_rate=peak,
        warm_up=max(1, min(30, steps // 10)),
        betas=(0.9, 0.99),
        weight_decay=1e-3,
        clip=2.0,
    )
    return Descent(decoder, loss, ("loss",), options).run(lambda step: [next_batch(step)])


def train_front(decoder: CodecDecoder, sentences: Sentences, steps: int) -> Iterator[Step]:
    """Train the map from codes to the latents of a linear vocoder; yields after each step.

    It is cheap, and leaves to `train_whole` only what a linear map cannot do.
    """
    latents = begin_vocoder(decoder, np.concatenate(list(sentences.clips.values())))
    cuts = np.cumsum([len(clip) for clip in sentences.clips.values()])[:-1]
    wanted = dict(zip(sentences.clips, np.split(latents, cuts), strict=True))

    def distance(codes: mx.array, target: mx.array) -> tuple[mx.array]:
        return (mx.square(front(decoder, codes).reshape(target.shape) - target).mean(),)

    return descend(decoder, distance, lambda _: sentences.batch(8, 32, wanted), steps, 3e-3)


def train_whole(decoder: CodecDecoder, sentences: Sentences, steps: int) -> Iterator[Step]:
    """Train the whole decoder on the waveform; yields after each step."""
    spectral = make_loss()
    heard = band_distance()

    def difference(codes: mx.array, target: mx.array) -> tuple[mx.array]:
        return (spectral(decoder(codes)[0], target.reshape(len(target), -1)),)

    def next_batch(step: int) -> tuple[mx.array, mx.array]:
        if step >= steps // 3 and step % DWELL == 0:
            sentences.dwell(lambda codes, clip: heard(decoder(mx.array(codes)[None])[0], mx.array(clip.reshape(1, -1))))
        return sentences.batch(*SHAPES[step % len(SHAPES)], sentences.clips)

    return descend(decoder, difference, next_batch, steps, 1e-3)
