"""`demo`: the time of day, by the built-in checkpoint, offline and at once."""

import argparse
from datetime import datetime

from ..audio.player import open_device
from ..audio.write import check_writable
from ..demo.clock import time_of_day
from ..demo.registry import NOTES
from ..errors import PlaybackError
from ..request import Request
from ..tts import Qwen3TTS
from .console import note
from .options import warm_up
from .parser import Commands
from .say import Target, open_target, speak


def add_demo(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "demo", help="hear the time, offline and with no download", description=f"Says the time; {NOTES['demo']}."
    )
    parser.add_argument("-o", "--output", default="demo.wav", metavar="FILE", help="default: %(default)s")
    parser.set_defaults(run=demo)
    return parser


def demo(args: argparse.Namespace) -> None:
    """Say the time, into a file and into the loudspeaker if there is one."""
    check_writable(args.output)
    try:
        target = Target(args.output, open_device())
    except PlaybackError:
        target = Target(args.output, None)
    tts = Qwen3TTS.from_pretrained("demo")
    note(NOTES["demo"])
    warm_up(tts)  # before the time is looked up, as it may take a while
    now = datetime.now()
    text = f"Hello. {time_of_day(now.hour, now.minute)}"
    note(text)
    request = Request(text, language="english", seed=7)
    speak(tts, [text], request, open_target(tts, target, request))
