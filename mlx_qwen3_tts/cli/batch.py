"""`say --batch`: paragraphs side by side in one batch, written in order. What it shares with `say --lines`."""

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..audio.formats import SUFFIXES
from ..errors import RequestError
from ..generation.listen import BATCH_SIZE, BatchListener, check_batch_size
from ..request import MAX_SEED, Request
from ..text.feed import EMPTY_TEXT
from ..tts import Qwen3TTS
from .console import warnings_as_notes
from .output import SpeechOutput, open_output
from .parser import Container


def add_batch(parser: Container) -> None:
    """Add the options for several texts."""
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="with -f or a pipe: speak N paragraphs side by side, 1 to 16; the audio is the same and comes in order. "
        f"Each is read whole before it is spoken. With --lines: N lines (default: {BATCH_SIZE})",
    )
    parser.add_argument("--lines", metavar="FILE", help="speak each line of a text file into a file of its own")
    parser.add_argument("--out-dir", metavar="DIR", help="where --lines writes 0001.wav, 0002.wav, ...: line numbers")
    parser.add_argument(
        "--out-format", choices=[suffix[1:] for suffix in SUFFIXES], help="of the files of --lines (default: wav)"
    )


def batch_size_of(args: argparse.Namespace) -> int:
    """Return the number of texts that are spoken side by side."""
    if args.batch is not None:
        return args.batch
    return 1 if args.lines is None else BATCH_SIZE


def check_batch(args: argparse.Namespace) -> None:
    """Raise RequestError for a wrong number, and for arguments that exclude each other or need another one."""
    if args.batch is not None:
        check_batch_size(args.batch)
    if args.lines is None:
        if args.batch is not None and args.text != "-":
            raise RequestError("--batch speaks paragraphs of standard input (-), of --file or --lines side by side")
        if args.batch is not None and args.max_frames is not None:
            raise RequestError("--max-frames counts for all of the text, one paragraph after the other; leave "
                               "out --batch or --max-frames")  # fmt: skip
        if args.out_dir is not None or args.out_format is not None:
            raise RequestError("--out-dir and --out-format are for --lines FILE")
        return
    if args.text is not None:
        raise RequestError("--lines FILE and a text exclude each other; leave one out")
    if args.out_dir is None:
        raise RequestError("--lines writes a file for each line: name a directory with --out-dir")
    if args.output is not None or args.play or args.device is not None:
        raise RequestError("--lines writes into --out-dir; leave out -o, --play and --device")


def seed_of_text(seed: int, number: int) -> int:
    """Return the seed of text `number`, the first of which has the seed that was given."""
    return (seed + number) % (MAX_SEED + 1)


def request_for_whole_text(request: Request, text: str, number: int) -> Request:
    """Return the request for text `number`."""
    seed = None if request.seed is None else seed_of_text(request.seed, number)
    return replace(request, text=text, seed=seed)


class Speed:
    """The speed of all rows together."""

    def __init__(self, tts: Qwen3TTS, listener: BatchListener) -> None:
        self._listener = listener
        self._frame_seconds = tts.codec.samples_per_frame / tts.sample_rate
        self._began = time.perf_counter()
        self._last = self._began

    @property
    def elapsed(self) -> float:
        """Seconds since the construction."""
        return time.perf_counter() - self._began

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio that were generated."""
        return self._listener.frames * self._frame_seconds

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        now = time.perf_counter()
        seconds = now - self._last
        self._last = now
        return seconds

    def __str__(self) -> str:
        speed = self.audio_seconds / max(self.elapsed, 1e-6)
        return f"{self._listener.frames} frames, {self.audio_seconds:.1f} s of audio, {speed:.2f}x real time"


def speak_side_by_side(
    tts: Qwen3TTS, texts: Iterable[str | Iterator[str]], request: Request, output: SpeechOutput, batch_size: int,
    stats: bool = False,
) -> None:  # fmt: skip
    """Speak texts side by side into one output, in order: the audio is that of one text after the other."""
    if request.non_streaming_mode is None:
        request = replace(request, non_streaming_mode=False)  # as if the text came piece by piece
    known: list[str] = []

    def requests() -> Iterator[Request]:
        for number, text in enumerate(texts):
            known.append("".join(text))
            yield request_for_whole_text(request, known[-1], number)

    listener = BatchListener(tts.scheduler, requests(), batch_size, window=2 * batch_size)
    speed = Speed(tts, listener)
    current = -1
    try:
        with open_output(output) as bar, warnings_as_notes():
            for index, _, chunk in listener.chunks_in_order():
                if index != current:
                    current = index
                    output.begin_text(known[index], None)
                output.write(chunk, speed.lap())
                bar.set_description_str(str(speed))
            if current < 0:
                raise RequestError(EMPTY_TEXT)
    finally:
        output.report(stats)
