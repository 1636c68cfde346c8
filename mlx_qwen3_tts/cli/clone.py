"""`clone`: a clip becomes a voice, in a file or in the library."""

import argparse
import os
from pathlib import Path

from ..errors import RequestError, VoiceError
from ..generation import prompt
from ..tts import Qwen3TTS
from ..voice_library import library_names, library_path
from .console import note
from .options import DEFAULT_BASE, add_clip, add_model, check_reference, clip_options, make_voice


def add_clone(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "clone", help="make a voice from a clip", description="Make a voice from a clip, with a Base model."
    )
    parser.add_argument("audio", help="the clip: wav, flac, ogg or mp3, of any rate; 3 to 15 s of speech are best")
    parser.add_argument("--text", help="what the clip says; without it only its timbre is taken")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", metavar="FILE", help="the voice file to write (.safetensors)")
    target.add_argument("--save-as", metavar="NAME", help="keep it in your library: `say --voice NAME` finds it")
    parser.add_argument("--force", action="store_true", help="replace a voice of that name in your library")
    add_model(parser, DEFAULT_BASE)
    add_clip(parser)
    parser.set_defaults(run=clone)
    return parser


def clone(args: argparse.Namespace) -> None:
    """Make a voice from a clip and keep it."""
    check_reference(args.audio, args.text, **clip_options(args))
    if args.force and args.save_as is None:
        raise RequestError("--force is for --save-as; -o replaces a file of that name")
    kept = None if args.save_as is None else prompt.match(args.save_as, library_names())
    if kept is not None and not args.force:
        raise VoiceError(f"there is a voice {kept!r} already; --force replaces it")
    path = Path(args.output) if args.save_as is None else library_path(kept or args.save_as)
    if path.suffix != ".safetensors":
        raise VoiceError(f"cannot write {path}: the name of a voice file ends in .safetensors")
    if args.save_as is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise VoiceError(f"cannot write {path}: {path.parent} is no directory that can be written to")
    model = DEFAULT_BASE if args.model is None else args.model
    tts = Qwen3TTS.from_pretrained(model, args.dtype, progress=True, revision=args.revision)
    made = make_voice(tts, args.audio, args.text, args)
    made.save(path)
    frames = 0 if made.ref_codes is None else len(made.ref_codes)
    seconds = made.provenance["seconds"]
    note(f"{path}: a voice from {seconds} s of audio, {frames} frames of reference codes")
