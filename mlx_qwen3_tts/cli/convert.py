"""`convert`: write a copy of a checkpoint with other types, or quantized by a recipe."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..checkpoint.load import DTYPES
from ..checkpoint.quantization import BITS, GROUP_SIZES
from ..conversion import publish, recipes
from ..conversion.calibrate import mean_squares
from ..conversion.convert import SCALES, SHARD_SIZE, Conversion, Importance, convert
from ..errors import ConversionError
from .console import emit, note
from .evaluate import add_speech, read_texts
from .options import add_adapter
from .parser import Commands
from .speaker import find_voice

LIST = "list"  # as --recipe


def add_convert(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "convert",
        help="write a smaller or differently typed copy of a model",
        description="Write a converted copy of a model, which loads like any other.",
    )
    parser.add_argument("--model", help="checkpoint directory or hub id")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model (default: main)")
    add_adapter(parser)
    parser.add_argument("--out", metavar="DIR", help="the directory to write")
    bits = ", ".join(map(str, BITS))
    sizes = ", ".join(map(str, GROUP_SIZES))
    parser.add_argument("--bits", type=int, metavar="N", help=f"bits of all linear layers: {bits}")
    parser.add_argument("--recipe", metavar="NAME", help="a named mix of bits; `--recipe list` explains them")
    parser.add_argument("--group-size", type=int, metavar="N", help=f"weights per scale: {sizes} (default: 64)")
    parser.add_argument(
        "--dtype", choices=list(DTYPES), help="type of the weights that are not quantized (default: the source's)"
    )
    parser.add_argument(
        "--scales", choices=SCALES, help="search the best scales, or take mx.quantize's (default: search)"
    )
    parser.add_argument(
        "--calibrate",
        metavar="FILE",
        help="texts, one per line, that show which weights matter most (loads the whole model)",
    )
    add_speech(parser)
    parser.add_argument(
        "--shard-size",
        type=float,
        default=SHARD_SIZE / 1e9,
        metavar="GB",
        help="maximum size of a weight file (default: %(default)g)",
    )
    parser.add_argument("--force", action="store_true", help="replace a checkpoint at DIR")
    parser.add_argument(
        "--upload-repo", metavar="OWNER/NAME", help="upload the result to the Hugging Face Hub, with a model card"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert, and report how each part was stored."""
    if args.recipe == LIST:
        list_recipes(args)
        return
    check_arguments(args)
    importance = importance_from(args)
    if args.upload_repo is not None:
        publish.check_repo(args.upload_repo)
    conversion = convert(
        args.model,
        args.out,
        recipe=args.recipe,
        bits=args.bits,
        group_size=args.group_size,
        dtype=args.dtype,
        scales=args.scales,
        importance=importance,
        force=args.force,
        shard_size=round(args.shard_size * 1e9),
        progress=True,
        revision=args.revision,
        adapter=args.adapter,
    )
    report(conversion)
    if args.upload_repo is not None:
        url = publish.upload(conversion, args.model, args.upload_repo)
        note(f"{url}: uploaded")


def list_recipes(args: argparse.Namespace) -> None:
    """Print the recipes with the bits of each part. Raises ConversionError for any other option."""
    given = {name for name, value in vars(args).items() if value}
    if given - {"recipe", "shard_size", "debug", "run", "command"}:
        raise ConversionError("--recipe list explains the recipes and takes no other option")
    lines = []
    for recipe in recipes.NAMED.values():
        lines.append(f"{recipe.name}: {recipe.description}")
        lines += [f"    {part:<25} {affine}" for part, affine in recipe.parts.items()]
        lines.append("")
    lines.append("Norms, biases, codec embeddings, the speaker encoder and the codec keep their types.")
    emit("\n".join(lines))


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ConversionError for arguments that are missing or do not fit together."""
    if args.model is None or args.out is None:
        raise ConversionError("name the model with --model, and the directory to write with --out")
    if args.bits is None and args.recipe is None and args.dtype is None and args.adapter is None:
        raise ConversionError(
            "nothing to convert to: give --bits, --recipe (see `--recipe list`), --dtype or --adapter"
        )
    if args.calibrate is None and (args.voice is not None or args.instruct is not None):
        raise ConversionError("--voice and --instruct have no effect without --calibrate; leave them out")
    if not 0 < args.shard_size * 1e9 < float("inf"):
        raise ConversionError(f"--shard-size must be a number of gigabytes above 0, not {args.shard_size}")


def importance_from(args: argparse.Namespace) -> Callable[[Path], Importance] | None:
    """Return the calibration on the texts of --calibrate, if it is given."""
    if args.calibrate is None:
        return None
    texts = read_texts(args.calibrate)
    voice = find_voice(args.voice, args.model)
    return partial(mean_squares, texts=texts, voice=voice, instruct=args.instruct, adapter=args.adapter)


def report(conversion: Conversion) -> None:
    """Print the sizes before and after, and how each part was stored, on standard error."""
    for part in conversion.parts:
        gain = "" if part.gain is None else f", squared error {part.gain - 1:+.0%} against mx.quantize"
        note(f"{part.name:<25} {_size(part.before)} -> {_size(part.after)}   {part.stored}{gain}")
    note(f"{conversion.path}: {_size(conversion.before)} -> {_size(conversion.after)}")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:7.1f} MB"
