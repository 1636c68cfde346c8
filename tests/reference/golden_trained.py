"""Golden data of trained checkpoints: official speech of what this package wrote. Runs in the reference environment.

usage: golden_trained.py CHECKPOINTS OUT SEED

CHECKPOINTS holds <shape>-trained directories, from tests.reference.make. Writes OUT/<shape>-trained.safetensors.

    miniature Base model, changed weights, voices ─ write_checkpoint ─ <shape>-trained ─┬─ official package ─ codes
                                                                                        └─ this package ──── codes

The directory is read as it is: the official package must find its tensors and no others, and the speakers by name.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from qwen_tts import Qwen3TTSModel
from safetensors.numpy import save_file

from tests.reference.golden import CHINESE, TEXT, load, margins, run_rows

FRAMES = 20  # greedy frames of each case
CASES = [
    dict(name="anna", text=TEXT, speaker="Anna", language="English"),
    dict(name="ben", text=TEXT, speaker="ben", language="English"),
    dict(name="anna-chinese", text=CHINESE, speaker="ANNA", language="Chinese"),
    dict(name="ben-auto", text=CHINESE, speaker="Ben", language="Auto"),
]


def record(model: Qwen3TTSModel, out: dict[str, np.ndarray]) -> None:
    """The codes of all cases, in one official call, which takes a quarter of the time."""
    call = {key: [case[key] for case in CASES] for key in ("text", "speaker", "language")}
    codes, recorder = run_rows(model, call, FRAMES)
    end = model.model.config.talker_config.codec_eos_token_id
    for i, case in enumerate(CASES):
        out[f"{case['name']}.codes"] = codes[i].astype(np.int16)
        # The smallest margin of each frame.
        out[f"{case['name']}.margins"] = margins(recorder, codes[i], end, row=i).min(axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("seed", type=int)
    args = parser.parse_args()
    for shape in ("equal", "projected"):
        began = time.process_time()
        model = load(args.checkpoints / f"{shape}-trained")
        out: dict[str, np.ndarray] = {}
        record(model, out)
        asked = {"seed": args.seed, "frames": FRAMES, "cases": CASES, "speakers": model.get_supported_speakers()}
        arrays = {name: np.ascontiguousarray(array) for name, array in out.items()}
        save_file(arrays, args.out / f"{shape}-trained.safetensors", {"asked": json.dumps(asked)})
        print(f"  {shape}, trained: {time.process_time() - began:.1f} s of CPU", file=sys.stderr)


if __name__ == "__main__":
    main()
