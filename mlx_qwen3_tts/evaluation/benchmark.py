"""Measure how fast a model speaks on this machine, and which part takes the time.

    checkpoint | random weights of released sizes ─ Qwen3TTS ─ runs ─► figures, as a flat dictionary

Speed does not depend on the weights' values, so that a measurement needs no download. Each part is timed alone, on
arrays that are evaluated already. Whole requests are timed as a user waits for them.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from .. import __version__
from ..generation.engine import Engine, finish
from ..generation.frames import Frame, FrameFunctions, Step
from ..generation.sampling import FrameOptions, gumbel_noise
from ..models.cache import capacity_for
from ..request import CHUNK_FRAMES, Request, Sampling
from ..tts import Qwen3TTS
from .machine import describe
from .op_count import count_launches
from .samples import sample_request

CHUNK = CHUNK_FRAMES[-1]  # frames
REPEATS = 7
WARM_STREAMS = 3  # streams whose first audio is timed after the warm-up

Figures = dict[str, float | int | str]


def measure(tts: Qwen3TTS, frames: int) -> Figures:
    """Run a model and return the figures; times in milliseconds, memory and traffic in megabytes (10**6 bytes).

    The model must not have spoken. Its first stream gives `cold_first_audio_ms`, the time to the first audio without a
    warm-up: that of a cold start, if this process has generated no speech before. No other figure includes that time.
    On Linux MLX's CPU back end keeps its kernels on disk, so that only the first process on a machine is cold.
    """
    engine = tts.engine
    request = sample_request(tts.config)
    cold = first_audio(tts, request)
    tts.warm_up()
    warm = median(first_audio(tts, request) for _ in range(WARM_STREAMS))
    timing = tts.run(replace(request, max_frames=frames)).timing
    weights = _megabytes(tts.talker) + _megabytes(tts.codec.network.decoder)
    kv = _kv_megabytes(engine, timing.frames + len(engine.prompts.build(request)))
    peak = timing.peak_memory / 1e6
    nodes, launches = frame_launches(engine)
    parts = engine.worker.run(time_parts, engine)
    traffic = _traffic(tts.talker)
    bandwidth = engine.worker.run(_bandwidth)
    machine = describe(engine.worker.device)
    return {
        "model": _public_name(tts.name),
        "weights": _kind_of_weights(tts.talker),
        "version": __version__,
        "mlx": metadata.version("mlx"),
        "device": engine.worker.device.type.name,
        "chip": machine.chip,
        "memory_gib": round(machine.memory / 2**30),
        "system": machine.system,
        "frames": timing.frames,
        "cold_first_audio_ms": cold,
        "warm_first_audio_ms": warm,
        "frames_per_second": timing.frames / timing.total,
        "real_time_factor": timing.real_time_factor,
        "times_real_time": 1 / timing.real_time_factor,
        "frame_ms": 1000 * timing.total / timing.frames,
        **parts,
        "graph_nodes_per_frame": nodes,
        "launches_per_frame": launches,
        "peak_mb": peak,
        "active_mb": mx.get_active_memory() / 1e6,
        "weights_mb": weights,
        "kv_mb": kv,
        "beyond_weights_and_kv_mb": peak - weights - kv,
        "weights_read_mb_per_frame": traffic,
        "copy_gb_per_second": bandwidth,
        "bandwidth_floor_ms": traffic / bandwidth,
    }


def first_audio(tts: Qwen3TTS, request: Request) -> float:
    """Return the milliseconds from a request to its first samples, as a listener waits for them."""
    start = time.perf_counter()
    stream = tts.stream_request(request)
    next(stream)
    elapsed = 1000 * (time.perf_counter() - start)
    stream.close()
    tts.engine.worker.run(mx.synchronize)  # what was generated ahead of the listener
    return elapsed


def _public_name(name: str) -> str:
    """Return a model's name without the directories that lead to it."""
    path = Path(name)
    return path.name if path.is_absolute() else name


def _kind_of_weights(talker: nn.Module) -> str:
    """Return the type that a talker computes in and, if it is quantized, its bits, as in "bfloat16, 4/6/8 bits"."""
    dtype = str(talker.dtype).removeprefix("mlx.core.")
    bits = sorted({module.bits for module in talker.modules() if hasattr(module, "bits")})
    if not bits:
        return dtype
    return f"{dtype}, {'/'.join(map(str, bits))} bits"


def _kv_megabytes(engine: Engine, positions: int) -> float:
    """Return the size of the talker's keys and values after that many positions."""
    config = engine.config.talker_config
    width = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return capacity_for(positions) * width * engine.talker.dtype.size / 1e6


class FrameRunner:
    """Runs a frame and a talker step of a model, always from the same state. Use it on the MLX thread."""

    def __init__(self, engine: Engine, request: Request, rows: int = 1) -> None:
        """rows: of the batch, all of the same request."""
        config = engine.config.talker_config
        prompt = engine.prompts.build(request)
        self._pad = engine.config.tts_pad_token_id
        self.state = finish(engine.prefill(prompt, seed=0))
        self.state.select([0] * rows, self.state.capacity)
        self._positions = np.array([len(prompt)] * rows)
        self.options = FrameOptions.of([Sampling().resolve(engine.generation_config)] * rows, config)
        self._config = config
        self._may_end = mx.array([[True]] * rows)

    def frame(self, functions: FrameFunctions) -> Frame:
        """Sample the codes of a frame."""
        state = self.state
        return functions.frame(state.hidden, state.logits, state.seen, state.keys, self._may_end, self.options)

    def step(self, functions: FrameFunctions) -> Step:
        """Advance the talker, always by the same position."""
        state = self.state
        text = functions.embed_text([self._pad] * state.size, self._pad)
        out = functions.step(state.hidden, text, state.buffers, self._positions)
        state.buffers = out[2]
        return out

    def draws(self) -> list[mx.array]:
        """Filter and draw as often as a frame does."""
        config = self._config
        noise = gumbel_noise(self.state.keys, (config.num_code_groups, config.vocab_size))
        logits = self.state.logits.astype(mx.float32)
        draw = self.options.talker
        return [draw.draw(draw.filter(logits), noise[:, g]) for g in range(config.num_code_groups)]


def frame_launches(engine: Engine, rows: int = 1) -> tuple[int, int]:
    """Return the number of nodes of a frame's graph in the default layout, and of the kernels that Metal launches.

    rows: of the batch.
    """

    def count() -> tuple[int, int]:
        runner = FrameRunner(engine, sample_request(engine.config), rows)
        functions = FrameFunctions(engine.talker)
        pad = engine.config.tts_pad_token_id
        mx.eval(functions.embed_text([pad], pad))  # computed once for all frames
        return count_launches(lambda: (runner.frame(functions), runner.step(functions)))

    return engine.worker.run(count)


def time_parts(engine: Engine) -> dict[str, float]:
    """Return the milliseconds per frame of each stage alone, and of building graphs. Use it on the MLX thread."""
    runner = FrameRunner(engine, sample_request(engine.config))
    functions = FrameFunctions(engine.talker)
    codec = engine.codec
    frame = partial(runner.frame, functions)
    step = partial(runner.step, functions)
    frame_ms = evaluation_ms(frame)
    sampling_ms = evaluation_ms(mx.compile(runner.draws))
    codes = np.zeros((CHUNK, codec.num_quantizers), np.int32)
    codec_state = codec.decode_next(codes)[1]

    def decode() -> object:
        wait, state = codec.decode_async(codes, codec_state)
        wait()
        return state

    return {
        "talker_ms": evaluation_ms(step),
        "predictor_ms": frame_ms - sampling_ms,
        "sampling_ms": sampling_ms,
        "codec_ms": evaluation_ms(decode) / CHUNK,
        "graph_building_ms": building_ms(frame) + building_ms(step),
    }


def evaluation_ms(function: Callable[[], object]) -> float:
    """Return the median milliseconds of a call and the evaluation of its arrays."""

    def run() -> None:
        mx.eval(function())

    return _median_ms(run, lambda _: None)


def building_ms(function: Callable[[], object]) -> float:
    """Return the median milliseconds of a call alone; its arrays are evaluated afterwards."""
    return _median_ms(function, mx.eval)


def _median_ms(function: Callable[[], object], afterwards: Callable[[object], object]) -> float:
    times = []
    afterwards(function())  # compiles
    for _ in range(REPEATS):
        start = time.perf_counter()
        out = function()
        times.append(1000 * (time.perf_counter() - start))
        afterwards(out)
    return median(times)


def _megabytes(module: nn.Module) -> float:
    arrays: dict[str, mx.array] = {}
    tree_flatten(module.parameters(), destination=arrays)
    return sum(array.nbytes for array in arrays.values()) / 1e6


def _traffic(talker: nn.Module) -> float:
    """Return the megabytes of weights that a frame reads: the talker once, the predictor's layers 15 times.

    A frame reads one row of each embedding, which does not count. The embedding of the text's padding is kept.
    """
    predictor = talker.code_predictor
    once = [*talker.model.layers, talker.model.norm, talker.codec_head, *predictor.lm_head]
    rest = [*predictor.lm_head, *predictor.model.codec_embedding]
    repeated = _megabytes(predictor) - sum(map(_megabytes, rest))
    return sum(map(_megabytes, once)) + len(predictor.lm_head) * repeated


def _bandwidth() -> float:
    """Return the gigabytes per second, read and written, of a large copy."""
    source = mx.zeros((64, 2**20), mx.float32)
    mx.eval(source)
    return 2 * source.nbytes / 1e6 / evaluation_ms(lambda: -source)
