"""`bench`: how fast a model speaks here. A table, then the same as one line of JSON."""

import argparse
import json

from ..errors import RequestError
from ..evaluation.batch_benchmark import measure_batches
from ..evaluation.benchmark import Figures, measure
from ..evaluation.random_model import random_model
from ..generation.listen import check_batch_size
from ..tts import Qwen3TTS
from .console import emit, note
from .options import add_adapter, add_model
from .parser import Commands

DEFAULT_FRAMES = 100

# The columns of a row of --share, and of the table under "Machines" in BENCHMARKS.md.
SHARE_COLUMNS = (
    "chip", "memory", "system", "MLX", "model", "weights", "first audio, cold", "first audio, warm",
    "real-time factor", "launches per frame", "peak memory",
)  # fmt: skip


def add_bench(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "bench",
        help="measure speed and memory",
        description="Measure how fast a model speaks on this machine. The first audio is measured twice: cold, which "
        "includes the kernels that MLX compiles in a new process, and warm, as after Qwen3TTS.warm_up.",
    )
    add_model(parser, "random weights of the size 0.6B")
    add_adapter(parser)
    parser.add_argument("--random", choices=("0.6B", "1.7B", "tiny"), help="random weights of this size, no download")
    parser.add_argument("--bits", type=int, choices=(2, 3, 4, 5, 6, 8), help="quantize the random weights")
    parser.add_argument(
        "--frames", type=int, default=DEFAULT_FRAMES, metavar="N", help="frames to generate (default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=batch_sizes,
        metavar="N,...",
        help="measure batches of these sizes, 1 to 16 requests side by side, such as 1,2,4,8,16",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the line of JSON alone")
    form.add_argument(
        "--share",
        action="store_true",
        help="print one row of a Markdown table and the line of JSON. Post both in an issue or a pull request of this "
        "project: the row belongs in BENCHMARKS.md, under Machines",
    )
    parser.set_defaults(run=bench)
    return parser


def bench(args: argparse.Namespace) -> None:
    """Measure, and print the figures in the form that was asked for."""
    if args.frames < 1:
        raise RequestError(f"--frames must be a whole number above 0, not {args.frames}")
    if args.model is not None and (args.random is not None or args.bits is not None):
        raise RequestError("--random and --bits make a model, and --model names one; leave one out")
    if args.batch is not None and args.share:
        raise RequestError("--share prints the figures of a single request; leave out --batch")
    tts = load_model(args)
    if args.batch is not None:
        bench_batches(tts, args.batch, args.frames, args.json)
        return
    note("measuring; the first request includes the kernels that MLX compiles, on Linux for up to a minute once ...")
    figures = measure(tts, args.frames)
    if args.share:
        emit(share_row(figures))
    elif not args.json:
        emit(table(figures))
    emit(json.dumps({name: rounded(value) for name, value in figures.items()}))


def batch_sizes(text: str) -> list[int]:
    """Parse "1,2,4"."""
    try:
        sizes = [int(part) for part in text.split(",")]
        for size in sizes:
            check_batch_size(size)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 1 to 16, such as 1,2,4") from None
    return sizes


def bench_batches(tts: Qwen3TTS, sizes: list[int], frames: int, only_json: bool) -> None:
    """Measure batches and print a table and a line of JSON for each."""
    note("measuring batches; kernels are compiled first ...")
    rows = measure_batches(tts, sizes, frames)
    if not only_json:
        emit(columns(rows))
    for figures in rows:
        emit(json.dumps({name: rounded(value) for name, value in figures.items()}))


def columns(rows: list[Figures]) -> str:
    """Return figures as text, one row for each dictionary."""
    lines = ["  ".join(rows[0])]
    for row in rows:
        cells = []
        for name, value in row.items():
            cells.append(in_digits(value).rjust(len(name)))
        lines.append("  ".join(cells))
    return "\n".join(lines)


def load_model(args: argparse.Namespace) -> Qwen3TTS:
    """Return the model that the options name."""
    if args.model is not None:
        return Qwen3TTS.from_pretrained(
            args.model, args.dtype, progress=True, revision=args.revision, adapter=args.adapter
        )
    if args.adapter is not None:
        raise RequestError("--adapter belongs to a model: name its Base model with --model")
    if args.revision is not None:
        raise RequestError("--revision applies to hub models only: name one with --model")
    return random_model(args.random or "0.6B", args.dtype, args.bits)


def rounded(value: float | int | str) -> float | int | str:
    """Return a figure for JSON."""
    if isinstance(value, float):
        return round(value, 4)
    return value


def in_digits(value: float | int | str) -> str:
    """Return a figure as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def table(figures: Figures) -> str:
    """Return the figures as text, one on each line."""
    lines = []
    for name, value in figures.items():
        lines.append(f"{name:28s} {in_digits(value)}")
    return "\n".join(lines)


def share_row(figures: Figures) -> str:
    """Return the figures of `measure` as a row of the table with SHARE_COLUMNS."""
    cells = (
        figures["chip"],
        f"{figures['memory_gib']} GB",
        figures["system"],
        figures["mlx"],
        figures["model"],
        figures["weights"],
        f"{figures['cold_first_audio_ms']:,.0f} ms",
        f"{figures['warm_first_audio_ms']:,.0f} ms",
        f"{figures['real_time_factor']:.2f}",
        f"{figures['launches_per_frame']:,}",
        f"{float(figures['peak_mb']) / 1000:.2f} GB",
    )
    texts = [str(cell).replace("|", "/") for cell in cells]
    return f"| {' | '.join(texts)} |"
