"""Miniature trainings: a Base model that can end, and sequences of random codes.

python -m tests.support.training DIRECTORY    trains a few steps and prints the losses; for mlx.launch
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors.numpy import load_file, save_file

from mlx_qwen3_tts.generation.engine import Engine
from mlx_qwen3_tts.training.loss import TrainingSequence, make_sequence
from mlx_qwen3_tts.training.trainer import Trainer, TrainingOptions
from tests.support import checkpoints

TEXTS = ("Hello world", "a voice", "speech of the world", "this is it")


def write_base(directory: Path, shape: str = "projected") -> Path:
    """Write a Base checkpoint whose head has a row for the end, which is zero in other miniatures."""
    checkpoints.write(directory, shape, "base")
    path = directory / "model.safetensors"
    weights = load_file(path)
    head = weights["talker.codec_head.weight"]
    end = checkpoints.configs(shape, "base")[0]["talker_config"]["codec_eos_token_id"]
    head[end] = np.random.RandomState(1).permutation(head[0])
    save_file(weights, path, {"format": "pt"})
    return directory


def load(directory: Path) -> Engine:
    """Load a checkpoint for training."""
    return Engine.load(directory, "float32", fused=False)


def voice_of(engine: Engine) -> np.ndarray:
    """Return a speaker embedding."""
    return 0.1 * np.random.RandomState(3).randn(engine.config.talker_config.hidden_size).astype(np.float32)


def sequences(engine: Engine, count: int = 4) -> list[TrainingSequence]:
    """Return sequences of random codes, 5 to 8 frames each."""
    rng = np.random.RandomState(0)
    voice = voice_of(engine)
    return [
        make_sequence(engine.prompts, TEXTS[i % len(TEXTS)], rng.randint(0, 256, (rng.randint(5, 9), 16)), voice)
        for i in range(count)
    ]


def loss_curve(directory: Path, options: TrainingOptions, count: int = 9) -> list[float]:
    """Return the loss of each step. 9 sequences, 4 in a step: in the last one, one of two processes has none."""
    engine = load(directory)
    trainer = Trainer(engine, sequences(engine, count), [], options)
    return [progress.talker_loss + progress.predictor_loss for progress in trainer.run()]


def main() -> None:
    mx.set_default_device(mx.cpu)
    options = TrainingOptions(epochs=1, batch_size=1, accumulate=2, learning_rate=1e-3)
    curve = loss_curve(Path(sys.argv[1]), options)
    if mx.distributed.init().rank() == 0:
        print(json.dumps(curve))


if __name__ == "__main__":
    main()
