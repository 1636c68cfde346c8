"""How fast `book` is against `say -` on the same text, what it costs beside generation, and its memory.

python -m benchmarks.book [--size tiny] [--batch 8] [--paragraphs 24] [--frames 100]    speed and overhead
python -m benchmarks.book --hours 1 10                                                  memory and assembly, simulated

Random weights never end by themselves: each paragraph takes the same number of frames, which stands in for its speech.
The simulation replaces the model by one that gives noise at once.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlx_qwen3_tts import AudioChunk, Qwen3TTS, Request, SynthesisTiming
from mlx_qwen3_tts.audio.write import open_writer
from mlx_qwen3_tts.cli.output import SpeechOutput
from mlx_qwen3_tts.cli.say import speak
from mlx_qwen3_tts.evaluation.random_model import random_model
from mlx_qwen3_tts.generation.listen import OnError
from mlx_qwen3_tts.longform import Block, BookOptions, Chapter, Document, Renderer, plan

SENTENCE = "the world that is in this voice and a hello of the speech "
LETTERS = 400  # of a paragraph
CHAPTER = 50  # paragraphs
MB = 1e6


def document(paragraphs: int) -> Document:
    """Return a book of paragraphs of one length."""
    texts = [f"{number} {SENTENCE * (LETTERS // len(SENTENCE))}".strip() + "." for number in range(paragraphs)]
    chapters = [texts[i : i + CHAPTER] for i in range(0, len(texts), CHAPTER)]
    made = tuple(
        Chapter(f"Part {i}", tuple(Block("paragraph", text) for text in chapter)) for i, chapter in enumerate(chapters)
    )
    return Document(title="Benchmark", author="", language="", cover=None, chapters=made, dropped=())


class Timed:
    """A model whose time in generation is counted: from the request for a chunk to the chunk."""

    def __init__(self, tts: Qwen3TTS) -> None:
        self._tts = tts
        self.seconds = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._tts, name)

    def stream_batch(
        self, requests: Iterable[Request], batch_size: int, on_error: OnError | None = None
    ) -> Iterator[tuple[int, AudioChunk]]:
        """Yield what the model does."""
        stream = self._tts.stream_batch(requests, batch_size, on_error)
        while True:
            began = time.perf_counter()
            entry = next(stream, None)
            self.seconds += time.perf_counter() - began
            if entry is None:
                return
            yield entry


class Simulated(Timed):
    """A model that speaks at once: noise of the length that a text is expected to take."""

    def stream_batch(
        self, requests: Iterable[Request], batch_size: int, on_error: OnError | None = None
    ) -> Iterator[tuple[int, AudioChunk]]:
        """Yield a chunk for each request."""
        del batch_size, on_error
        rng = np.random.RandomState(0)
        noise = (0.1 * rng.randn(60 * self.sample_rate)).astype(np.float32)
        for index, request in enumerate(requests):
            frames = round(len(request.text) / 15 * 12.5)
            audio = noise[: frames * 1920]
            codes = np.zeros((frames, 16), np.int32)
            timing = SynthesisTiming(0, 0, 0, 0, 0, frames, frames * 0.08, 0)
            yield index, AudioChunk(audio, codes, self.sample_rate, request.seed, timing, True, "stop")


def seconds_of(function: Callable[[], None]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def read_book(tts: Qwen3TTS, book: Document, options: BookOptions, folder: Path) -> dict[str, float]:
    """Read a book; return the seconds of its stages."""
    planned = plan(book, options)
    began = time.perf_counter()
    renderer = Renderer(tts, planned, folder / "b.book", options)
    prepared = time.perf_counter()
    for _ in renderer.make():
        pass
    made = time.perf_counter()
    for last in renderer.assemble(folder / "b.m4b"):
        seconds = last.audio_seconds
    done = time.perf_counter()
    return {
        "segments": len(renderer.parts),
        "audio_seconds": seconds,
        "prepare": prepared - began,
        "make": made - prepared,
        "assemble": done - made,
        "all": done - began,
    }


def compare(args: argparse.Namespace) -> dict[str, object]:
    """Return the figures of `book` and `say -` on one text."""
    tts = random_model(args.size)
    engine = tts.engine
    engine.generation_config = replace(engine.generation_config, max_new_tokens=args.frames + 1)
    tts.warm_up(args.batch)
    book = document(args.paragraphs)
    texts = [block.text for chapter in book.chapters for block in chapter.blocks]
    options = BookOptions(batch_size=args.batch, attempts=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kept in (False, True):  # the first, shorter one traces what the other one uses

            def say() -> None:
                output = SpeechOutput("x", open_writer(folder / "x.wav", tts.sample_rate), None)
                sys.stderr = open(os.devnull, "w")  # noqa: SIM115
                speak(tts, texts if kept else texts[:1], Request("x", seed=0), output)  # noqa: B023
                sys.stderr = sys.__stderr__

            say_seconds = seconds_of(say)
        timed = Timed(tts)
        read_book(tts, document(args.batch), options, folder / "warm")
        figures = read_book(timed, book, options, folder)
    overhead = figures["all"] - timed.seconds
    return {
        "size": args.size,
        "batch": args.batch,
        "paragraphs": len(texts),
        "frames": args.frames,
        "say_seconds": round(say_seconds, 2),
        "book_seconds": round(figures["all"], 2),
        "times_as_fast": round(say_seconds / figures["all"], 2),
        "generation_seconds": round(timed.seconds, 2),
        "overhead_percent": round(100 * overhead / figures["all"], 2),
        **{f"{stage}_seconds": round(figures[stage], 2) for stage in ("prepare", "make", "assemble")},
    }


def simulate(hours: float) -> dict[str, object]:
    """Return memory and time of a long book whose speech costs nothing."""
    tts = Simulated(Qwen3TTS.from_pretrained("demo"))
    book = document(round(hours * 3600 / (LETTERS / 15)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as name:
        figures = read_book(tts, book, BookOptions(), Path(name))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "hours": round(figures["audio_seconds"] / 3600, 2),
        "segments": figures["segments"],
        "peak_mb_more": round((after - before) * unit / MB, 1),
        "judge_and_keep_seconds": round(figures["make"], 1),
        "assemble_seconds": round(figures["assemble"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("tiny", "0.6B", "1.7B"), default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--paragraphs", type=int, default=24)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--hours", type=float, nargs="+", metavar="H")
    args = parser.parse_args()
    if args.hours is None:
        print(json.dumps(compare(args)))
        return
    for hours in args.hours:  # from short to long: the peak is that of the process
        print(json.dumps(simulate(hours)), flush=True)


if __name__ == "__main__":
    main()
