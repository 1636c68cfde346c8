"""Measure the gain of each optimization: milliseconds per frame with one optimization disabled at a time.

    python -m benchmarks.gains [--size tiny|0.6B] [--frames N] [--rounds N]

Optimizations are disabled by patching this package, so that the figures are those of the current code. Each round
measures every variant once.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from statistics import median
from unittest import mock

import mlx.core as mx
import numpy as np

from benchmarks.compare import CHUNK, leave_out_the_codec, milliseconds
from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.checkpoint import load
from mlx_qwen3_tts.codec.decoder import CodecDecoder
from mlx_qwen3_tts.codec.layers import CausalConv1d
from mlx_qwen3_tts.evaluation.random_model import random_model
from mlx_qwen3_tts.models import fused


@contextmanager
def plain_layers() -> Iterator[None]:
    with mock.patch.object(load, "fuse", lambda _model: None):
        yield


@contextmanager
def uncompiled(*names: str) -> Iterator[None]:
    """Do not compile functions with these names (see generation/frames.py and codec/codec.py)."""
    compiled = mx.compile

    def selected(function: Callable) -> Callable:
        return function if function.__name__ in names else compiled(function)

    with mock.patch.object(mx, "compile", selected):
        yield


@contextmanager
def residuals_added_apart() -> Iterator[None]:
    with mock.patch.object(fused, "add_projected", lambda x, layer, y: x + layer(y)):
        yield


@contextmanager
def waiting_for_the_host() -> Iterator[None]:
    with mock.patch.object(mx, "async_eval", lambda *_arrays: None):
        yield


@contextmanager
def codec_as_loaded() -> Iterator[None]:
    with mock.patch.object(CodecDecoder, "fuse", lambda _self: None):
        yield


@contextmanager
def convolutions_of_mlx() -> Iterator[None]:
    with mock.patch.object(CausalConv1d, "fused", lambda self: self):
        yield


FRAMES = {
    "as it is": nullcontext,
    "plain layers": plain_layers,
    "step not compiled": lambda: uncompiled("step"),
    "frame not compiled": lambda: uncompiled("frame"),
    "neither compiled": lambda: uncompiled("step", "frame"),
    "residuals added apart": residuals_added_apart,
    "nothing queued ahead": waiting_for_the_host,
}
CODEC = {
    "as it is": nullcontext,
    "not compiled": lambda: uncompiled("<lambda>"),
    "convolutions of MLX": convolutions_of_mlx,
    "weights as loaded": codec_as_loaded,
}


def frame_milliseconds(tts: Qwen3TTS, frames: int) -> float:
    leave_out_the_codec(tts)
    run = lambda count: tts.synthesize("Hello world", seed=1, max_frames=count, stop_runaway=False)  # noqa: E731
    return milliseconds(run, frames)


def codec_milliseconds(tts: Qwen3TTS, frames: int) -> float:
    codes = np.random.RandomState(0).randint(0, 256, (frames, 16)).astype(np.int32)

    def run(count: int) -> None:
        state = None
        for start in range(0, count, CHUNK):
            _, state = tts.codec.decode_next(codes[start : start + CHUNK], state)

    return milliseconds(run, frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("tiny", "0.6B", "1.7B"), default="tiny")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=("frames", "codec"), default="frames")
    args = parser.parse_args()
    variants, run = (FRAMES, frame_milliseconds) if args.part == "frames" else (CODEC, codec_milliseconds)
    times = {name: [] for name in variants}
    for _ in range(args.rounds):
        for name, variant in variants.items():
            with variant():
                times[name].append(run(random_model(args.size), args.frames))
    for name, values in times.items():
        print(f"{name:24s} {median(values):8.2f} ms  ({', '.join(f'{value:.2f}' for value in values)})")
    print(json.dumps({name: round(median(values), 2) for name, values in times.items()}))


if __name__ == "__main__":
    main()
