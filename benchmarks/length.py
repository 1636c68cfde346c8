"""Measure the cost of long speech: codec time per frame early and late, and the peak memory of short and long speech.

    python -m benchmarks.length [--model DIRECTORY]

Each length runs in a new process. The default model is a random miniature that never ends by itself. Times are CPU
times, not wall-clock times, so that a busy machine affects them less.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.models.cache import capacity_for

ROOT = Path(__file__).parents[1]
LENGTHS = (200, 2000)
CHUNK = 4  # frames
AROUND = 12  # chunks on either side of a frame; their median time counts as the time of that frame


def measure(model: str, frames: int) -> dict[str, float]:
    """Stream `frames` frames; return the codec's milliseconds per frame early and late, and memory in MB."""
    tts = Qwen3TTS.from_pretrained(model)
    decode = tts.codec.decode_async
    times: list[float] = []

    def timed(codes: np.ndarray, state: object = None) -> tuple:
        mx.synchronize()
        began = time.process_time()
        audio, state = decode(codes, state)
        samples = audio()
        times.append(1000 * (time.process_time() - began) / max(1, len(codes)))
        return lambda: samples, state

    tts.codec.decode_async = timed
    # Compile, and fill MLX's own caches.
    list(tts.stream("Hello", seed=1, max_frames=8, stop_runaway=False, chunk_frames=[CHUNK]))
    times.clear()
    mx.clear_cache()
    *_, last = tts.stream("Hello", seed=1, max_frames=frames, stop_runaway=False, chunk_frames=[CHUNK])
    config = tts.config.talker_config
    width = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    # Size of the talker's keys and values: the prompt has about 30 positions, and the buffers grow by doubling.
    reserved = capacity_for(frames + 30) * width * tts.talker.dtype.size
    at = {frame: times[max(0, frame // CHUNK - AROUND) : frame // CHUNK + AROUND] for frame in (100, frames)}
    return {
        "codec_ms_early": median(at[100]),
        "codec_ms_late": median(at[frames]),
        "peak_mb": last.timing.peak_memory / 1e6,
        "peak_without_kv_mb": (last.timing.peak_memory - reserved) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="default: the random miniature of the tests")
    parser.add_argument("--frames", type=int, help="measure one length in this process")
    args = parser.parse_args()
    if args.frames:
        print(json.dumps(measure(args.model, args.frames)))
        return
    with tempfile.TemporaryDirectory() as directory:
        model = args.model
        if model is None:
            from tests.support import checkpoints

            model = str(checkpoints.write(Path(directory) / "c", "equal"))
        rows = []
        for frames in LENGTHS:
            command = [sys.executable, "-m", "benchmarks.length", "--model", model, "--frames", str(frames)]
            rows.append(
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
            )
            print(f"{frames:5d} frames  " + "  ".join(f"{name} {value:.2f}" for name, value in rows[-1].items()))
    print(json.dumps({name: rows[1][name] / rows[0][name] for name in rows[0]}))


if __name__ == "__main__":
    main()
