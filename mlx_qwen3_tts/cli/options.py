"""What sub-commands share: options that mean the same everywhere."""

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypedDict

import mlx.core as mx

from .. import capabilities
from ..audio.read import check_clip_file
from ..checkpoint.load import DTYPES
from ..errors import RequestError
from ..option import Check, options_of
from ..request import Sampling
from ..tts import Qwen3TTS
from ..voice import MAX_SECONDS, VoiceClonePrompt
from .console import announced_if_slow, note
from .flags import SHORT_FLAGS, flag_of
from .parser import Container

COMPILING = "MLX compiles its kernels (on a Mac in each process; on Linux once, which may take a minute) ..."
DEFAULT_MODEL = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
DEFAULT_BASE = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"


def add_model(
    parser: Container,
    default: str,
    dtype: bool = True,
    details: Container | None = None,
) -> None:
    """Add the options of a model; `details` takes those that matter less."""
    parser.add_argument(
        "--model", help=f"0.6B, 1.7B, 1.7B-design, ..., a checkpoint directory, hub id, or 'demo' (default: {default})"
    )
    parser = details or parser
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model (default: main)")
    if dtype:
        parser.add_argument(
            "--dtype", choices=list(DTYPES), help="default: the checkpoint's on a GPU, float32 on the CPU"
        )


def add_adapter(parser: Container) -> None:
    parser.add_argument("--adapter", metavar="DIR", help="an adapter from `finetune`, to merge into its Base model")


def add_clip(parser: Container) -> None:
    """Add the options of a reference clip; see Qwen3TTS.clone_voice."""
    parser.add_argument("--trim-silence", action="store_true", help="cut silence off both ends of the clip")
    parser.add_argument(
        "--ref-tail",
        type=float,
        metavar="SECONDS",
        help="silence appended to the clip before it is encoded (default: 0, as the official code). 0.5 helps if the "
        "speech begins with the clip's last sound",
    )
    parser.add_argument(
        "--max-ref-seconds", type=float, metavar="SECONDS", help=f"refuse a longer clip (default: {MAX_SECONDS:g})"
    )


class ClipOptions(TypedDict, total=False):
    """Arguments of Qwen3TTS.clone_voice."""

    trim: bool
    tail: float
    max_seconds: float


def clip_options(args: argparse.Namespace) -> ClipOptions:
    """Return the options of the clip that were given."""
    options = ClipOptions()
    if args.trim_silence:
        options["trim"] = True
    if args.ref_tail is not None:
        options["tail"] = args.ref_tail
    if args.max_ref_seconds is not None:
        options["max_seconds"] = args.max_ref_seconds
    return options


def check_reference(
    audio: str, text: str | None, trim: bool = False, tail: float = 0.0, max_seconds: float = MAX_SECONDS
) -> None:
    """Raise an error for a clip, a transcript or options that no model could take, before one is loaded."""
    capabilities.check_reference(text, trim, tail, max_seconds)
    check_clip_file(audio, max_seconds)


def make_voice(tts: Qwen3TTS, audio: str, text: str | None, args: argparse.Namespace) -> VoiceClonePrompt:
    """Clone a voice with the options of the clip; print warnings about the clip."""
    made = tts.clone_voice(audio, text, **clip_options(args))
    for warning in made.warnings:
        note(f"warning: {warning}")
    if text is None:
        note("no transcript was given: the voice is its timbre alone (speaker embedding); with one it is more similar")
    return made


def warm_up(tts: Qwen3TTS, batch_size: int = 1) -> None:
    """Let MLX compile its kernels before the speech and its clock begin, and say so if it takes long."""
    if tts.engine.worker.device.type == mx.cpu and shutil.which("g++") is None:
        note("MLX finds no C++ compiler (g++) here: the speech is the same, and takes longer to make")
    with announced_if_slow(COMPILING):
        tts.warm_up(batch_size)


def add_options(parser: Container, kind: type, skip: Sequence[str] = (), only: Sequence[str] | None = None) -> None:
    """Add a flag for each option that the dataclass `kind` declares, under its name; `only`: for these."""
    defaults = {entry.name: entry.default for entry in fields(kind)}
    for name, option in options_of(kind):
        if name in skip or (only is not None and name not in only):
            continue
        flag = flag_of(name)
        short = [SHORT_FLAGS[name]] if name in SHORT_FLAGS else []
        help_text = option.description.replace("%", "%%")
        if option.is_switch:
            action = argparse.BooleanOptionalAction
            parser.add_argument(flag, action=action, default=defaults[name], help=help_text)
        elif option.parse is not None:
            parse = parser_of(option.parse, option.check)
            metavar = option.metavar or name.upper()
            parser.add_argument(
                *short, flag, dest=name, type=parse, default=defaults[name], metavar=metavar, help=help_text
            )


def parser_of(parse: Callable[[str], Any], check: Check) -> Callable[[str], Any]:
    """Return `parse` with the rule of `check` as its error, for argparse to print."""

    def parse_or_explain(text: str) -> Any:
        try:
            return parse(text)
        except ValueError:
            pass
        try:
            check("the value", text)  # a number as text breaks the rule
        except RequestError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_or_explain


def given_options(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Return the values of a command line for the options of the dataclass `kind`."""
    return {name: getattr(args, name) for name, _ in options_of(kind) if hasattr(args, name)}


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of Sampling."""
    group = parser.add_argument_group("sampling (unset options take the checkpoint's generation_config.json)")
    group.add_argument("--greedy", action="store_true", help="the most likely code every time; no draws")
    add_options(group, Sampling)


def sampling_from(args: argparse.Namespace) -> Sampling:
    """Return the sampling options of a command line. Raises RequestError for an option of a draw next to --greedy."""
    values = given_options(args, Sampling)
    if args.greedy:
        for name, value in values.items():
            if value is not None and value is not False and name != "repetition_penalty":
                raise RequestError(f"--greedy and {flag_of(name)} exclude each other; leave one out")
        values |= {"do_sample": False, "subtalker_dosample": False}
    return Sampling(**values)
