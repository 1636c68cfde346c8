"""Make golden data: write the test checkpoints here, run the official package on them in its own environment.

usage: python -m tests.reference.make REFERENCE_PYTHON OUT [--seed N] [--audio DIRECTORY] [--full-size]

Without --seed: the committed data (tests/golden). With one: fresh checkpoints, and the logits of every frame.
"""

import argparse
import os
import subprocess
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts.checkpoint.load import Checkpoint, load_directory
from mlx_qwen3_tts.checkpoint.weights import named_parameters
from mlx_qwen3_tts.mlx_thread import MLX_THREAD
from mlx_qwen3_tts.training.export import write_checkpoint
from tests.support import checkpoints

ROOT = Path(__file__).parents[2]
PROCESSES = 2  # of the official package at a time; each takes some 2 GB


def noise(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return random numbers in -1 .. 1, the same bits on every platform, other ones than those of the test weights."""
    return 2 * np.random.RandomState(zlib.crc32(f"trained {seed} {name}".encode())).random_sample(shape) - 1


def trained_voices(hidden: int, seed: int) -> dict[str, np.ndarray]:
    """Return the voices of a trained checkpoint, float32 [hidden] by name, as large as other rows of the table."""
    return {name: (1.7 * noise(name, (hidden,), seed)).astype(np.float32) for name in ("Anna", "ben")}


def trained_weight(name: str, weight: np.ndarray, seed: int) -> np.ndarray:
    """Return a weight, float32, times 0.5 .. 1.5. A product, unlike a training, has the same bits on every platform."""
    return (weight * (1 + noise(name, weight.shape, seed) / 2)).astype(np.float32)


def write_trained(directory: Path, base: Path, seed: int) -> Path:
    """Write a Base checkpoint as full training leaves it: every weight is another one, and there are two voices.

    The head's row for the end stays zero.
    """
    loaded = load_directory(base, "float32", fused=False)

    def change(loaded: Checkpoint) -> None:
        weights = named_parameters(loaded.network)
        changed = {name: trained_weight(name, np.array(weight), seed) for name, weight in weights.items()}
        loaded.network.load_weights([(name, mx.array(weight)) for name, weight in changed.items()])

    MLX_THREAD.run(change, loaded)
    voices = trained_voices(loaded.config.talker_config.hidden_size, seed)
    MLX_THREAD.run(write_checkpoint, directory, base, loaded.network, loaded.config, voices)
    return directory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("python", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--audio", type=Path, help="a directory of recordings to clone from as well (with --seed)")
    parser.add_argument("--full-size", action="store_true", help="the encoders at the released sizes, nothing else")
    args = parser.parse_args()
    seed = checkpoints.GOLDEN_SEED if args.seed is None else args.seed
    with tempfile.TemporaryDirectory() as directory:
        if args.full_size:
            for width in (1024, 2048):
                target = Path(directory) / f"{width}-full-size"
                checkpoints.write_checkpoint(target, *checkpoints.full_size_configs(width), seed)
            runs = [("golden_clone", ["--full-size"])]
            threads = {}
        else:
            for shape in checkpoints.SHAPES:
                for model_type in ("custom_voice", "voice_design", "base"):
                    checkpoints.write(Path(directory) / f"{shape}-{model_type}", shape, model_type, seed)
                write_trained(Path(directory) / f"{shape}-trained", Path(directory) / f"{shape}-base", seed)
            fresh = args.seed is not None
            runs = [
                ("golden", ["--all"] if fresh else []),
                ("golden_clone", ["--audio", args.audio.resolve()] if fresh and args.audio else []),
                ("golden_batch", [] if fresh else ["--alone"]),
                ("golden_training", []),
                ("golden_trained", []),
            ]
            threads = {"OMP_NUM_THREADS": "1"}  # more only wait for each other in matrices of this size
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"} | threads

        def run(script: str, extra: list[str | Path]) -> None:
            arguments = [directory, args.out.resolve(), str(seed), *extra]
            command = [args.python.absolute(), "-m", f"tests.reference.{script}", *arguments]
            subprocess.run(command, check=True, env=environment, cwd=ROOT)

        with ThreadPoolExecutor(PROCESSES) as pool:
            for done in [pool.submit(run, *one) for one in runs]:
                done.result()


if __name__ == "__main__":
    main()
