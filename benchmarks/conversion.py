"""Measure time and memory of a conversion at released sizes, compared with a plain copy of the files.

usage: python -m benchmarks.conversion DIRECTORY [--model NAME] [--scales search|plain] [--recipe NAME ...]

Writes random bfloat16 weights of a released model's shapes (0.6B: 1.8 GB, and 0.7 GB of codec) to DIRECTORY, converts
them with each recipe ("bfloat16" means unquantized), each in a new process, and prints one line of JSON at the end:
seconds, the process's peak memory, and the seconds of `cp` and `sync` of the source.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts.checkpoint.shards import ShardWriter, Tensor
from mlx_qwen3_tts.demo.random_checkpoint import CODEC, MODEL, write_checkpoint
from tests.support import released

ROOT = Path(__file__).parents[1]

CONVERT = """
import json, resource, sys, time
from pathlib import Path
from mlx_qwen3_tts.conversion.convert import convert
start = time.perf_counter()
convert(sys.argv[1], sys.argv[2], force=True, **json.loads(sys.argv[3]))
seconds, status = time.perf_counter() - start, Path("/proc/self/status")
if status.exists():  # Linux hands the parent's ru_maxrss on to a child
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([seconds, peak]))
"""


def write_source(directory: Path, name: str) -> None:
    """Write a checkpoint with a released model's shapes and normal random weights at its initializer's scale."""
    write_checkpoint(directory, MODEL, CODEC, 1)  # for the small files
    config = json.loads((directory / "config.json").read_text())
    ids = {key: value for key, value in config.items() if key.endswith("_token_id")}
    (directory / "config.json").write_text(json.dumps(released.config(name) | ids))
    (directory / "speech_tokenizer" / "config.json").write_text(json.dumps(released.CODEC))
    random = np.random.default_rng(0)
    for place, shapes, kind, dtype in (
        (directory, released.tensors(name), "BF16", mx.bfloat16),
        (directory / "speech_tokenizer", released.codec_tensors(), "F32", mx.float32),
    ):
        (place / "model.safetensors").unlink()
        with ShardWriter(place, {n: Tensor(s, kind) for n, s in shapes.items()}, 10**12, "pt") as writer:
            for tensor, shape in shapes.items():
                values = 0.02 * random.standard_normal(shape, np.float32)
                writer.write(tensor, mx.array(values).astype(dtype))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", default="0.6B-CustomVoice", choices=released.MODELS)
    parser.add_argument("--scales", default="search")
    parser.add_argument("--recipe", nargs="*", default=["bfloat16", "8bit", "mixed-4"])
    args = parser.parse_args()
    source, out = args.directory / args.model, args.directory / "out"
    if not source.exists():
        write_source(source, args.model)
    files = sorted(source.rglob("*.safetensors"))
    result = {"model": args.model, "bytes": sum(path.stat().st_size for path in files), "scales": args.scales}
    start = time.perf_counter()
    subprocess.run(["cp", "-r", source, args.directory / "copy"], check=True)
    subprocess.run(["sync", args.directory / "copy"], check=True)
    for path in (args.directory / "copy").rglob("*.safetensors"):
        subprocess.run(["sync", path], check=True)
    result["copy_seconds"] = round(time.perf_counter() - start, 2)
    subprocess.run(["rm", "-r", args.directory / "copy"], check=True)
    for recipe in args.recipe:
        options = {"recipe": recipe, "scales": args.scales}
        if recipe == "bfloat16":
            options = {"dtype": "bfloat16"}
        command = [sys.executable, "-c", CONVERT, source, out, json.dumps(options)]
        seconds, peak = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
        size = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
        result[recipe] = {"seconds": round(seconds, 2), "peak_bytes": peak, "bytes": size}
        print(recipe, result[recipe], file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
