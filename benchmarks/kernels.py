"""Count the kernels that MLX compiles in a new process: during Qwen3TTS.warm_up, and during the first speech after it.

    python -m benchmarks.kernels [--model demo] [--dtype bfloat16] [--as-metal]

MLX fuses elementwise operations into kernels and compiles a kernel on its first use. On Linux it calls g++ and writes
to the temporary directory; this process uses an empty one and counts its files. --as-metal counts what a Mac would
compile for such operations: each function of mx.fast is one node, convolutions are MLX's own, and one library holds
the kernels for contiguous and for other inputs. (A Mac also compiles about five gathers and slice updates.) All weights
are zero with this option, because the stand-ins for mx.fast's functions do not normalize.
"""

import argparse
import json
import os
import re
import tempfile
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest import mock

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

TEXT = "It is one fifty."


def compiled(directory: str, as_metal: bool) -> set[str]:
    """Return the names of the compiled kernels."""
    names = {path.stem for path in Path(directory).rglob("*.so")}
    if not as_metal:
        return names
    return {re.sub(r"_(contiguous|strided_\d+|strided)$", "", name) for name in names}


def set_to_zero(network: nn.Module) -> None:
    network.update(tree_map(mx.zeros_like, network.parameters()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo", help="checkpoint directory or a built-in model (default: demo)")
    parser.add_argument("--dtype", help="as in Qwen3TTS.from_pretrained")
    parser.add_argument("--as-metal", action="store_true", help="count as on a Mac")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        os.environ["TMPDIR"] = directory  # MLX writes its kernels there; it reads TMPDIR once
        from mlx_qwen3_tts import Qwen3TTS
        from mlx_qwen3_tts.codec.layers import CausalConv1d
        from mlx_qwen3_tts.evaluation.op_count import fast_functions_as_one_node

        if args.as_metal:
            # Loading the model decides how its convolutions are computed, so the patch comes first.
            stack.enter_context(mock.patch.object(CausalConv1d, "fused", lambda self: self))
        tts = Qwen3TTS.from_pretrained(args.model, args.dtype)
        if args.as_metal:
            tts.engine.worker.run(set_to_zero, tts.network)
            tts.engine.worker.run(set_to_zero, tts.codec.network)
        began = time.perf_counter()
        with fast_functions_as_one_node() if args.as_metal else nullcontext():
            tts.warm_up()
            warm = compiled(directory, args.as_metal)
            seconds = time.perf_counter() - began
            chunks = list(tts.stream(TEXT, seed=7, max_frames=24))
            streamed = compiled(directory, args.as_metal) - warm
            list(tts.stream(TEXT, seed=7, max_frames=24, non_streaming_mode=False))
            interleaved = compiled(directory, args.as_metal) - warm - streamed
        result = {
            "warm_up": len(warm),
            "warm_up_seconds": round(seconds, 1),
            "first_stream": len(streamed),
            "chunks": [len(chunk.codes) for chunk in chunks],
            "interleaved_stream": len(interleaved),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
