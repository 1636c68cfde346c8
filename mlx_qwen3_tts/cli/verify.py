"""`verify`: check that a checkpoint is whole, that its numbers are the known ones, and that it speaks."""

import argparse

from ..checkpoint.load import DTYPES
from ..demo import registry as demo
from ..errors import CheckpointError, RequestError
from ..evaluation.verify import verify as checks
from ..hub import resolve
from .console import emit, note
from .flags import with_flag
from .options import check_reference
from .parser import Commands

DEMO_FRAMES = 12


def add_verify(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "verify",
        help="check a downloaded or converted checkpoint",
        description="Check a checkpoint: its tensors, their values, known fingerprints, and speech in each mode. If "
        "the model runs on a GPU, compare it with the CPU, stage by stage. Prints a table of what passed, failed and "
        "was skipped; the exit code is 1 if a check failed.",
    )
    parser.add_argument("model", help="checkpoint directory, hub id, or 'demo'")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model (default: main)")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: the checkpoint's on a GPU, float32 on the CPU")
    parser.add_argument(
        "--ref-audio", metavar="FILE", help="a clip for Base models to clone (default: a synthetic sound)"
    )
    parser.add_argument("--ref-text", metavar="TEXT", help="what the clip says; without it only the timbre is cloned")
    parser.add_argument(
        "--max-frames", type=int, metavar="N", help="limit each generation; whether the speech ends is not checked then"
    )
    parser.set_defaults(run=verify)
    return parser


def verify(args: argparse.Namespace) -> None:
    """Print a line for each check; raise CheckpointError if one failed."""
    if args.ref_text is not None and args.ref_audio is None:
        raise RequestError("--ref-text needs --ref-audio")
    if args.max_frames is not None and args.max_frames < 1:
        raise RequestError(f"--max-frames must be a whole number above 0, not {args.max_frames}")
    if args.ref_audio is not None:
        check_reference(args.ref_audio, args.ref_text)
    frames = args.max_frames
    if args.model in demo.RANDOM and frames is None:
        frames = DEMO_FRAMES
        note(f"this miniature has random weights and does not end its speech: {frames} frames of each mode")
    clip = None if args.ref_audio is None else (args.ref_audio, args.ref_text)
    failed = 0
    with resolve(args.model, progress=True, revision=args.revision) as directory:
        for check in checks(directory, args.dtype, clip, frames):
            detail = with_flag(check.detail, "max_frames")
            emit(f"{check.outcome:5} {check.name:40} {detail}")
            failed += check.outcome == "fail"
    if failed:
        raise CheckpointError(f"{args.model}: {failed} of the checks failed (see the lines that begin with fail)")
