"""Measure the memory of the codec at the released size, with random weights.

    python -m benchmarks.codec_memory [--chunks 1 4 8] [--clips 5 60]

--chunks: chunk sizes in frames. Reports the memory that the decoder's state needs between two chunks of a stream, and
the memory that it holds, which MLX cannot free while the state is alive. --clips: clip lengths in seconds. Reports the
peak memory of encoding a clip, without the weights; on a CPU this takes six times the clip's length or more.
Convolutions are MLX's own, as on a GPU.
"""

import argparse
import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlx_qwen3_tts.codec.codec import Codec, CodecNetwork
from mlx_qwen3_tts.codec.layers import CausalConv1d
from mlx_qwen3_tts.config.codec import CodecConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.mlx_thread import Worker
from tests.support import released

CausalConv1d.fused = lambda self: self


def fill(module: nn.Module) -> None:
    """Replace the weights of a module with random ones."""
    module.update(tree_map(lambda old: mx.random.uniform(-0.05, 0.05, old.shape), module.parameters()))


def random_codec(worker: Worker, with_encoder: bool) -> Codec:
    """Return the released codec with random weights."""
    config = from_dict(CodecConfig, released.CODEC, "config.json")

    def build() -> CodecNetwork:
        network = CodecNetwork(config)
        fill(network.decoder)
        network.decoder.fuse()
        mx.eval(network.decoder.parameters())
        if with_encoder:
            fill(network.encoder)
            mx.eval(network.encoder.parameters())
        mx.clear_cache()
        return network

    return Codec(config, worker.run(build), worker)


def state_memory(codec: Codec, frames: int) -> dict[str, float]:
    """Decode two chunks; return the megabytes that the state needs and holds."""
    codes = np.zeros((frames, codec.num_quantizers), np.int32)
    codec.decode_next(codes)  # compiles
    before = mx.get_active_memory()
    _, state = codec.decode_next(codes)
    _, state = codec.decode_next(codes, state)
    held = mx.get_active_memory() - before
    arrays = [array for _, array in tree_flatten(state) if isinstance(array, mx.array)]
    return {"needed_mb": sum(array.nbytes for array in arrays) / 1e6, "held_mb": held / 1e6}


def encoder_memory(codec: Codec, seconds: float) -> float:
    """Encode a clip of noise; return the peak in megabytes."""
    rate = codec.config.input_sample_rate
    clip = 0.1 * np.random.RandomState(0).standard_normal(round(seconds * rate)).astype(np.float32)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    codec.encode(clip, rate)
    return (mx.get_peak_memory() - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chunks", type=int, nargs="*", default=[], metavar="FRAMES")
    parser.add_argument("--clips", type=float, nargs="*", default=[], metavar="SECONDS")
    args = parser.parse_args()
    codec = random_codec(Worker(), with_encoder=bool(args.clips))
    for frames in args.chunks:
        print(json.dumps({"chunk_frames": frames, **state_memory(codec, frames)}), flush=True)
    for seconds in args.clips:
        print(json.dumps({"clip_seconds": seconds, "peak_mb": encoder_memory(codec, seconds)}), flush=True)


if __name__ == "__main__":
    main()
