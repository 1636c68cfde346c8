"""`convert`: write a checkpoint with other types, or quantized by a recipe."""

import argparse

from ..checkpoint.load import DTYPES
from ..conversion import publish, recipes
from ..conversion.affine import BITS, GROUP_SIZES
from ..conversion.calibrate import mean_squares
from ..conversion.convert import SCALES, SHARD_SIZE, Conversion, convert
from ..errors import ConversionError
from .console import emit, note
from .evaluate import add_speech, read_texts
from .say import find_voice


def add_convert(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "convert",
        help="write a smaller or differently typed copy of a model",
        description="Write a converted copy of a model, which loads wherever a model is named.",
    )
    parser.add_argument("--model", help="checkpoint directory or hub id")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model (default: main)")
    parser.add_argument("--out", metavar="DIR", help="the directory to write")
    bits, sizes = (", ".join(map(str, numbers)) for numbers in (BITS, GROUP_SIZES))
    parser.add_argument("--bits", type=int, metavar="N", help=f"bits of all linear layers: {bits}")
    parser.add_argument("--recipe", metavar="NAME", help="a named mix of bits; `--recipe list` explains them")
    parser.add_argument("--group-size", type=int, metavar="N", help=f"weights with one scale: {sizes} (default: 64)")
    parser.add_argument("--dtype", choices=list(DTYPES), help="of what is not quantized (default: the source's)")
    parser.add_argument("--scales", choices=SCALES, help="search the best, or take mx.quantize's (default: search)")
    parser.add_argument(
        "--calibrate", metavar="FILE", help="texts, one a line, that tell which weights count (loads the whole model)"
    )
    add_speech(parser)
    parser.add_argument("--shard-size", type=float, default=SHARD_SIZE / 1e9, metavar="GB", help="default: %(default)g")
    parser.add_argument("--force", action="store_true", help="replace a checkpoint at DIR")
    parser.add_argument("--upload-repo", metavar="OWNER/NAME", help="push the result to the hub, with a model card")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert, and tell what was stored how."""
    if args.recipe == "list":
        if {name for name, value in vars(args).items() if value} - {"recipe", "shard_size", "debug", "run"}:
            raise ConversionError("--recipe list explains the recipes, and takes no other option")
        emit(explain())
        return
    if args.model is None or args.out is None:
        raise ConversionError("name the model with --model, and the directory to write with --out")
    if args.bits is None and args.recipe is None and args.dtype is None:
        raise ConversionError("say what to convert to: --bits, --recipe (`--recipe list`) or --dtype")
    if args.calibrate is None and (args.voice is not None or args.instruct is not None):
        raise ConversionError("--voice and --instruct are for the texts of --calibrate")
    if not 0 < args.shard_size * 1e9 < float("inf"):
        raise ConversionError(f"--shard-size must be a number of gigabytes above 0, not {args.shard_size}")
    importance = None
    if args.calibrate is not None:
        texts, voice = read_texts(args.calibrate), find_voice(args.voice, args.model)

        def importance(directory):  # noqa: ANN001, ANN202
            return mean_squares(directory, texts, voice, args.instruct)

    if args.upload_repo is not None:
        publish.check_repo(args.upload_repo)
    done = convert(
        args.model, args.out, args.recipe, args.bits, args.group_size, args.dtype, args.scales, importance, args.force,
        round(args.shard_size * 1e9), progress=True, revision=args.revision,
    )  # fmt: skip
    report(done)
    if args.upload_repo is not None:
        note(f"{publish.upload(done, args.model, args.upload_repo)}: uploaded")


def report(done: Conversion) -> None:
    """Sizes before and after, and what was stored how, on standard error."""
    for part in done.parts:
        gain = "" if part.gain is None else f", squared error {part.gain - 1:+.0%} against mx.quantize"
        note(f"{part.name:<25} {_size(part.before)} -> {_size(part.after)}   {part.stored}{gain}")
    note(f"{done.path}: {_size(done.before)} -> {_size(done.after)}")


def _size(count: int) -> str:
    return f"{count / 1e6:7.1f} MB"


def explain() -> str:
    """The recipes, with the bits of every part."""
    lines = []
    for recipe in recipes.RECIPES.values():
        lines += [f"{recipe.name}: {recipe.about}", *(f"    {part:<25} {a}" for part, a in recipe.parts.items()), ""]
    return "\n".join([*lines, "Norms, biases, codec embeddings, the speaker encoder and the codec keep their types."])
