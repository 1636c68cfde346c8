"""`clone`: make a voice from a clip, in a file or in the library."""

import argparse
import os
from pathlib import Path

from ..capabilities import match
from ..errors import RequestError, VoiceError
from ..tts import Qwen3TTS
from ..voice_library import library, library_names, library_path
from .console import note
from .options import DEFAULT_BASE, add_clip, add_model, check_reference, clip_options, make_voice
from .parser import Commands
from .speaker import base_model

ELSEWHERE = "MLX_QWEN3_TTS_VOICES names another directory for your voices"


def add_clone(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "clone", help="make a voice from a clip", description="Make a voice from a clip, with a Base model."
    )
    parser.add_argument("audio", help="the clip: wav, flac, ogg or mp3, at any rate; 3 to 15 s of speech are best")
    parser.add_argument("--text", help="the transcript of the clip; without it only the timbre is used")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", metavar="FILE", help="the voice file to write (.safetensors)")
    target.add_argument("--save-as", metavar="NAME", help="save it in your library: `say --voice NAME` finds it")
    parser.add_argument("--force", action="store_true", help="replace a voice of that name in your library")
    add_model(parser, DEFAULT_BASE)
    add_clip(parser)
    parser.set_defaults(run=clone)
    return parser


def clone(args: argparse.Namespace) -> None:
    """Clone a voice from a clip and save it."""
    check_reference(args.audio, args.text, **clip_options(args))
    path = voice_path(args)
    model = base_model() if args.model is None else args.model
    tts = Qwen3TTS.from_pretrained(model, args.dtype, progress=True, revision=args.revision)
    voice = make_voice(tts, args.audio, args.text, args)
    voice.save(path, replace=args.force or args.output is not None)
    frames = 0 if voice.ref_codes is None else len(voice.ref_codes)
    note(f"{path}: a voice from {voice.provenance['seconds']} s of audio, {frames} frames of reference codes")


def voice_path(args: argparse.Namespace) -> Path:
    """Return the file to write. Raises VoiceError if it cannot be written, or exists in the library already."""
    if args.save_as is not None:
        return path_to_save(args.save_as, args.force)
    if args.force:
        raise RequestError("--force has no effect without --save-as (-o always replaces the file); leave it out")
    path = Path(args.output)
    if path.suffix != ".safetensors":
        raise VoiceError(f"cannot write {path}: the name of a voice file must end in .safetensors")
    check_directory(path)
    return path


def path_to_save(name: str, force: bool) -> Path:
    """Return the file of a new voice in the library. Raises VoiceError if it cannot be written, or exists already."""
    existing = match(name, library_names())
    if existing is not None and not force:
        raise VoiceError(f"there is a voice {existing!r} already; --force replaces it")
    path = library_path(existing or name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VoiceError(f"cannot make {path.parent}: {error.strerror}; {ELSEWHERE}") from None
    check_directory(path)
    return path


def check_directory(path: Path) -> None:
    """Raise VoiceError if a file cannot be written in its directory."""
    if not os.access(path.parent, os.W_OK):
        hint = f"; {ELSEWHERE}" if path.parent == library() else ""
        raise VoiceError(f"cannot write {path}: {path.parent} is not a writable directory{hint}")
