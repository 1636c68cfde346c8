"""`design`: make a voice from a description, and keep it in the library.

description ─ VoiceDesign model ─ reference (-o) ─ [unloaded] ─ Base model ─ voice (--save-as)
"""

import argparse
from pathlib import Path

from ..audio.formats import NAMES
from ..audio.write import check_writable
from ..capabilities import check_cloning
from ..checkpoint.load import read_config
from ..errors import RequestError
from ..hub import CONFIG_FILES, resolve
from ..tts import Qwen3TTS
from ..voice_design import DesignedReference
from .clone import path_to_save
from .console import note
from .options import DEFAULT_BASE, add_model
from .parser import Commands

DEFAULT_DESIGN = "Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign"


def add_design(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "design",
        help="make a voice from a description",
        description="Make a voice from a description: a VoiceDesign model speaks a reference, and a Base model clones "
        "it. `say --voice NAME` then speaks in it.",
    )
    parser.add_argument("description", help="of the voice, as in 'A warm elderly storyteller.'")
    parser.add_argument("--save-as", metavar="NAME", help="save the voice in your library")
    parser.add_argument("--force", action="store_true", help="replace a voice of that name in your library")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the reference, to hear it: " + NAMES + " by its suffix"
    )
    parser.add_argument("--text", help="what the reference says (default: two sentences in the language)")
    parser.add_argument("--language", help="of the reference (default: English)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same voice")
    add_model(parser, DEFAULT_DESIGN)
    parser.add_argument("--base", default=DEFAULT_BASE, help="the Base model that clones it (default: %(default)s)")
    parser.set_defaults(run=design)
    return parser


def design(args: argparse.Namespace) -> None:
    """Speak a reference in a designed voice, and clone it. The two models are loaded one after the other."""
    path = check_arguments(args)
    reference = speak_reference(args)
    speech = reference.speech
    note(f"reference: {reference.seconds:.2f} s, seed {speech.seed}: {reference.text}")
    if args.output is not None:
        speech.save(args.output)
        note(f"{args.output}: the reference")
    if path is None:
        return
    base = Qwen3TTS.from_pretrained(args.base, args.dtype, progress=True)
    voice = base.clone_reference(reference)
    for warning in voice.warnings:
        note(f"warning: {warning}")
    voice.save(path, replace=args.force)
    note(f"{path}: a voice for {base.name}; say --voice {path.stem!r} speaks in it")


def check_arguments(args: argparse.Namespace) -> Path | None:
    """Return the file of the voice, None if it is not kept. Raises an error before a model is loaded."""
    if args.save_as is None and args.output is None:
        raise RequestError("--save-as NAME keeps the voice, and -o FILE writes the reference: give one of them or both")
    if args.save_as is None and args.force:
        raise RequestError("--force has no effect without --save-as; leave it out")
    if args.output is not None:
        check_writable(args.output)
    if args.save_as is None:
        return None
    path = path_to_save(args.save_as, args.force)
    with resolve(args.base, progress=True, files=CONFIG_FILES) as directory:
        check_cloning(read_config(directory))
    return path


def speak_reference(args: argparse.Namespace) -> DesignedReference:
    """Return the reference; its model is unloaded."""
    tts = Qwen3TTS.from_pretrained(args.model or DEFAULT_DESIGN, args.dtype, progress=True, revision=args.revision)
    try:
        return tts.design_reference(args.description, args.text, args.language, args.seed)
    finally:
        tts.unload()
