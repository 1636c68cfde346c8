"""`demo`: a sentence from the built-in miniature model, offline and at once."""

import argparse

from ..audio import check_writable
from ..model import CHUNK_FRAMES, Qwen3TTS
from ..outlet import note
from ..prompt import Request
from .say import DEMO_NOTE, open_outlet, speak

DEMO_TEXT = "Hello world, this is a voice."


def add_demo(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "demo", help="try the built-in miniature model, offline", description=f"Offline and at once; {DEMO_NOTE}."
    )
    parser.add_argument("-o", "--output", default="demo.wav", metavar="FILE", help="default: %(default)s")
    parser.set_defaults(run=demo)
    return parser


def demo(args: argparse.Namespace) -> None:
    """Synthesize a sentence with the built-in checkpoint."""
    check_writable(args.output)
    tts = Qwen3TTS.from_pretrained("demo")
    note(DEMO_NOTE)
    request = Request(DEMO_TEXT, language="english", seed=7, max_frames=40)
    outlet = open_outlet(tts, args.output, None, CHUNK_FRAMES)
    speak(tts, [DEMO_TEXT], request, CHUNK_FRAMES, outlet, stats=False)
