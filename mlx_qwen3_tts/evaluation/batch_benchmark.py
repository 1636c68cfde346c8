"""Measure how fast a model speaks with several requests side by side.

for each batch size: requests of one length ─ Qwen3TTS.synthesize_batch ─► figures, as a flat dictionary
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import mlx.core as mx

from ..generation.listen import BatchListener
from ..request import Request
from ..tts import Qwen3TTS
from .benchmark import Figures, first_audio, frame_launches
from .samples import sample_request

REPEATS = 3
BUSY_FRAMES = 500  # frames of the requests beside a measured one: they outlive it, and 16 of them fit into memory


def measure_batches(tts: Qwen3TTS, sizes: Sequence[int], frames: int) -> list[Figures]:
    """Return the figures of each batch size; times in milliseconds, memory in megabytes (10**6 bytes).

    frames: of each request. `first_audio_ms` is that of one more request while all rows but one are busy.
    """
    request = replace(sample_request(tts.config), max_frames=frames)
    tts.warm_up(max(sizes))
    return [measure_batch(tts, request, size) for size in sizes]


def measure_batch(tts: Qwen3TTS, request: Request, size: int) -> Figures:
    """Return the figures of one batch size."""
    requests = [replace(request, seed=seed) for seed in range(size)]
    assert request.max_frames is not None
    tts.synthesize_batch([replace(one, max_frames=9) for one in requests], batch_size=size)  # traces of this size
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        results = tts.synthesize_batch(requests, batch_size=size)
        seconds.append(time.perf_counter() - began)
    frames = size * request.max_frames
    peak = max(result.timing.peak_memory for result in results)
    nodes, launches = frame_launches(tts.engine, size)
    frame_seconds = tts.codec.samples_per_frame / tts.sample_rate
    return {
        "batch_size": size,
        "frames_per_second": frames / median(seconds),
        "times_real_time": frames * frame_seconds / median(seconds),
        "ms_per_step": median(1000 * result.timing.generation / request.max_frames for result in results),
        "launches_per_step": launches,
        "graph_nodes_per_step": nodes,
        "first_audio_ms": first_audio_in_batch(tts, request, size),
        "peak_mb": peak / 1e6,
    }


def first_audio_in_batch(tts: Qwen3TTS, request: Request, size: int) -> float:
    """Return the milliseconds to the first samples of a request that joins `size` - 1 busy rows."""
    if size == 1:
        return median(first_audio(tts, request) for _ in range(REPEATS))
    long = replace(request, max_frames=BUSY_FRAMES)
    busy = threading.Event()
    stop = threading.Event()
    errors: list[Exception] = []

    def keep_busy() -> None:
        listener = BatchListener(tts.scheduler, [replace(long, seed=seed) for seed in range(size - 1)], size)
        begun = set()
        chunks = listener.chunks()
        try:
            for index, _, _ in chunks:
                begun.add(index)
                if len(begun) == size - 1:
                    busy.set()
                if stop.is_set():
                    chunks.close()
        except Exception as error:  # noqa: BLE001  (raised by the thread that waits)
            errors.append(error)
        finally:
            busy.set()

    others = threading.Thread(target=keep_busy, daemon=True)
    others.start()
    try:
        busy.wait()
        found = median(first_audio(tts, request) for _ in range(REPEATS))
    finally:
        stop.set()
    others.join()
    if errors:
        raise errors[0]
    tts.engine.worker.run(mx.synchronize)
    return found
