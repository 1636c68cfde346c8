"""`voices`: the library of cloned voices, and a model's preset voices and languages."""

import argparse
from pathlib import Path

from ..checkpoint.load import read_config
from ..errors import DownloadError, RequestError, VoiceError, printable
from ..generation import prompt
from ..hub import CONFIG_FILES, resolve
from ..voice import VoiceClonePrompt
from ..voice_library import library_names, library_path
from .console import emit, note
from .options import DEFAULT_MODEL, add_model


def add_voices(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "voices",
        help="list voices and languages",
        description="List your library of cloned voices, and a model's preset voices and languages.",
    )
    add_model(parser, DEFAULT_MODEL, dtype=False)
    parser.add_argument("--remove", metavar="NAME", help="delete a voice of your library")
    parser.set_defaults(run=voices)
    return parser


def voices(args: argparse.Namespace) -> None:
    """List the library, then a checkpoint's preset voices, with their dialects, and its languages."""
    if args.remove is not None:
        if args.model is not None or args.revision is not None:
            raise RequestError("--remove is for your library: it takes no --model and no --revision")
        path = library_path(prompt.match(args.remove, library_names()) or args.remove)
        if not path.exists():
            raise VoiceError(f"there is no voice {args.remove!r} in {path.parent}")
        path.unlink()
        note(f"removed {path}")
        return
    kept = library_names()
    for name in kept:
        emit(f"cloned    {name}  {printable(describe(library_path(name)))}")
    try:
        model = args.model or DEFAULT_MODEL
        with resolve(model, progress=True, files=CONFIG_FILES, revision=args.revision) as directory:
            config = read_config(directory)
    except DownloadError as error:
        if args.model is not None or not kept:
            raise
        note(str(error))  # the library, which was asked for as well, is listed all the same
        return
    dialects, default = config.talker_config.spk_is_dialect, prompt.default_speaker(config)
    for name in prompt.speakers(config):
        emit(
            f"voice     {name}" + (f" ({dialects[name]})" if dialects[name] else "") + " (default)" * (name == default)
        )
    if not prompt.speakers(config):
        note(f"a {prompt.MODEL_KINDS[config.tts_model_type]} model has no preset voices")
    for name in prompt.languages(config):
        emit(f"language  {name}")


def describe(path: Path) -> str:
    """What a voice file says of itself, or why it cannot be read."""
    try:
        kept = VoiceClonePrompt.load(path)
    except VoiceError as error:
        return f"(unusable: {error})"
    about = kept.provenance
    text = "timbre only" if kept.ref_text is None else repr(kept.ref_text)
    return f"({about.get('model', 'unknown model')}, {about.get('seconds', '?')} s, {text})"
