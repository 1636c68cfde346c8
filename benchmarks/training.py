"""Peak memory and time of a training step, on random weights.

python -m benchmarks.training [--size tiny|0.6B|1.7B] [--lora RANK | --full] [--batch N ...] [--seconds S]
"""

import argparse
import json
import time

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts.evaluation.random_model import random_model
from mlx_qwen3_tts.training.lora import LoraOptions, add_lora
from mlx_qwen3_tts.training.loss import make_sequence
from mlx_qwen3_tts.training.memory import estimate_memory
from mlx_qwen3_tts.training.trainer import Trainer, TrainingOptions

FRAMES_PER_SECOND = 12.5


def measure(args: argparse.Namespace, batch: int) -> dict[str, object]:
    """Take two steps and return the figures of the second one."""
    engine = random_model(args.size, args.dtype, fused=False).engine
    config = engine.config.talker_config
    rng = np.random.RandomState(0)
    frames = round(args.seconds * FRAMES_PER_SECOND)
    voice = rng.randn(config.hidden_size).astype(np.float32)
    sequences = []
    for _ in range(batch):
        codes = rng.randint(0, config.code_predictor_config.vocab_size, (frames, config.num_code_groups))
        sequences.append(make_sequence(engine.prompts, "Hello world, this is a voice. " * 4, codes, voice))
    if not args.full:
        engine.worker.run(add_lora, engine.network, LoraOptions(rank=args.lora))
    options = TrainingOptions(epochs=2, batch_size=batch, accumulate=1, low_memory=args.low_memory)
    estimate = estimate_memory(engine.network, sequences, options)
    steps = Trainer(engine, sequences, [], options).run()
    next(steps)
    engine.worker.run(mx.clear_cache)
    mx.reset_peak_memory()
    began = time.perf_counter()
    next(steps)
    return {
        "size": args.size,
        "kind": "full" if args.full else f"lora {args.lora}",
        "dtype": str(engine.talker.dtype),
        "low_memory": args.low_memory,
        "batch": batch,
        "seconds_of_audio": args.seconds,
        "peak_gb": round(mx.get_peak_memory() / 1e9, 2),
        "estimated_gb": round(estimate.total / 1e9, 2),
        "step_seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("tiny", "0.6B", "1.7B"), default="tiny")
    parser.add_argument("--lora", type=int, default=16, metavar="RANK")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--low-memory", action="store_true")
    args = parser.parse_args()
    for batch in args.batch:
        print(json.dumps(measure(args, batch)), flush=True)


if __name__ == "__main__":
    main()
