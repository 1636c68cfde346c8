"""`book`: read a book, an article or a script aloud, into a file with chapters.

input ─ Document ─ Plan ─┬─ --list: chapters, lengths, what is left out
                         └─ Renderer ─► NAME.book/ (the segments) ─► NAME.m4b, subtitles
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..demo.registry import NOTES
from ..errors import BookError
from ..longform.assemble import SUBTITLES, check_output
from ..longform.check import ERROR_LIMIT
from ..longform.document import Document, read_document, select_chapters
from ..longform.make import Progress
from ..longform.manifest import Manifest
from ..longform.options import BookOptions
from ..longform.parts import Voice
from ..longform.plan import Plan, plan
from ..longform.render import Renderer, folder_beside
from ..tts import Qwen3TTS
from .console import emit, note, warnings_as_notes
from .options import (
    DEFAULT_MODEL,
    add_adapter,
    add_model,
    add_options,
    add_sampling,
    given_options,
    sampling_from,
    warm_up,
)
from .parser import Commands
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

SHOWN = 5  # notes and flaws that are printed; --list and the manifest have all
TEXT_SHOWN = 60  # characters of a segment


def add_book(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "book",
        help="read a book aloud",
        description="Read an EPUB, Markdown, HTML or text file aloud. The segments are kept in NAME.book beside the "
        "result: the same command goes on after an interruption, and makes only what has changed.",
    )
    parser.add_argument("input", help="the book: .epub, .md, .html, or plain text")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="m4b, m4a, mp3, opus, flac or wav by its suffix, or a folder for a file for each chapter (default: "
        "NAME.m4b in this directory)",
    )
    parser.add_argument("--out-format", metavar="FORMAT", help="of the files in a folder: mp3 (default), m4a, ...")
    parser.add_argument("--subtitles", choices=SUBTITLES, help="write subtitles beside the book")
    add_selection(parser)
    add_check(parser)
    add_model(parser, f"{DEFAULT_MODEL}; for a cloned voice or an adapter the model that it was made with")
    add_adapter(parser)
    add_options(parser.add_argument_group("reading"), BookOptions, skip=["sampling"])
    add_sampling(parser)
    parser.set_defaults(run=book, seed=None)  # None: the one that the book was begun with
    return parser


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which part of the book is meant."""
    parser.add_argument(
        "--list", action="store_true", help="list chapters, lengths and what is left out; speak nothing"
    )
    parser.add_argument("--chapters", metavar="N-N,N", help="read these chapters, such as 3-5,9")
    parser.add_argument("--chapter-pattern", metavar="REGEX", help="headings or lines that begin a chapter, as a whole")
    parser.add_argument(
        "--redo",
        action="append",
        default=[],
        metavar="CHAPTER:SEGMENT",
        help="make a segment once more, such as 3:17, with --seed or with the next seed; the rest is kept",
    )


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options of the recognizer."""
    parser.add_argument(
        "--check",
        metavar="COMMAND",
        help="a speech recognizer: a command that takes a WAV file as its last argument and prints what it hears. A "
        "segment that it hears wrongly is made again",
    )
    parser.add_argument(
        "--check-limit",
        type=float,
        metavar="P",
        help=f"the share of a segment's words that --check may hear wrongly (default: {ERROR_LIMIT:g})",
    )


def book(args: argparse.Namespace) -> None:
    """Read a book aloud, or list its chapters."""
    document = read_document(args.input, args.chapter_pattern)
    chapters = None if args.chapters is None else select_chapters(document, args.chapters)
    if args.list:
        options = options_from(args, None, 0)
        list_book(document, plan(document, options, chapters), options.speed)
        return
    target = Path(args.output or f"{Path(args.input).stem}.m4b")
    check_output(target, args.subtitles, args.out_format)
    folder = folder_beside(target, args.out_format)
    voice = find_voice(args.voice or configured_voice(args), args.model or args.adapter)
    seed, redo_seed = find_seeds(args, folder)
    options = options_from(args, voice, seed)
    planned = plan(document, options, chapters)
    model = model_for(args, voice)
    check_released(model, args, voice)
    tts = Qwen3TTS.from_pretrained(model, args.dtype, progress=True, revision=args.revision, adapter=args.adapter)
    options = fit_settings(tts, options, args)
    if tts.model_type == "base" and isinstance(options.voice, str):
        options = replace(options, voice=from_library(options.voice))
    renderer = Renderer(
        tts,
        planned,
        folder,
        options,
        voices=voices_of_script(tts, planned),
        redo=args.redo,
        redo_seed=redo_seed,
        check=args.check,
        check_limit=args.check_limit,
    )
    if renderer.team.is_main:
        introduce(tts, planned, options, args)
    run(renderer, target, args.subtitles, args.out_format)


def find_seeds(args: argparse.Namespace, folder: Path) -> tuple[int, int | None]:
    """Return the seed of the book, and that of the segments of --redo; --seed is one of the two."""
    begun = Manifest.load(folder).seed or 0
    if args.redo:
        return begun, args.seed
    if args.seed is None:
        return begun, None
    return args.seed, None


def options_from(args: argparse.Namespace, voice: Voice | None, seed: int) -> BookOptions:
    """Return the options of a command line. Raises RequestError."""
    values = given_options(args, BookOptions)
    values |= {"voice": voice, "language": configured_language(args), "seed": seed, "sampling": sampling_from(args)}
    return BookOptions(**values)


def voices_of_script(tts: Qwen3TTS, planned: Plan) -> dict[str, Voice]:
    """Return the cloned voices that a script names, if the model speaks in cloned voices. Raises VoiceError."""
    if tts.model_type != "base":
        return {}
    names = {segment.voice for segment in planned.segments if segment.voice is not None}
    found = {name: find_voice(name, tts.name) for name in sorted(names)}
    return {name: from_library(voice) if isinstance(voice, str) else voice for name, voice in found.items() if voice}


# What is printed


def list_book(document: Document, planned: Plan, speed: float) -> None:
    """Print the chapters with their lengths at a speed, and everything that is left out."""
    rows = [(str(n), planned.of_chapter(n), document.chapters[n - 1].title) for n in planned.chapters]
    for name, segments, title in [*rows, ("all", planned.segments, document.title)]:
        seconds = sum(one.pause_before + one.seconds / speed + one.pause_after for one in segments)
        emit(f"{name:>4}  {clock(seconds):>8}  {len(segments):>4} segments  {title}")
    for dropped in document.dropped:
        emit(f"left out of {dropped.chapter!r}: {dropped.kind}: {dropped.text}")
    for told in planned.notes:
        if told.kind != "left out":  # those are listed above, in full
            emit(f"note: {told}")


def introduce(tts: Qwen3TTS, planned: Plan, options: BookOptions, args: argparse.Namespace) -> None:
    """Say what is read and what is not."""
    for line in (default_voice_notice(tts, options.voice, args), NOTES.get(tts.name)):
        if line:
            note(line)
    for told in planned.notes[:SHOWN]:
        note(str(told))
    if len(planned.notes) > SHOWN:
        note(f"... and {len(planned.notes) - SHOWN} more notes; --list shows all")


def report(renderer: Renderer, target: Path, seconds: float) -> None:
    """Say what was written, and which segments seem wrong."""
    flaws = renderer.flaws
    for flaw in flaws:
        note(f"segment {flaw.place}: {flaw.problem}: {shorten(flaw.text)}")
    if flaws:
        note(
            f"{len(flaws)} of {len(renderer.parts)} segments seem wrong: --redo {flaws[0].place} makes one again, "
            "--seed N with that seed"
        )
    segments = counted(len(renderer.parts), "segment")
    chapters = counted(len(renderer.plan.chapters), "chapter")
    note(f"{target}: {clock(seconds)} in {segments}, {chapters}; the segments are kept in {renderer.folder}")


def counted(count: int, noun: str) -> str:
    """Return a number and a noun, such as "1 chapter" or "2 chapters"."""
    if count == 1:
        return f"{count} {noun}"
    return f"{count} {noun}s"


def clock(seconds: float) -> str:
    """Return a length as h:mm:ss or m:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes}:{seconds:02}"


def shorten(text: str) -> str:
    """Return the beginning of a text, on one line."""
    text = " ".join(text.split())
    if len(text) <= TEXT_SHOWN:
        return text
    return f"{text[: TEXT_SHOWN - 3]}..."


# Work


def run(renderer: Renderer, target: Path, subtitles: str | None, folder_format: str | None) -> None:
    """Make and write the book; Ctrl-C keeps what was made."""
    total = len(renderer.parts)
    if renderer.missing:
        made = total - len(renderer.missing)
        if made and renderer.team.is_main:
            note(f"{made} of {total} segments are made already")
        warm_up(renderer.tts, renderer.options.batch_size)
    last: Progress | None = None
    try:
        with warnings_as_notes(), progress_line(renderer.team.is_main) as bar:
            for last in renderer.run(target, subtitles, folder_format):
                bar.set_description_str(describe(last))
    except (KeyboardInterrupt, SystemExit):
        if renderer.team.is_main:
            made = total - len(renderer.missing)
            note(f"interrupted: {made} of {total} segments are kept in {renderer.folder}; the same command goes on")
        raise
    if renderer.team.is_main:
        if last is None:
            raise BookError("there is nothing to read")
        report(renderer, target, last.audio_seconds)


def describe(progress: Progress) -> str:
    """Return the progress as one line."""
    left = "" if progress.seconds_left is None else f", {clock(progress.seconds_left)} left"
    if progress.stage == "write":
        return f"writing: {progress.done} of {progress.total} segments{left}"
    speed = progress.audio_seconds / max(progress.seconds, 1e-6)
    return f"{progress.done} of {progress.total} segments, {clock(progress.audio_seconds)} of audio, {speed:.2f}x{left}"


@contextmanager
def progress_line(is_shown: bool) -> Iterator[tqdm]:
    """Show a line of progress on a terminal."""
    is_disabled = None  # tqdm looks whether it writes to a terminal
    if not is_shown:
        is_disabled = True
    with tqdm(bar_format="{desc}", disable=is_disabled, leave=False) as bar:
        yield bar
