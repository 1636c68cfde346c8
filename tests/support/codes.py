"""The codes of the codec's encoder next to the official ones."""

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts import Qwen3TTS
from tests.support.engine import on_mlx_thread
from tests.support.tolerances import CODE_TIE


def features(tts: Qwen3TTS, audio: np.ndarray) -> mx.array:
    """Return the input of the quantizer [1, frames, hidden]."""
    encoder = tts.codec.network.encoder
    return encoder.downsample(encoder.encoder_transformer(encoder.features(mx.array(audio)[None])[0]))[0]


def compare_codes(tts: Qwen3TTS, audio: np.ndarray, expected: np.ndarray) -> int:
    """Assert that our codes are the official ones except for ties; return how many choices differ.

    Each codebook quantizes the residual of the previous ones, so one tie changes all later codes of its frame. Here the
    residual is computed from the official codes, and each choice is compared separately.
    """
    found = tts.codec.encode(audio, 24000)
    assert found.shape == expected.shape
    assert found.dtype == np.int32
    return on_mlx_thread(tts, differing, tts, audio, expected)


def differing(tts: Qwen3TTS, audio: np.ndarray, expected: np.ndarray) -> int:
    """Return how many choices differ; run it on the MLX thread."""
    quantizer, x = tts.codec.network.encoder.quantizer, features(tts, audio)
    groups = [
        (quantizer.semantic_residual_vector_quantizer, [0]),
        (quantizer.acoustic_residual_vector_quantizer, range(1, 16)),
    ]
    differences = 0
    for group, indices in groups:
        residual = np.array(x[0] @ group.input_proj.weight[:, 0, :].T, np.float64)
        for layer, index in zip(group.layers, indices, strict=False):
            table = np.array(layer.codebook.weight, np.float64)
            distance = np.sqrt(((residual[:, None] - table[None]) ** 2).sum(-1))  # [frames, codes]
            official = distance[np.arange(len(residual)), expected[:, index]]
            assert (official <= distance.min(axis=1) * (1 + CODE_TIE)).all(), index
            differences += int((distance.argmin(axis=1) != expected[:, index]).sum())
            residual = residual - table[expected[:, index]]
    return differences
