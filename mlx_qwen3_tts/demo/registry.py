"""The built-in checkpoints, for use without a download: one that speaks, and random miniatures.

    "demo"                       demo/data, trained by tools/train_demo.py: says the time of day and numbers
    "demo-random", "demo-base"   random miniatures, written by random_checkpoint.py when they are loaded

All of them go through the real loader and every stage.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..errors import CheckpointError
from .random_checkpoint import BASE, CODEC, MODEL, write_checkpoint

SEED = 20260205
RANDOM = {"demo-random": MODEL, "demo-base": BASE}
SPEAKING = {"demo": Path(__file__).parent / "data"}
NAMES = (*SPEAKING, *RANDOM)
NOTES = {
    "demo": "the demo knows only times and numbers in English; its voices do not show the quality of Qwen3-TTS",
    **dict.fromkeys(
        RANDOM, "this miniature has random weights: it babbles, and does not show the quality of Qwen3-TTS"
    ),
}


@contextmanager
def checkpoint(name: str) -> Iterator[Path]:
    """Yield the directory of a built-in checkpoint; that of a random one exists only inside the block.

    Raises CheckpointError if a random one cannot be written.
    """
    if name in SPEAKING:
        yield SPEAKING[name]
        return
    with tempfile.TemporaryDirectory(prefix="mlx-qwen3-tts-") as directory:
        try:
            write_checkpoint(Path(directory), RANDOM[name], CODEC, SEED)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot write {name} to {directory}: {error}") from None
        yield Path(directory)
