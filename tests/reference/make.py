"""Make golden data: write the test checkpoints here, run the official package on them in its own environment.

usage: python tests/reference/make.py REFERENCE_PYTHON OUT [--seed N]

Without --seed: the committed data (tests/golden). With one: fresh checkpoints, and the logits of every frame.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("python", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    seed = checkpoints.GOLDEN_SEED if args.seed is None else args.seed
    with tempfile.TemporaryDirectory() as directory:
        for shape in checkpoints.SHAPES:
            for model_type in ("custom_voice", "voice_design"):
                checkpoints.write(Path(directory) / f"{shape}-{model_type}", shape, model_type, seed)
        command = [args.python, Path(__file__).with_name("golden.py"), directory, args.out, str(seed)]
        if args.seed is not None:
            command.append("--all")
        subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})


if __name__ == "__main__":
    main()
