"""`say`: speak a text into the loudspeaker, a file or a pipe.

arguments ─ Request (checked before a model is loaded) ─ Qwen3TTS.stream_attempts, text by text ─ SpeechOutput
"""

import argparse
import secrets
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from ..audio.formats import NAMES
from ..audio.player import OpenStream, Player, open_device
from ..audio.write import check_writable, open_writer
from ..capabilities import check_request
from ..demo.registry import NOTES
from ..errors import AudioError, PlaybackError, RequestError
from ..request import Request
from ..text.feed import EMPTY_TEXT
from ..text.segment import ParagraphSplitter, decode_pieces
from ..tts import Qwen3TTS
from .batch import (
    add_batch,
    batch_size_of,
    check_batch,
    seed_of_text,
    speak_side_by_side,
)
from .console import note
from .lines import read_lines, speak_lines
from .options import (
    add_adapter,
    add_clip,
    add_model,
    add_options,
    add_sampling,
    check_reference,
    clip_options,
    given_options,
    make_voice,
    sampling_from,
    warm_up,
)
from .output import SpeechOutput, open_output
from .parser import CommandParser, Commands
from .speaker import (
    check_released,
    configured_language,
    configured_voice,
    default_voice_notice,
    find_voice,
    fit_settings,
    from_library,
    model_for,
)
from .spoken_text import STANDARD_INPUT, settle_text, source_of, text_pieces
from .voices import list_voices

DEFAULT_OUTPUT = "speech.wav"
LIST = "?"  # as --voice
OWN_SPEED = "the model has a speed of its own; --instruct asks 1.7B-CustomVoice for another, and `book` has --speed"

# What --help shows; the rest is for --help-all.
FIRST = (
    "text", "voice", "output", "file", "model", "language", "instruct", "seed", "play", "ref_audio", "ref_text",
)  # fmt: skip


def add_say(commands: Commands) -> argparse.ArgumentParser:
    parser: CommandParser = commands.add_parser(
        "say",
        help="speak a text",
        description="Speak a text. --help-all shows all options.",
        usage="%(prog)s [TEXT ...] [-v VOICE] [-o FILE] [-f FILE] [options]",
    )
    parser.add_argument(
        "text",
        nargs="*",
        metavar="TEXT",
        help="what to say; without it, or with -, standard input is spoken as it comes, paragraph by paragraph",
    )
    first = parser.add_argument_group("what matters most")
    add_options(first, Request, only=["voice"])
    first.add_argument("-o", "--output", metavar="FILE", help=f"{NAMES} by its suffix; - streams a WAV (default: play)")
    first.add_argument("-f", "--file", metavar="FILE", help="speak a text file")
    model = parser.add_argument_group("model")
    add_model(first, "0.6B, or the one that a saved voice or an adapter needs", details=model)
    add_options(first, Request, only=["language"])
    add_adapter(model)
    speech = parser.add_argument_group("speech")
    add_options(speech, Request, only=["instruct", "seed"])
    output = parser.add_argument_group("output")
    output.add_argument("--play", action="store_true", help="play it as well if -o writes a file")
    output.add_argument("--device", metavar="NAME", help="output device, by a part of its name or by its number")
    output.add_argument("--stats", action="store_true", help="print time to first audio, memory, underruns")
    clip = parser.add_argument_group("cloning in one go")
    clip.add_argument("--ref-audio", metavar="FILE", help="a clip of the voice to speak in")
    clip.add_argument("--ref-text", metavar="TEXT", help="what the clip says; without it only its timbre is taken")
    add_clip(clip)
    add_batch(parser.add_argument_group("several texts"))
    details = parser.add_argument_group("text, limits and chunks")
    add_options(details, Request, skip=["text", "voice", "language", "instruct", "seed"])
    add_sampling(parser)
    parser.show_first(*FIRST)
    parser.answer("-r", "--rate", "--speed", text=OWN_SPEED)
    parser.set_defaults(run=say, usage_error=parser.error)
    return parser


def say(args: argparse.Namespace) -> None:
    """Speak a text into a file, a pipe or the loudspeaker, or each line of a file into a file of its own."""
    if args.voice == LIST:
        list_voices(args.model, args.revision, args.adapter)
        return
    settle_text(args)
    check_arguments(args)
    check_batch(args)
    pieces = text_pieces(args)
    request = request_from(args)
    lines = read_lines(args.lines) if args.lines else []
    target = None if args.lines else find_target(args)
    model = model_for(args, request.voice, clones=args.ref_audio is not None)
    check_released(model, args, request.voice)
    tts = Qwen3TTS.from_pretrained(model, args.dtype, progress=True, revision=args.revision, adapter=args.adapter)
    request = with_voice(tts, fit_settings(tts, request, args), args)
    check_request(request, tts.config)
    for line in (target and target.notice, default_voice_notice(tts, request.voice, args), NOTES.get(tts.name)):
        if line:
            note(line)
    warm_up(tts, batch_size_of(args))
    if target is None:
        speak_lines(tts, lines, request, args.out_dir, args.out_format or "wav", batch_size_of(args))
        return
    texts: Iterable[str | Iterator[str]] = [args.text]
    if pieces is not None:
        texts = ParagraphSplitter(decode_pieces(pieces, source_of(args)))
    output = open_target(tts, target, request)
    if args.batch is None:
        speak(tts, texts, request, output, args.stats)
    else:
        speak_side_by_side(tts, texts, request, output, args.batch, args.stats)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise an error for arguments that exclude each other or need another one."""
    if args.ref_audio is not None and args.voice is not None:
        raise RequestError("--ref-audio and --voice both name a voice; leave one out")
    if args.ref_audio is None and (args.ref_text is not None or clip_options(args)):
        raise RequestError("--ref-text and the options for the clip need --ref-audio")
    if args.ref_audio is not None and args.adapter is not None:
        raise RequestError("--adapter has voices of its own, and its model cannot clone one: leave --ref-audio out")
    if args.ref_audio is not None:
        check_reference(args.ref_audio, args.ref_text, **clip_options(args))


def request_from(args: argparse.Namespace) -> Request:
    """Return the request of a command line. Raises RequestError."""
    values = given_options(args, Request)
    values["voice"] = find_voice(args.voice or configured_voice(args), args.model or args.adapter)
    values["language"] = configured_language(args)
    values["sampling"] = sampling_from(args)
    if args.text == STANDARD_INPUT:
        values["text"] = iter(())  # each paragraph takes its place
        if args.seed is None:
            values["seed"] = secrets.randbits(32)
    elif args.lines is not None:
        values["text"] = args.lines  # each line takes its place
    return Request(**values)


def with_voice(tts: Qwen3TTS, request: Request, args: argparse.Namespace) -> Request:
    """Return the request with the voice that only the loaded model can make or choose."""
    if args.ref_audio is not None:
        return replace(request, voice=make_voice(tts, args.ref_audio, args.ref_text, args))
    if tts.model_type == "base" and isinstance(request.voice, str):
        return replace(request, voice=from_library(request.voice))
    return request


@dataclass(frozen=True)
class Target:
    """Where the speech goes."""

    path: str | None  # a file, or "-" for standard output
    open_stream: OpenStream | None  # opens the loudspeaker
    notice: str = ""  # a line for the user


def find_target(args: argparse.Namespace) -> Target:
    """Return the file that was named, and the loudspeaker if it is asked for or nothing else is.

    If neither a file nor a device was named and there is no device, the speech goes to a file of the default name.
    Raises AudioError, PlaybackError, and RequestError for arguments that exclude each other.
    """
    if args.output == "-" and (sys.stdout is None or sys.stdout.isatty()):
        kind = "closed" if sys.stdout is None else "a terminal"
        raise AudioError(f"standard output is {kind}: there is nowhere to write the audio; send it to a program")
    if args.output is not None and args.output != "-":
        check_writable(args.output)
    if args.output is not None and not args.play:
        if args.device is not None:
            raise RequestError("--device says where to play, and -o that a file is written; add --play for both")
        return Target(args.output, None)
    try:
        return Target(args.output, open_device(args.device))
    except PlaybackError as error:
        if args.play or args.device is not None:
            raise
        check_writable(DEFAULT_OUTPUT)
        reason = str(error).split(":")[0]
        notice = f"{reason}: the speech goes to {DEFAULT_OUTPUT} (-o names another file)"
        return Target(DEFAULT_OUTPUT, None, notice)


def open_target(tts: Qwen3TTS, target: Target, request: Request) -> SpeechOutput:
    """Open the file and the loudspeaker. Raises AudioError and PlaybackError."""
    writer = player = None
    name = "played"
    if target.open_stream is not None:
        frame = tts.codec.samples_per_frame / tts.sample_rate
        player = Player(tts.sample_rate, target.open_stream, [frame * size for size in request.chunk_sizes])
    if target.path == "-":
        name = "standard output"
        writer = open_writer(sys.stdout.buffer, tts.sample_rate)
    elif target.path is not None:
        name = target.path
        writer = open_writer(target.path, tts.sample_rate)
    return SpeechOutput(name, writer, player)


def speak(
    tts: Qwen3TTS, texts: Iterable[str | Iterator[str]], request: Request, output: SpeechOutput, stats: bool = False
) -> None:
    """Speak one text after the other with the options of `request`.

    Each text has the next seed, the first one the request's own; max_frames counts for all of them together. A runaway
    is spoken again if the request has no seed and nobody has heard it.
    """
    count = 0
    try:
        with open_output(output) as bar:
            for text in texts:
                one = request_for_text(request, text, count, output.progress.frames)
                if one.seed is None and not output.can_restart:
                    one = replace(one, seed=secrets.randbits(32))
                speak_text(tts, one, output, bar)
                count += 1
                if output.progress.frames == request.max_frames:
                    break
            if count == 0:
                raise RequestError(EMPTY_TEXT)
    finally:
        output.report(stats)


def request_for_text(request: Request, text: str | Iterator[str], number: int, frames: int) -> Request:
    """Return the request for text `number`, after `frames` frames of the texts before it."""
    changes: dict[str, Any] = {"text": text}
    if request.seed is not None:
        changes["seed"] = seed_of_text(request.seed, number)
    if request.max_frames is not None:
        changes["max_frames"] = request.max_frames - frames
    return replace(request, **changes)


def speak_text(tts: Qwen3TTS, request: Request, output: SpeechOutput, bar: tqdm) -> None:
    """Write and play the speech of one request."""
    known_text = request.text if isinstance(request.text, str) else None
    output.begin_text(known_text, request.max_frames)
    attempt = 0
    for number, chunk in tts.stream_attempts(request):
        if number > attempt:
            attempt = number
            first_seed = output.progress.seed
            note(
                f"the speech ran on after its text (seed {first_seed}): generating it once more, with seed {chunk.seed}"
            )
            output.restart()
            output.begin_text(known_text, request.max_frames)
        output.write(chunk)
        bar.set_description_str(str(output.progress))
