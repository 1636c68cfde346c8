"""`say`: speak a text into the loudspeaker, a file or a pipe.

arguments ─ Request (checked before a model is loaded) ─ Qwen3TTS.stream, text by text ─ Outlet
"""

import argparse
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace

from ..audio.player import OpenStream, Player, open_device
from ..audio.write import AudioWriter, check_writable
from ..demo.registry import NOTES
from ..errors import AudioError, PlaybackError, RequestError, VoiceError
from ..evaluation.op_count import can_compile
from ..generation import prompt
from ..generation.prompt import Request
from ..generation.runaway import retry_seed
from ..text.feed import EMPTY_TEXT
from ..text.segment import decode_pieces, paragraphs
from ..tts import CHUNK_FRAMES, Qwen3TTS
from ..voice import VoiceClonePrompt
from ..voice_library import library, library_names, library_path
from .console import note
from .options import (
    DEFAULT_BASE,
    DEFAULT_MODEL,
    add_clip,
    add_model,
    add_sampling,
    check_reference,
    clip_options,
    make_voice,
    sampling_from,
)
from .output import Outlet, putting

DEFAULT_OUTPUT = "speech.wav"
SEEDS = 2**63  # the seed after the last is the first


def add_say(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser("say", help="speak a text", description="Speak a text.")
    parser.add_argument("text", help="what to say; - speaks standard input as it comes, paragraph by paragraph")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="wav, flac, ogg or mp3 by its suffix; - streams a WAV to standard output (default: play)",
    )
    parser.add_argument("--play", action="store_true", help="play it as well where -o writes a file")
    parser.add_argument("--device", metavar="NAME", help="output device, by a part of its name or by its number")
    parser.add_argument("--stats", action="store_true", help="time to first audio, memory, underruns")
    parser.add_argument(
        "--chunk-frames",
        type=frame_counts,
        default=CHUNK_FRAMES,
        metavar="N,...",
        help="frames in the first chunks, the last number for all further ones (default: 1,1,2,4,8)",
    )
    add_model(parser, f"{DEFAULT_MODEL}; for a cloned voice the model that it was made with")
    parser.add_argument("--voice", help="a preset voice, a voice of your library, or a voice file (see `voices`)")
    parser.add_argument("--language", help="language of the text (default: auto)")
    parser.add_argument("--instruct", help="how to speak, or a description of the voice (VoiceDesign)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same audio")
    parser.add_argument("--max-frames", type=int, metavar="N", help="at most N frames of 80 ms in all")
    parser.add_argument(
        "--frames-per-token",
        type=float,
        metavar="N",
        help="where --max-frames is not given, a text may take 250 frames and N more for each of its tokens "
        "(default: 12, some 3 times what speech takes)",
    )
    parser.add_argument(
        "--stop-runaway",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end speech that goes on in silence or in a cycle after its text (default). Without --seed, a TEXT that "
        "is written to a file is then made once more. --no-stop-runaway: as the official code, without that limit too",
    )
    parser.add_argument(
        "--non-streaming-mode",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the whole text before the first frame (default), or one text token a frame (default for -)",
    )
    clip = parser.add_argument_group("cloning in one go")
    clip.add_argument("--ref-audio", metavar="FILE", help="a clip of the voice to speak in")
    clip.add_argument("--ref-text", metavar="TEXT", help="what the clip says; without it only its timbre is taken")
    add_clip(clip)
    add_sampling(parser)
    parser.set_defaults(run=say)
    return parser


def frame_counts(text: str) -> tuple[int, ...]:
    """ "1,1,2" as numbers above 0."""
    counts = tuple(int(part) for part in text.split(","))
    if min(counts) < 1:
        raise ValueError(text)
    return counts


def say(args: argparse.Namespace) -> None:
    """Speak a text into a file, a pipe or the loudspeaker."""
    if args.ref_audio is not None and args.voice is not None:
        raise RequestError("--ref-audio and --voice both name a voice; leave one out")
    if args.ref_audio is None and (args.ref_text is not None or clip_options(args)):
        raise RequestError("--ref-text and the options for the clip need --ref-audio")
    if args.text == "-" and sys.stdin is None:
        raise RequestError("standard input is closed: there is no text to read")
    chosen = find_voice(args.voice, args.model)
    request = Request(
        text=iter(()) if args.text == "-" else args.text,
        voice=chosen,
        language=args.language,
        instruct=args.instruct,
        seed=secrets.randbits(32) if args.seed is None else args.seed,
        sampling=sampling_from(args),
        max_frames=args.max_frames,
        non_streaming_mode=args.non_streaming_mode,
        frames_per_token=args.frames_per_token,
        stop_runaway=args.stop_runaway,
    )
    prompt.check_values(request)
    if args.ref_audio is not None:
        check_reference(args.ref_audio, args.ref_text, **clip_options(args))
    output, open_stream, why = find_output(args)
    if args.model is None and isinstance(chosen, VoiceClonePrompt):
        note(f"model: {model_for(args, chosen)} (the one that the voice was made with; --model takes another)")
    tts = Qwen3TTS.from_pretrained(model_for(args, chosen), args.dtype, progress=True, revision=args.revision)
    if args.ref_audio is not None:
        request = replace(request, voice=make_voice(tts, args.ref_audio, args.ref_text, args))
    elif tts.model_type == "base" and isinstance(chosen, str):
        request = replace(request, voice=from_library(chosen))
    prompt.check(request, tts.config)
    if why:
        note(why)
    if chosen is None and tts.default_speaker:
        note(f"voice: {tts.default_speaker} (the default; `mlx-qwen3-tts voices` lists the others)")
    if tts.name in NOTES:
        note(NOTES[tts.name])
    if not can_compile():
        note("MLX finds no C++ compiler (g++) here: the speech is the same, and takes longer to make")
    texts = paragraphs(decode_pieces(read_pipe())) if args.text == "-" else [args.text]
    outlet = open_outlet(tts, output, open_stream, args.chunk_frames)
    again = args.seed is None and args.text != "-" and outlet.can_start_over
    speak(tts, texts, request, args.chunk_frames, outlet, args.stats, again)


def model_for(args: argparse.Namespace, chosen: str | VoiceClonePrompt | None) -> str:
    """The model that was named, or the one that the voice asks for."""
    if args.model is not None:
        return args.model
    if isinstance(chosen, VoiceClonePrompt):
        return chosen.provenance.get("model") or DEFAULT_BASE
    return DEFAULT_MODEL if args.ref_audio is None else DEFAULT_BASE


def find_output(args: argparse.Namespace) -> tuple[str | None, OpenStream | None, str]:
    """The file that was named, and what opens the loudspeaker: where it is asked for, or nothing else is.

    With neither a file nor a device named, and no device there, a file of the default name takes the speech; the third
    value says so.
    """
    if args.output == "-" and (sys.stdout is None or sys.stdout.isatty()):
        kind = "closed" if sys.stdout is None else "a terminal"
        raise AudioError(f"standard output is {kind}: there is nowhere to write the audio; send it to a program")
    if args.output is not None and args.output != "-":
        check_writable(args.output)
    if args.output is not None and not args.play:
        if args.device is not None:
            raise RequestError("--device says where to play, and -o that a file is written; add --play for both")
        return args.output, None, ""
    try:
        return args.output, open_device(args.device), ""
    except PlaybackError as error:
        if args.play or args.device is not None:
            raise
        check_writable(DEFAULT_OUTPUT)
        why = f"{str(error).split(':')[0]}: the speech goes to {DEFAULT_OUTPUT} (-o names another file)"
        return DEFAULT_OUTPUT, None, why


def open_outlet(
    tts: Qwen3TTS, output: str | None, open_stream: OpenStream | None, chunk_frames: Sequence[int]
) -> Outlet:
    writer = player = None
    if open_stream is not None:
        frame = tts.codec.samples_per_frame / tts.sample_rate
        player = Player(tts.sample_rate, open_stream, [frame * count for count in chunk_frames])
    if output is not None:
        writer = AudioWriter(sys.stdout.buffer if output == "-" else output, tts.sample_rate)
    name = {None: "played", "-": "standard output"}.get(output, output)
    return Outlet(name, tts.sample_rate, writer, player)


def speak(
    tts: Qwen3TTS,
    texts: Iterable[str | Iterator[str]],
    request: Request,
    chunk_frames: Sequence[int],
    outlet: Outlet,
    stats: bool,
    again: bool = False,
) -> None:
    """Speak one text after the other, each with the next seed; the first has the request's own.

    max_frames of the request counts for all of them together. again: a runaway is taken back and made once more.
    """
    spoken = 0
    try:
        with putting(outlet) as bar:
            for text in texts:
                limit = None if request.max_frames is None else request.max_frames - outlet.frames
                options = {field.name: getattr(request, field.name) for field in fields(Request)}
                options |= {"text": text, "max_frames": limit, "chunk_frames": chunk_frames}
                seed, whole = (request.seed + spoken) % SEEDS, text if isinstance(text, str) else None
                outlet.put(tts.stream(**options | {"seed": seed}), whole, limit, bar)
                if again and outlet.finish_reason == "runaway":
                    seed, first = retry_seed(seed), seed
                    note(f"the speech ran on after its text (seed {first}): making it once more, with seed {seed}")
                    outlet.start_over()
                    outlet.put(tts.stream(**options | {"seed": seed}), whole, limit, bar)
                spoken += 1
                if outlet.frames == request.max_frames:
                    break
            if not spoken:
                raise RequestError(EMPTY_TEXT)
    finally:
        outlet.report(request.seed if outlet.seed is None else outlet.seed, stats)


def read_pipe() -> Iterator[bytes]:
    """Standard input, piece by piece as it comes."""
    os.set_blocking(sys.stdin.fileno(), True)
    while piece := os.read(sys.stdin.fileno(), 65536):
        yield piece


def find_voice(name: str | None, model: str | None) -> str | VoiceClonePrompt | None:
    """A voice file, or a voice of the library where no model is named that might have a preset voice of that name."""
    if name is None:
        return None
    if name.endswith(".safetensors") or os.sep in name:
        return VoiceClonePrompt.load(name)
    if model is None and prompt.match(name, library_names()):
        return from_library(name)
    return name


def from_library(name: str) -> VoiceClonePrompt:
    """A voice of the library, whatever the capitals of its name. Raises VoiceError."""
    known = prompt.match(name, library_names())
    if known is None:
        raise VoiceError(f"there is no voice {name!r} in your library ({library()}); `voices` lists it")
    return VoiceClonePrompt.load(library_path(known))
