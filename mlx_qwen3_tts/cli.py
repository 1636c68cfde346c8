"""The command line: `mlx-qwen3-tts say | voices | demo`. One sub-command is one function, with its parser beside it.

Results go to files or standard output, everything else to standard error. Exit code 0: done; 1: an error, told in one
line; 2: a wrong option; 130: interrupted.
"""

import argparse
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import get_type_hints

import soundfile
from tqdm import tqdm

from . import __version__
from .audio import check_writable
from .errors import Qwen3TTSError, RequestError
from .load import DTYPES
from .model import Qwen3TTS
from .result import SynthesisResult
from .sampling import Sampling

DEFAULT_MODEL = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
DEFAULT_OUTPUT = "speech.wav"
DEMO_TEXT = "Hello world, this is a voice."
DEMO_NOTE = "the demo's weights are random: it babbles, and is no measure of Qwen3-TTS's voices"


def note(message: str) -> None:
    """Tell the user something, on standard error."""
    print(message, file=sys.stderr)  # noqa: T201


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="mlx-qwen3-tts", description="Qwen3-TTS on MLX: text in, speech out.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (add_say, add_voices, add_demo):
        add(commands).add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except Qwen3TTSError as error:
        if args.debug:
            raise
        note(f"mlx-qwen3-tts: error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left: there is nobody to tell
        return 1
    return 0


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="checkpoint directory, hub id, or 'demo' (default: %(default)s)",
    )
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: the checkpoint's on a GPU, float32 on the CPU")


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


def add_say(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser("say", help="speak a text", description="Speak a text.")
    parser.add_argument("text", help="what to say; - reads standard input")
    parser.add_argument(
        "-o",
        "--output",
        default=DEFAULT_OUTPUT,
        metavar="FILE",
        help="wav, flac, ogg or mp3 by its suffix; - writes a WAV to standard output (default: %(default)s)",
    )
    add_model(parser)
    parser.add_argument("--voice", help="a preset voice (see `mlx-qwen3-tts voices`)")
    parser.add_argument("--language", help="language of the text (default: auto)")
    parser.add_argument("--instruct", help="how to speak, or a description of the voice (VoiceDesign)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same audio")
    parser.add_argument("--max-frames", type=int, metavar="N", help="at most N frames of 80 ms")
    parser.add_argument(
        "--non-streaming-mode",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the whole text before the first frame (default), or one text token a frame",
    )
    add_sampling(parser)
    parser.set_defaults(run=say)
    return parser


def say(args: argparse.Namespace) -> None:
    """Speak a text into a file."""
    sampling = sampling_from(args)
    text = read_text() if args.text == "-" else args.text
    if not text.strip():
        raise RequestError("the text is empty: give at least one word to say")
    if args.output != "-":
        check_writable(args.output)
    tts = Qwen3TTS.from_pretrained(args.model, args.dtype, progress=True)
    if args.voice is None and tts.default_speaker:
        note(f"voice: {tts.default_speaker} (the default; --voice takes another, `mlx-qwen3-tts voices` lists them)")
    if args.model == "demo":
        note(DEMO_NOTE)
    result = synthesize(
        tts,
        text,
        voice=args.voice,
        language=args.language,
        instruct=args.instruct,
        seed=args.seed,
        sampling=sampling,
        max_frames=args.max_frames,
        non_streaming_mode=args.non_streaming_mode,
    )
    write(result, args.output)


def read_text() -> str:
    """All of standard input. Raises RequestError where it is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"standard input is not UTF-8 text (byte {error.start}); convert it first") from None


def synthesize(tts: Qwen3TTS, text: str, **options: object) -> SynthesisResult:
    """tts.synthesize with a progress bar on standard error, where that is a terminal."""
    received, frames, began = [], 0, time.perf_counter()
    with tqdm(bar_format="{desc}", disable=None, file=sys.stderr, leave=False) as bar:
        for chunk in tts.stream(text, **options):
            received.append(chunk)
            frames += len(chunk.codes)
            seconds = frames * tts.codec.samples_per_frame / tts.sample_rate
            speed = seconds / (time.perf_counter() - began)
            bar.set_description_str(f"{frames} frames, {seconds:.1f} s of audio, {speed:.2f}x real time")
    return SynthesisResult.from_chunks(received)


def write(result: SynthesisResult, output: str) -> None:
    """Write the audio to a file or to standard output, and tell what it is."""
    if output == "-":
        buffer = io.BytesIO()
        soundfile.write(buffer, result.audio, result.sample_rate, format="WAV", subtype="PCM_16")
        sys.stdout.buffer.write(buffer.getvalue())
        sys.stdout.buffer.flush()
    else:
        result.save(output)
    timing = result.timing
    ended = "" if result.finish_reason == "stop" else " (cut off at the frame limit)"
    note(
        f"{'standard output' if output == '-' else output}: {timing.frames} frames, {timing.audio_seconds:.2f} s of "
        f"audio{ended} in {timing.total:.2f} s, real-time factor {timing.real_time_factor:.2f}, seed {result.seed}"
    )


def add_voices(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser("voices", help="list voices and languages", description="List voices and languages.")
    add_model(parser)
    parser.set_defaults(run=voices)
    return parser


def voices(args: argparse.Namespace) -> None:
    """List a checkpoint's preset voices, with their dialects, and its languages."""
    tts = Qwen3TTS.from_pretrained(args.model, args.dtype, progress=True)
    dialects = tts.config.talker_config.spk_is_dialect
    for name in tts.speakers:
        default = " (default)" if name == tts.default_speaker else ""
        dialect = f" ({dialects[name]})" if dialects[name] else ""
        print(f"voice     {name}{dialect}{default}")  # noqa: T201
    if not tts.speakers:
        note(f"a {tts.model_type} model has no preset voices")
    for name in tts.languages:
        print(f"language  {name}")  # noqa: T201


def add_demo(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "demo",
        help="try the built-in miniature model, offline",
        description=f"Offline and at once; {DEMO_NOTE}.",
    )
    parser.add_argument("-o", "--output", default="demo.wav", metavar="FILE", help="default: %(default)s")
    parser.set_defaults(run=demo)
    return parser


def demo(args: argparse.Namespace) -> None:
    """Synthesize a sentence with the built-in checkpoint."""
    check_writable(args.output)
    tts = Qwen3TTS.from_pretrained("demo")
    note(DEMO_NOTE)
    write(synthesize(tts, DEMO_TEXT, language="english", seed=7, max_frames=40), args.output)
