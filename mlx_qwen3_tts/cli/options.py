"""What sub-commands share: options that mean the same everywhere, and lines of a result."""

import argparse
from dataclasses import fields
from typing import get_type_hints

from ..audio.read import check_clip_file
from ..checkpoint.load import DTYPES
from ..errors import RequestError
from ..generation import prompt
from ..generation.sampling import Sampling
from ..tts import Qwen3TTS
from ..voice import MAX_SECONDS, VoiceClonePrompt
from .console import note

DEFAULT_MODEL = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
DEFAULT_BASE = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"


def add_model(parser: argparse.ArgumentParser, default: str, dtype: bool = True) -> None:
    parser.add_argument("--model", help=f"checkpoint directory, hub id, or 'demo' (default: {default})")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model (default: main)")
    if dtype:
        parser.add_argument(
            "--dtype", choices=list(DTYPES), help="default: the checkpoint's on a GPU, float32 on the CPU"
        )


def add_clip(parser: argparse._ActionsContainer) -> None:
    """How a reference clip is taken; the names are those of Qwen3TTS.clone_voice."""
    parser.add_argument("--trim-silence", action="store_true", help="cut silence off both ends of the clip")
    parser.add_argument(
        "--ref-tail",
        type=float,
        metavar="SECONDS",
        help="silence put behind the clip before it is encoded (default: 0, as the official code). 0.5 helps where the "
        "speech begins with the clip's last sound",
    )
    parser.add_argument(
        "--max-ref-seconds", type=float, metavar="SECONDS", help=f"refuse a longer clip (default: {MAX_SECONDS:g})"
    )


def clip_options(args: argparse.Namespace) -> dict[str, float | bool]:
    """Those that were given."""
    given = {"trim": args.trim_silence or None, "tail": args.ref_tail, "max_seconds": args.max_ref_seconds}
    return {name: value for name, value in given.items() if value is not None}


def check_reference(
    audio: str, text: str | None, trim: bool = False, tail: float = 0.0, max_seconds: float = MAX_SECONDS
) -> None:
    """Refuse a clip, a transcript and options that no model could take, before one is loaded."""
    prompt.check_reference(text, trim, tail, max_seconds)
    check_clip_file(audio, max_seconds)


def make_voice(tts: Qwen3TTS, audio: str, text: str | None, args: argparse.Namespace) -> VoiceClonePrompt:
    """tts.clone_voice with the options of the clip; what is odd about it is told on standard error."""
    made = tts.clone_voice(audio, text, **clip_options(args))
    for warning in made.warnings:
        note(f"warning: {warning}")
    if text is None:
        note("no transcript was given: the voice is its timbre alone (speaker embedding); with one it is closer")
    return made


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """One option for each field of Sampling, under its name."""
    group = parser.add_argument_group(
        "sampling", "unset options take the checkpoint's defaults (generation_config.json)"
    )
    group.add_argument("--greedy", action="store_true", help="the most likely code every time; no draws")
    kinds = get_type_hints(Sampling)
    for field in fields(Sampling):
        flag = "--" + field.name.replace("_", "-")
        if kinds[field.name] == bool | None:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            group.add_argument(flag, type=int if kinds[field.name] == int | None else float, metavar="N")


def sampling_from(args: argparse.Namespace) -> Sampling:
    """The sampling options of a command line. Raises RequestError where --greedy meets its opposite."""
    values = {field.name: getattr(args, field.name) for field in fields(Sampling)}
    if args.greedy:
        if values["do_sample"] or values["subtalker_dosample"]:
            raise RequestError("--greedy and --do-sample or --subtalker-dosample exclude each other; leave one out")
        values |= {"do_sample": False, "subtalker_dosample": False}
    return Sampling(**values)
