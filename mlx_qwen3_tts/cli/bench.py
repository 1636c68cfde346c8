"""`bench`: how fast a model speaks here. A table, then the same as one line of JSON."""

import argparse
import json

from ..errors import RequestError
from ..tts import Qwen3TTS
from .console import emit
from .options import add_model

DEFAULT_FRAMES = 100


def add_bench(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "bench", help="measure speed and memory", description="Measure how fast a model speaks on this machine."
    )
    add_model(parser, "random weights of the size 0.6B")
    parser.add_argument("--random", choices=("0.6B", "1.7B", "tiny"), help="random weights of these sizes, no download")
    parser.add_argument("--bits", type=int, choices=(2, 3, 4, 5, 6, 8), help="quantize the random weights")
    parser.add_argument("--frames", type=int, default=DEFAULT_FRAMES, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="the line of JSON alone")
    parser.set_defaults(run=bench)
    return parser


def bench(args: argparse.Namespace) -> None:
    """Load or make a model, run it, and print the figures."""
    from ..evaluation.benchmark import measure, random_model

    if args.frames < 1:
        raise RequestError(f"--frames must be above 0, not {args.frames}")
    if args.revision is not None and args.model is None:
        raise RequestError("--revision says which version of a --model is fetched; name one")
    if args.model is not None and (args.random is not None or args.bits is not None):
        raise RequestError("--random and --bits make a model, and --model names one; leave one out")
    if args.model is not None:
        tts = Qwen3TTS.from_pretrained(args.model, args.dtype, progress=True, revision=args.revision)
    else:
        tts = random_model(args.random or "0.6B", args.dtype, args.bits)
    figures = measure(tts, args.frames)
    if not args.json:
        for name, value in figures.items():
            emit(f"{name:28s} {value:.4g}" if isinstance(value, float) else f"{name:28s} {value}")
    emit(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))
