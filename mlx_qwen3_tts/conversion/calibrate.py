"""Activation statistics for calibration: the mean squared input of each linear layer.

    texts ─ the source speaks them ─ codes ─ scoring.score, with statistics of every linear layer ─ {path: [columns]}

The layer's input multiplies an error in a weight, so the squared error counts in proportion to the squared input. This
loads the whole model, which conversion otherwise does not.
"""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..capabilities import requests_for
from ..checkpoint.adapter import adapter_path
from ..generation.engine import Engine
from ..generation.scoring import score
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt

MAX_FRAMES = 250  # frames for each text: 20 s of speech


class InputStatistics(nn.Module):
    """A linear layer that adds up the squares of its inputs."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self._sum = mx.zeros(layer.weight.shape[1])
        self._count = 0

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        self._sum = self._sum + mx.square(rows).sum(0)
        self._count += len(rows)
        mx.eval(self._sum)
        return self.layer(x)

    @property
    def mean_square(self) -> mx.array:
        """Mean square of each input, float32 [columns]."""
        return self._sum / max(1, self._count)


def mean_squares(
    directory: Path,
    texts: Sequence[str],
    voice: str | VoiceClonePrompt | None = None,
    instruct: str | None = None,
    max_frames: int = MAX_FRAMES,
    adapter: str | Path | None = None,
) -> dict[str, mx.array]:
    """Return the mean squared input of each linear layer of a checkpoint by the layer's path, float32 [columns].

    voice, instruct: as in Qwen3TTS.synthesize. max_frames: of each text. adapter: as in Qwen3TTS.from_pretrained.
    Raises RequestError, and the errors of Qwen3TTS.from_pretrained.
    """
    engine = Engine.load(directory, fused=False, adapter=adapter_path(adapter))
    tts = Qwen3TTS(str(directory), engine)
    requests = requests_for(tts.config, texts, voice, instruct, max_frames)
    codes = [tts.run(request).codes for request in requests]
    statistics = engine.worker.run(observe, engine.network)
    for request, spoken in zip(requests, codes, strict=True):
        if len(spoken):
            score(engine, request, spoken)
    return engine.worker.run(collect, statistics)


def collect(statistics: dict[str, InputStatistics]) -> dict[str, mx.array]:
    """Return the mean squares, evaluated, so that any thread can use them."""
    squares = {path: layer.mean_square for path, layer in statistics.items()}
    mx.eval(squares)
    return squares


def observe(network: nn.Module) -> dict[str, InputStatistics]:
    """Wrap every linear layer of a network in InputStatistics, in place, and return them by the layer's path."""
    statistics = {path: InputStatistics(part) for path, part in network.named_modules() if isinstance(part, nn.Linear)}
    network.update_modules(tree_unflatten(list(statistics.items())))
    return statistics
