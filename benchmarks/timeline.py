"""Record a stream as a listener has it: when each chunk arrives, when the sound begins, whether it ever stops.

    threads, one for each stream ─ Qwen3TTS.stream_request ─ chunks ─ Player ─ a device that takes samples in real time

    python -m benchmarks.timeline                  # one stream
    python -m benchmarks.timeline --streams 8      # of eight that share the machine, the first

Prints one line of JSON: seconds since the request, which docs/images/figures.json keeps for the gallery.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from mlx_qwen3_tts.audio.player import Callback, Player
from mlx_qwen3_tts.evaluation.random_model import random_model
from mlx_qwen3_tts.evaluation.samples import sample_request
from mlx_qwen3_tts.request import Request
from mlx_qwen3_tts.tts import Qwen3TTS

BLOCK_SECONDS = 0.02  # that the device takes at once


class SilentDevice:
    """An output stream that takes a block every 20 ms and plays it to nobody."""

    def __init__(self, sample_rate: int, callback: Callback) -> None:
        self.samplerate = float(sample_rate)
        self._callback = callback
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        block = np.zeros((round(BLOCK_SECONDS * self.samplerate), 1), np.float32)
        due = time.monotonic()
        while not self._ended.is_set():
            self._callback(block, len(block), None, None)
            due += BLOCK_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))

    def start(self) -> None:
        """Begin to take blocks."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more blocks."""
        self._ended.set()
        self._thread.join()

    def abort(self) -> None:
        """Take no more blocks."""
        self.stop()

    def close(self) -> None:
        """Nothing is left to do."""


@dataclass
class Timeline:
    """What a listener noted. Times are seconds since the request."""

    chunks: list[tuple[float, float]] = field(default_factory=list)  # arrival, seconds of audio
    first_sound: float = 0.0
    last_sound: float = 0.0
    underruns: int = 0


def listen(tts: Qwen3TTS, request: Request) -> Timeline:
    """Play a stream on a silent device, as `say` plays it, and return what was noted."""
    assert request.max_frames is not None
    frame_seconds = tts.codec.samples_per_frame / tts.sample_rate
    player = Player(tts.sample_rate, SilentDevice, [frame_seconds * size for size in request.chunk_sizes])
    timeline = Timeline()
    remaining = frame_seconds * request.max_frames
    began = last = time.perf_counter()
    for chunk in tts.stream_request(request):
        now = time.perf_counter()
        seconds = len(chunk.audio) / chunk.sample_rate
        remaining -= seconds
        # The prompt delays the first chunk alone. Of streams side by side, a chunk's own timing is only a part.
        pace = now - last if timeline.chunks else chunk.timing.generation + chunk.timing.decode
        last = now
        timeline.chunks.append((now - began, seconds))
        player.write(chunk.audio, pace, remaining, pause=chunk.is_final)
    player.drain()
    assert player.waited is not None
    timeline.first_sound = timeline.chunks[0][0] + player.waited
    timeline.last_sound = time.perf_counter() - began
    timeline.underruns = player.underruns
    return timeline


def keep_busy(tts: Qwen3TTS, request: Request, stop: threading.Event) -> Callable[[], None]:
    """Listen to another stream in a thread until `stop` is set. Returns what waits for its end."""
    begun = threading.Event()

    def run() -> None:
        for _ in tts.stream_request(request):
            begun.set()
            if stop.is_set():
                break

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    return thread.join


def record(size: str, streams: int, frames: int) -> dict[str, object]:
    """Return the timeline of one of `streams` streams of a random model, which has spoken before."""
    tts = random_model(size)
    request = replace(sample_request(tts.config), max_frames=frames)
    tts.warm_up(streams)
    stop = threading.Event()
    endless = replace(request, max_frames=10_000)
    waits = [keep_busy(tts, replace(endless, seed=seed), stop) for seed in range(2, streams + 1)]
    timeline = listen(tts, request)
    stop.set()
    for wait in waits:
        wait()
    return {
        "streams": streams,
        "arrivals": [round(at, 3) for at, _ in timeline.chunks],
        "audio": [round(seconds, 2) for _, seconds in timeline.chunks],
        "first_sound": round(timeline.first_sound, 3),
        "last_sound": round(timeline.last_sound, 3),
        "underruns": timeline.underruns,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="tiny", choices=("tiny", "0.6B", "1.7B"), help="default: %(default)s")
    parser.add_argument("--streams", type=int, default=1, help="that share the machine (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=100, help="of the recorded stream (default: %(default)s)")
    args = parser.parse_args()
    print(json.dumps(record(args.size, args.streams, args.frames)))


if __name__ == "__main__":
    main()
