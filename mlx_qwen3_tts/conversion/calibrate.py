"""How much each input of each layer counts: the mean square of what goes in while the model speaks some texts.

    texts ─ the source speaks them ─ codes ─ teacher_forcing.score, with every linear layer observed ─ {path: [columns]}

An error in a weight is multiplied by the layer's input, so its square counts as much as the input's does. This loads
the whole model, which conversion otherwise does not.
"""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..checkpoint.load import load_directory
from ..generation.scoring import requests, score, speak
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt

MAX_FRAMES = 250  # 20 s of speech for each text


class Observed(nn.Module):
    """A linear layer that sums the squares of its inputs."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self._sum, self._count = mx.zeros(layer.weight.shape[1]), 0

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        self._sum, self._count = self._sum + mx.square(rows).sum(0), self._count + len(rows)
        mx.eval(self._sum)
        return self.layer(x)

    @property
    def mean_square(self) -> mx.array:
        """float32 [columns]."""
        return self._sum / max(1, self._count)


def mean_squares(
    directory: Path,
    texts: Sequence[str],
    voice: str | VoiceClonePrompt | None = None,
    instruct: str | None = None,
    max_frames: int = MAX_FRAMES,
) -> dict[str, mx.array]:
    """The mean square of the input of each linear layer of a checkpoint, by the layer's path; float32 [columns].

    voice, instruct: as in Qwen3TTS.synthesize. Raises RequestError, and what loading raises.
    """
    tts = Qwen3TTS(str(directory), load_directory(directory, None, fused=False))
    asked = requests(tts, texts, voice, instruct, max_frames)
    spoken = [speak(tts, request).codes for request in asked]
    linear = {path: part for path, part in tts.network.named_modules() if isinstance(part, nn.Linear)}
    observed = {path: Observed(layer) for path, layer in linear.items()}
    tts.network.update_modules(tree_unflatten(list(observed.items())))
    for request, codes in zip(asked, spoken, strict=True):
        if len(codes):
            mx.eval(*score(tts, request, codes))
    return {path: layer.mean_square for path, layer in observed.items()}
