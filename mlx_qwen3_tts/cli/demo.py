"""`demo`: the time of day, by the built-in checkpoint, offline and at once."""

import argparse
from datetime import datetime

from ..audio.player import open_device
from ..audio.write import check_writable
from ..demo.clock import time_of_day
from ..demo.registry import NOTES
from ..errors import PlaybackError
from ..generation.prompt import Request
from ..tts import CHUNK_FRAMES, Qwen3TTS
from .console import note
from .say import open_outlet, speak


def add_demo(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "demo", help="hear the time, offline and with no download", description=f"Says the time; {NOTES['demo']}."
    )
    parser.add_argument("-o", "--output", default="demo.wav", metavar="FILE", help="default: %(default)s")
    parser.set_defaults(run=demo)
    return parser


def demo(args: argparse.Namespace) -> None:
    """Say the time, into a file and, where there is one, the loudspeaker."""
    check_writable(args.output)
    try:
        open_stream = open_device()
    except PlaybackError:
        open_stream = None
    tts = Qwen3TTS.from_pretrained("demo")
    note(NOTES["demo"])
    now = datetime.now()
    text = f"Hello. {time_of_day(now.hour, now.minute)}"
    note(text)
    outlet = open_outlet(tts, args.output, open_stream, CHUNK_FRAMES)
    speak(tts, [text], Request(text, language="english", seed=7), CHUNK_FRAMES, outlet, stats=False)
