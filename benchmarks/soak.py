"""Soak test: run hundreds of requests of every kind against one model and check what they leave behind.

    python -m benchmarks.soak [--requests 200] [--model demo-base] [--seed 0]

Requests have random modes, lengths, chunk sizes, cancellations and errors, and run sequentially and from several
threads. After each request MLX's active memory must be within 1% of its value after the warm-up. At the end no thread
and no file handle may be left over, and the request made at the start must give the same codes again. The last line of
output is JSON; the exit code is 1 if a check fails.
"""

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts import Qwen3TTS, Qwen3TTSError, Sampling, VoiceClonePrompt
from mlx_qwen3_tts.mlx_thread import MLX_THREAD

WORDS = ["hello", "world", "this", "is", "a", "voice", "and", "it", "in", "the", "你好", "1984", "...", "🙂", "naïve"]
MOST_FRAMES = 24
WARM_UP = 2  # rounds through all kinds


class LostSource(Exception):
    """Raised by the text sources of this benchmark."""


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.choice([1, 3, 10, 60])))


def options(rng: random.Random, voices: list[VoiceClonePrompt]) -> dict:
    return {
        "voice": rng.choice(voices),
        "seed": rng.choice([None, rng.randrange(2**32)]),
        "max_frames": rng.randint(1, MOST_FRAMES),
        "non_streaming_mode": rng.choice([None, True, False]),
        "sampling": rng.choice([Sampling(), Sampling(temperature=0.7), Sampling(do_sample=False)]),
    }


def whole(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    result = tts.synthesize(text(rng), **options(rng, voices))
    assert len(result.audio) == len(result.codes) * tts.codec.samples_per_frame


def streamed(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    chunks = list(tts.stream(text(rng), chunk_frames=(1, rng.randint(1, 9)), **options(rng, voices)))
    assert chunks[-1].is_final


def live(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    tts.synthesize((word + " " for word in text(rng).split()), **options(rng, voices))


def cancelled(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    stream = tts.stream(text(rng), chunk_frames=(1,), **options(rng, voices))
    for _ in range(rng.randint(0, 4)):
        next(stream, None)
    stream.close()


def abandoned(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    next(tts.stream(text(rng), **options(rng, voices)))


def interleaved(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    for _ in zip(*(tts.stream(text(rng), chunk_frames=(2,), **options(rng, voices)) for _ in range(2)), strict=False):
        pass


def threaded(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    jobs = [(text(rng), options(rng, voices)) for _ in range(2)]
    done = []
    threads = [threading.Thread(target=lambda t=t, o=o: done.append(tts.synthesize(t, **o))) for t, o in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(jobs)


def cloned(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    sound = 0.1 * np.random.RandomState(rng.randrange(2**32)).standard_normal(24000).astype(np.float32)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "v.safetensors"
        tts.clone_voice((sound, 24000), rng.choice([None, "hello there"])).save(path)
        tts.synthesize("Hello", **options(rng, voices) | {"voice": VoiceClonePrompt.load(path)})


def refused(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    wrong = [{"voice": "nobody"}, {"max_frames": 0}, {"language": "klingon"}, {"chunk_frames": (0,)}]
    try:
        tts.synthesize("Hello", **options(rng, voices) | rng.choice(wrong))
    except Qwen3TTSError:
        return
    raise AssertionError("a wrong option was accepted")


def broken(tts: Qwen3TTS, rng: random.Random, voices: list[VoiceClonePrompt]) -> None:
    def source() -> Iterator[str]:
        yield "Hello world and "
        raise LostSource

    try:
        tts.synthesize(source(), voice=rng.choice(voices), max_frames=MOST_FRAMES)
    except LostSource:
        return
    raise AssertionError("the error of a text's source was lost")


KINDS: list[Callable] = [
    whole, streamed, live, cancelled, abandoned, interleaved, threaded, cloned, refused, broken
]  # fmt: skip


def handles() -> int | None:
    """Return the number of open file handles of this process, if the system reports it."""
    return next((len(os.listdir(place)) for place in ("/proc/self/fd", "/dev/fd") if os.path.isdir(place)), None)


def settled() -> int:
    """Return the active memory after the MLX thread has finished all queued jobs."""
    gc.collect()
    MLX_THREAD.run(mx.synchronize)
    return mx.get_active_memory()


def soak(model: str, requests: int, seed: int) -> dict:
    """Run the requests; return what ran and what was left behind."""
    others = settled()  # the limit is relative to the model's own memory, so subtract the rest
    rng, tts = random.Random(seed), Qwen3TTS.from_pretrained(model)
    sound = 0.1 * np.random.RandomState(seed).standard_normal(48000).astype(np.float32)
    voices = [tts.clone_voice((sound, 24000)), tts.clone_voice((sound, 24000), "hello there, this is a voice")]

    def fixed() -> np.ndarray:
        return tts.synthesize("hello world", voice=voices[1], seed=1, max_frames=8).codes

    expected = fixed()
    for kind in KINDS * WARM_UP:
        kind(tts, rng, voices)
    start, threads, files = settled(), threading.active_count(), handles()
    began, kinds, failures, furthest = time.perf_counter(), Counter(), [], 0.0
    for number in range(requests):
        if number % len(KINDS) == 0:
            order = rng.sample(KINDS, len(KINDS))
        kind = order[number % len(KINDS)]
        kinds[kind.__name__] += 1
        try:
            kind(tts, rng, voices)
        except (Qwen3TTSError, AssertionError, RuntimeError) as error:
            failures.append(f"request {number}, {kind.__name__}: {type(error).__name__} {error}")
        furthest = max(furthest, abs(settled() - start) / (start - others))
    return {
        "requests": requests, "seed": seed, "kinds": dict(kinds), "failures": failures,
        "memory_start": start, "memory_furthest_percent": round(100 * furthest, 3),
        "threads_left": threading.active_count() - threads,
        "handles_left": None if files is None else handles() - files,
        "same_codes_again": bool((fixed() == expected).all()), "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def passed(report: dict) -> bool:
    """Return whether nothing failed and nothing was left behind."""
    return (
        not report["failures"]
        and report["memory_furthest_percent"] <= 1
        and report["threads_left"] == 0
        and report["handles_left"] in (0, None)
        and report["same_codes_again"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Hundreds of requests of every kind, and what they leave behind.")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--model", default="demo-base", help="a Base model: directory, hub id or demo-base")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    report = soak(args.model, args.requests, args.seed)
    print(json.dumps(report))
    return 0 if passed(report) else 1


if __name__ == "__main__":
    sys.exit(main())
