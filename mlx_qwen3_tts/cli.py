"""The command line: `mlx-qwen3-tts say | clone | voices | demo`. One sub-command is one function, its parser beside it.

Results go to files or standard output, everything else to standard error. Exit code 0: done; 1: an error, told in one
line; 2: a wrong option; 130: interrupted.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

from . import __version__, prompt, voice
from .audio import AudioWriter, check_clip_file, check_writable
from .errors import AudioError, DownloadError, PlaybackError, Qwen3TTSError, RequestError, VoiceError
from .live_text import EMPTY_TEXT, decode_pieces, paragraphs
from .load import CONFIG_FILES, DTYPES, read_config, resolve
from .model import CHUNK_FRAMES, Qwen3TTS
from .outlet import Outlet, note, putting
from .player import OpenStream, Player, open_device
from .prompt import Request
from .sampling import Sampling
from .voice import VoiceClonePrompt

DEFAULT_MODEL = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
DEFAULT_BASE = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"
DEFAULT_OUTPUT = "speech.wav"
DEMO_TEXT = "Hello world, this is a voice."
DEMO_NOTE = "the demo's weights are random: it babbles, and is no measure of Qwen3-TTS's voices"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="mlx-qwen3-tts", description="Qwen3-TTS on MLX: text in, speech out.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (add_say, add_clone, add_voices, add_demo):
        add(commands).add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    try:
        args.run(args)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has left
        return 1
    except (Qwen3TTSError, OSError) as error:
        if args.debug:
            raise
        note(f"mlx-qwen3-tts: error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


# --- say ---


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
    )
    prompt.check_values(request)
    if args.ref_audio is not None:
        check_reference(args, args.ref_audio, args.ref_text)
    output, open_stream = find_output(args)
    if args.model is None and isinstance(chosen, VoiceClonePrompt):
        note(f"model: {model_for(args, chosen)} (the one that the voice was made with; --model takes another)")
    tts = Qwen3TTS.from_pretrained(model_for(args, chosen), args.dtype, progress=True)
    if args.ref_audio is not None:
        request = replace(request, voice=make_voice(tts, args.ref_audio, args.ref_text, args))
    elif tts.model_type == "base" and isinstance(chosen, str):
        request = replace(request, voice=from_library(chosen))
    prompt.check(request, tts.config)
    if chosen is None and tts.default_speaker:
        note(f"voice: {tts.default_speaker} (the default; `mlx-qwen3-tts voices` lists the others)")
    if tts.name.startswith("demo"):
        note(DEMO_NOTE)
    texts = paragraphs(decode_pieces(read_pipe())) if args.text == "-" else [args.text]
    speak(tts, texts, request, args.chunk_frames, open_outlet(tts, output, open_stream, args.chunk_frames), args.stats)


def model_for(args: argparse.Namespace, chosen: str | VoiceClonePrompt | None) -> str:
    """The model that was named, or the one that the voice asks for."""
    if args.model is not None:
        return args.model
    if isinstance(chosen, VoiceClonePrompt):
        return chosen.provenance.get("model") or DEFAULT_BASE
    return DEFAULT_MODEL if args.ref_audio is None else DEFAULT_BASE


def find_output(args: argparse.Namespace) -> tuple[str | None, OpenStream | None]:
    """The file that was named, and what opens the loudspeaker: where it is asked for, or nothing else is.

    With neither a file nor a device named, and no device there, a file of the default name takes the speech.
    """
    if args.output == "-" and (sys.stdout is None or sys.stdout.isatty()):
        kind = "closed" if sys.stdout is None else "a terminal"
        raise AudioError(f"standard output is {kind}: there is nowhere to write the audio; send it to a program")
    if args.output is not None and args.output != "-":
        check_writable(args.output)
    if args.output is not None and not args.play:
        if args.device is not None:
            raise RequestError("--device says where to play, and -o that a file is written; add --play for both")
        return args.output, None
    try:
        return args.output, open_device(args.device)
    except PlaybackError as error:
        if args.play or args.device is not None:
            raise
        note(f"{str(error).split(':')[0]}: the speech goes to {DEFAULT_OUTPUT} (-o names another file)")
        check_writable(DEFAULT_OUTPUT)
        return DEFAULT_OUTPUT, None


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
) -> None:
    """Speak one text after the other, each with the next seed; the first has the request's own.

    max_frames of the request counts for all of them together.
    """
    spoken = 0
    try:
        with putting(outlet) as bar:
            for text in texts:
                limit = None if request.max_frames is None else request.max_frames - outlet.frames
                options = {field.name: getattr(request, field.name) for field in fields(Request)}
                options |= {"text": text, "seed": request.seed + spoken, "max_frames": limit}
                chunks = tts.stream(**options, chunk_frames=chunk_frames)
                outlet.put(chunks, text if isinstance(text, str) else None, limit, bar)
                spoken += 1
                if outlet.frames == request.max_frames:
                    break
            if not spoken:
                raise RequestError(EMPTY_TEXT)
    finally:
        outlet.report(request.seed, stats)


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
    if model is None and prompt.match(name, voice.library_names()):
        return from_library(name)
    return name


def from_library(name: str) -> VoiceClonePrompt:
    """A voice of the library, whatever the capitals of its name. Raises VoiceError."""
    known = prompt.match(name, voice.library_names())
    if known is None:
        raise VoiceError(f"there is no voice {name!r} in your library ({voice.library()}); `voices` lists it")
    return VoiceClonePrompt.load(voice.library_path(known))


# --- clone and voices ---


def add_clone(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "clone", help="make a voice from a clip", description="Make a voice from a clip, with a Base model."
    )
    parser.add_argument("audio", help="the clip: wav, flac, ogg or mp3, of any rate; 3 to 15 s of speech are best")
    parser.add_argument("--text", help="what the clip says; without it only its timbre is taken")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", metavar="FILE", help="the voice file to write (.safetensors)")
    target.add_argument("--save-as", metavar="NAME", help="keep it in your library: `say --voice NAME` finds it")
    parser.add_argument("--force", action="store_true", help="replace a voice of that name")
    add_model(parser, DEFAULT_BASE)
    add_clip(parser)
    parser.set_defaults(run=clone)
    return parser


def clone(args: argparse.Namespace) -> None:
    """Make a voice from a clip and keep it."""
    check_reference(args, args.audio, args.text)
    path = Path(args.output) if args.save_as is None else voice.library_path(args.save_as)
    if args.save_as is not None and path.exists() and not args.force:
        raise VoiceError(f"there is a voice {args.save_as!r} already; --force replaces it")
    if path.suffix != ".safetensors":
        raise VoiceError(f"cannot write {path}: the name of a voice file ends in .safetensors")
    if args.save_as is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise VoiceError(f"cannot write {path}: {path.parent} is no directory that can be written to")
    tts = Qwen3TTS.from_pretrained(DEFAULT_BASE if args.model is None else args.model, args.dtype, progress=True)
    made = make_voice(tts, args.audio, args.text, args)
    made.save(path)
    frames = 0 if made.ref_codes is None else len(made.ref_codes)
    seconds = made.provenance["seconds"]
    note(f"{path}: a voice from {seconds} s of audio, {frames} frames of reference codes")


def check_reference(args: argparse.Namespace, audio: str, text: str | None) -> None:
    """Refuse a clip and a transcript that no model could take, before one is loaded."""
    prompt.check_reference_text(text)
    check_clip_file(audio, 120.0 if args.max_ref_seconds is None else args.max_ref_seconds)


def make_voice(tts: Qwen3TTS, audio: str, text: str | None, args: argparse.Namespace) -> VoiceClonePrompt:
    """tts.clone_voice with the options of the clip; what is odd about it is told on standard error."""
    made = tts.clone_voice(audio, text, **clip_options(args))
    for warning in made.warnings:
        note(f"warning: {warning}")
    if text is None:
        note("no transcript was given: the voice is its timbre alone (speaker embedding); with one it is closer")
    return made


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
        path = voice.library_path(prompt.match(args.remove, voice.library_names()) or args.remove)
        if not path.exists():
            raise VoiceError(f"there is no voice {args.remove!r} in {path.parent}")
        path.unlink()
        note(f"removed {path}")
        return
    kept = voice.library_names()
    for name in kept:
        emit(f"cloned    {name}  {describe(voice.library_path(name))}")
    try:
        with resolve(args.model or DEFAULT_MODEL, progress=True, files=CONFIG_FILES) as directory:
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


def emit(line: str) -> None:
    """Print a line of a result."""
    if sys.stdout is None:
        raise AudioError("standard output is closed: there is nowhere to write the list")
    print(line)  # noqa: T201


# --- demo ---


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


# --- options that commands share ---


def add_model(parser: argparse.ArgumentParser, default: str, dtype: bool = True) -> None:
    parser.add_argument("--model", help=f"checkpoint directory, hub id, 'demo' or 'demo-base' (default: {default})")
    if dtype:
        parser.add_argument(
            "--dtype", choices=list(DTYPES), help="default: the checkpoint's on a GPU, float32 on the CPU"
        )


def add_clip(parser: argparse._ActionsContainer) -> None:
    """How a reference clip is taken; the names are those of Qwen3TTS.clone_voice."""
    parser.add_argument("--trim-silence", action="store_true", help="cut silence off both ends of the clip")
    parser.add_argument(
        "--ref-tail",
        type=float,
        metavar="SECONDS",
        help="silence put behind the clip before it is encoded (default: 0, as the official code). 0.5 helps where the "
        "speech begins with the clip's last sound",
    )
    parser.add_argument("--max-ref-seconds", type=float, metavar="SECONDS", help="refuse a longer clip (default: 120)")


def clip_options(args: argparse.Namespace) -> dict[str, float | bool]:
    """Those that were given."""
    given = {"trim": args.trim_silence or None, "tail": args.ref_tail, "max_seconds": args.max_ref_seconds}
    return {name: value for name, value in given.items() if value is not None}


def frame_counts(text: str) -> tuple[int, ...]:
    """ "1,1,2" as numbers above 0."""
    counts = tuple(int(part) for part in text.split(","))
    if min(counts) < 1:
        raise ValueError(text)
    return counts


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
