"""`evaluate`: how much a converted checkpoint differs from its source."""

import argparse
import json
from pathlib import Path

from ..checkpoint.load import DTYPES
from ..errors import RequestError
from ..evaluation.evaluate import MAX_FRAMES, TEXTS, CheckpointStats, Evaluation, evaluate
from .console import emit
from .parser import Commands
from .speaker import find_voice


def add_evaluate(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "evaluate",
        help="compare a converted model with its source",
        description="Measure the cost of a recipe: the reference generates speech, and both models score its codes.",
    )
    parser.add_argument("--model", required=True, help="the checkpoint to judge")
    parser.add_argument("--reference", required=True, help="the checkpoint that it was converted from")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of the reference, from the hub")
    parser.add_argument(
        "--adapter",
        metavar="DIR",
        help="an adapter from `finetune`, to merge into each of the two that is a Base model",
    )
    parser.add_argument("--texts", metavar="FILE", help="what to speak, one text a line (default: four sentences)")
    add_speech(parser)
    parser.add_argument(
        "--max-frames",
        type=int,
        default=MAX_FRAMES,
        metavar="N",
        help="maximum frames per text (default: %(default)s, 10 s)",
    )
    parser.add_argument(
        "--dtype",
        choices=list(DTYPES),
        help="weight type of both models (default: the checkpoint's; float32 on the CPU)",
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.set_defaults(run=run)
    return parser


def add_speech(parser: argparse.ArgumentParser) -> None:
    """Who speaks the texts."""
    parser.add_argument("--voice", help="who speaks: a preset voice, or a voice file (Base models need one)")
    parser.add_argument("--instruct", help="how to speak, or a description of the voice (VoiceDesign)")


def read_texts(path: str | None) -> list[str]:
    """The lines of a file that are not blank. Raises RequestError."""
    if path is None:
        return list(TEXTS)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise RequestError(f"cannot read the texts in {path}: {getattr(error, 'strerror', None) or error}") from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise RequestError(f"{path} holds no text: one is expected on each line")
    return texts


def run(args: argparse.Namespace) -> None:
    """Compare, and print a table or JSON."""
    texts = read_texts(args.texts)
    voice = find_voice(args.voice, args.model)
    found = evaluate(
        args.model, args.reference, texts, voice, args.instruct, args.max_frames, args.dtype, progress=True,
        revision=args.revision, adapter=args.adapter,
    )  # fmt: skip
    text = json.dumps(found.as_dict()) if args.json else table(found)
    emit(text)


def table(found: Evaluation) -> str:
    """The figures as text."""
    rows = [f"{'codebook':>8} {'agreement':>10} {'KL (nats)':>10}"]
    for i, (agreement, kl) in enumerate(zip(found.agreement, found.kl, strict=True)):
        rows.append(f"{i:>8} {agreement:>10.1%} {kl:>10.4g}")
    mean = [sum(values) / len(values) for values in (found.agreement, found.kl)]
    rows += [f"{'mean':>8} {mean[0]:>10.1%} {mean[1]:>10.4g}", ""]
    rows.append(
        f"{found.frames} frames; the likeliest codes sound {found.mel_distance:.3g} dB apart (log-mel), "
        f"{found.waveform_distance:.3g} as waves"
    )
    rows += ["", f"{'':>9} {'weights':>10} {'a frame':>10} {'real time':>10} {'peak memory':>12}"]
    return "\n".join([*rows, _side("model", found.model), _side("reference", found.reference)])


def _side(title: str, side: CheckpointStats) -> str:
    return (
        f"{title:>9} {side.bytes / 1e6:>7.1f} MB {side.seconds_per_frame * 1e3:>7.1f} ms "
        f"{side.real_time_factor:>10.2f} {side.peak_memory / 1e6:>9.1f} MB  {side.name}"
    )
