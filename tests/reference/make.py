"""Make golden data: write the test checkpoints here, run the official package on them in its own environment.

usage: python -m tests.reference.make REFERENCE_PYTHON OUT [--seed N] [--audio DIRECTORY] [--full-size]

Without --seed: the committed data (tests/golden). With one: fresh checkpoints, and the logits of every frame.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from tests.support import checkpoints

ROOT = Path(__file__).parents[2]


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
        else:
            for shape in checkpoints.SHAPES:
                for model_type in ("custom_voice", "voice_design", "base"):
                    checkpoints.write(Path(directory) / f"{shape}-{model_type}", shape, model_type, seed)
            fresh = args.seed is not None
            runs = [
                ("golden", ["--all"] if fresh else []),
                ("golden_clone", ["--audio", args.audio.resolve()] if fresh and args.audio else []),
                ("golden_batch", [] if fresh else ["--alone"]),
                ("golden_training", []),
            ]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        for script, extra in runs:
            command = [
                args.python.absolute(),
                "-m",
                f"tests.reference.{script}",
                directory,
                args.out.resolve(),
                str(seed),
                *extra,
            ]
            subprocess.run(command, check=True, env=environment, cwd=ROOT)


if __name__ == "__main__":
    main()
