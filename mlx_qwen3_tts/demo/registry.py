"""The built-in checkpoints, for trying things without a download: one that speaks, and random miniatures.

    "demo"                       demo/data, trained by tools/train_demo.py: it says the time of day and numbers
    "demo-random", "demo-base"   random miniatures, written anew by random_checkpoint.py

All go through the real loader and every stage.
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
    "demo": "the demo knows only times and numbers, in English words; its voices are no measure of Qwen3-TTS's",
    **dict.fromkeys(RANDOM, "this miniature's weights are random: it babbles, and is no measure of Qwen3-TTS's voices"),
}


@contextmanager
def checkpoint(name: str) -> Iterator[Path]:
    """The directory of the built-in checkpoint `name`; a random one is written anew, and lives as long as the block."""
    if name in SPEAKING:
        yield SPEAKING[name]
        return
    with tempfile.TemporaryDirectory(prefix="mlx-qwen3-tts-") as directory:
        try:
            write_checkpoint(Path(directory), RANDOM[name], CODEC, SEED)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"the demo cannot be written to {directory}: {error}") from None
        yield Path(directory)
