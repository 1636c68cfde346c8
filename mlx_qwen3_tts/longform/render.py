"""A book from its plan to its file: makes the segments that are missing, then assembles all of them.

    Document ─ plan ─ Renderer ─┬─ make: TakeMaker ─► takes on the disk, shared among the processes of a launch
                                └─ assemble: takes ─ sound.py ─ BookWriter ─► NAME.m4b, subtitles

The file is assembled from the takes' files alone, so that it is the same whatever was interrupted, and what changes
pauses, speed, loudness or format regenerates no segment.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BookError
from ..files import PartialPath, claimed, remove_partial
from ..tts import Qwen3TTS
from .assemble import Assembly, check_output
from .check import find_recognizer
from .container import find_format
from .distributed import Team, collect
from .document import Document
from .make import Progress, TakeMaker, in_windows
from .manifest import TAKES, Manifest
from .options import BookOptions
from .parts import Part, PartBuilder, Voice
from .plan import Plan, plan as plan_document
from .takes import DamagedTake, Take, TakeStore, write_error

FOLDER_SUFFIX = ".book"  # the suffix of the folder beside a book
OnProgress = Callable[[Progress], None]

MISSING, PROVISIONAL, DONE = 0, 1, 2  # states of a part


@dataclass(frozen=True)
class Flaw:
    """A segment that was kept although something seems wrong with it. place: such as "3:17"."""

    place: str
    text: str
    problem: str


@dataclass(frozen=True)
class RenderedBook:
    """What was rendered. target: None in a process that only helped. seconds: the length of the book."""

    target: Path | None
    seconds: float
    segments: int
    flaws: tuple[Flaw, ...]


def folder_beside(target: str | Path, folder_format: str | None = None) -> Path:
    """Return the folder that keeps the segments of a book: NAME.book for NAME.m4b, and for a folder NAME.

    Raises BookError for a target that is neither, and for a name that is too long for a folder's.
    """
    path = Path(target)
    _, is_folder = find_format(path, folder_format)
    name = path.stem
    if is_folder:
        name = path.name
    folder = path.with_name(name + FOLDER_SUFFIX)
    try:
        PartialPath(folder).check()
    except (OSError, ValueError) as error:
        raise BookError(f"cannot write {folder}: {getattr(error, 'strerror', None) or error}") from None
    return folder


class Renderer:
    """A book that is being made: what it takes, what is there, and how to go on.

    Every process of a launch (mlx.launch) makes one, with the same arguments, and calls the same methods.
    """

    def __init__(
        self, tts: Qwen3TTS, plan: Plan, folder: str | Path, options: BookOptions | None = None, *,
        voices: Mapping[str, Voice] | None = None, redo: Iterable[str] = (), redo_seed: int | None = None,
        check: str | None = None, check_limit: float | None = None,
    ) -> None:  # fmt: skip
        """plan: made with the same options. folder: keeps the segments; see folder_beside.

        voices: by the names that the script uses; other names are preset voices. redo: places of segments, such as
        "3:17", to be made once more, with `redo_seed` or the next seed that follows; it is remembered.
        check: a command that prints the text of a WAV file; what it hears wrongly is made again. check_limit: the share
        of words that it may hear wrongly; None is 0.3.
        Raises BookError, DocumentError for an unknown place, RequestError for what the model cannot do.
        """
        if tts.model_type == "voice_design":
            raise BookError(
                "a VoiceDesign model would give each segment another speaker: design one, keep it with "
                '`mlx-qwen3-tts design "..." --save-as NAME`, and read the book with voice NAME',
                "voice",
            )
        self.tts = tts
        self.plan = plan
        self.folder = Path(folder)
        self.options = options = options or BookOptions()
        recognizer = find_recognizer(check, check_limit)
        self._builder = PartBuilder(tts, options, voices or {})
        for segment in plan.segments:
            self._builder.check(segment)
        self.store = TakeStore(self.folder / TAKES, tts.sample_rate)
        self.team = Team(tts.engine.worker)
        self._maker = TakeMaker(tts, self.store, options.attempts, options.batch_size, recognizer)
        self._open_folder()
        self.manifest = Manifest.load(self.folder)
        self.manifest.seed = options.seed
        self.parts = self._parts(redo, redo_seed)
        self.team.check_same(hashlib.sha256("".join(part.key for part in self.parts).encode()).digest())
        self._load()

    # What is to be made

    def _parts(self, redo: Iterable[str], redo_seed: int | None) -> list[Part]:
        """Return the parts of all segments; the first member decides on the seeds of those that are made once more."""
        if self.team.is_main:
            for place in redo:
                part = self._builder.part(self.plan.find(place), self.manifest.chosen)
                self.manifest.chosen[part.origin] = self._next_seed(part) if redo_seed is None else redo_seed
        self.manifest.share(self.team)
        return [self._builder.part(segment, self.manifest.chosen) for segment in self.plan.segments]

    def _next_seed(self, part: Part) -> int:
        """Return a seed that was not tried yet for a part."""
        take = self.store.read(part.key)
        attempts = self.options.attempts if take is None else take.attempts
        seed = part.attempt(attempts).seed
        assert seed is not None
        return seed

    # What is there

    def _open_folder(self) -> None:
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.store.folder, error) from None

    def _load(self) -> None:
        self._maker.takes.update(self.store.read_all([part.key for part in self.parts]))

    @property
    def takes(self) -> Mapping[str, Take]:
        """The takes that are there, by the keys of their parts."""
        return self._maker.takes

    @property
    def missing(self) -> list[Part]:
        """The parts that this process would have to make."""
        return [part for part in self.parts if not self._maker.is_done(part)]

    @property
    def flaws(self) -> tuple[Flaw, ...]:
        """The segments that were kept although something seems wrong with them."""
        found = []
        for part in self.parts:
            take = self.takes.get(part.key)
            if take is not None and take.problem:
                found.append(Flaw(part.segment.place, part.segment.shown, take.problem))
        return tuple(found)

    def save_manifest(self) -> None:
        """Write manifest.json. Raises BookError."""
        about = {
            "title": self.plan.document.title,
            "model": self.tts.name,
            "fingerprint": self._builder.fingerprint,
            "sample_rate": self.tts.sample_rate,
        }
        self.manifest.save(self.parts, self.takes, about)

    # Work

    def make(self) -> Iterator[Progress]:
        """Make all takes that are missing; in a launch one's own share, and the first process collects the others'.

        What was made stays, whatever ends the iterator. Raises BookError.
        """
        self.save_manifest()  # every member: its folder may be another one, and the next run reads the seeds
        try:
            yield from self._maker.run(self._share())
            self._collect()
        finally:
            if self.team.is_main:
                if self.team.size > 1:
                    self._load()  # after an interruption: what others made in a shared folder is kept as well
                self.save_manifest()

    def _share(self) -> list[Part]:
        """Return the parts that this process is to make."""
        size = self.options.batch_size
        if self.team.size == 1:
            return self.missing
        done = self._states().max(axis=0) == DONE
        ordered = in_windows([part for part, is_done in zip(self.parts, done, strict=True) if not is_done], size)
        groups = [ordered[i : i + size] for i in range(0, len(ordered), size)]
        return [part for group in self.team.share(groups) for part in group]

    def _states(self) -> np.ndarray:
        """Return the state of each part for each member, uint8 [members, parts]."""
        row = np.full(len(self.parts), MISSING, np.uint8)
        for i, part in enumerate(self.parts):
            if part.key in self.takes:
                row[i] = DONE if self._maker.is_done(part) else PROVISIONAL
        return self.team.gather(row)

    def _collect(self) -> None:
        """Give the first process what the others have made."""
        if self.team.size == 1:
            return
        self._load()  # in a shared folder nothing has to be sent
        collect(self.team, self.store, [part.key for part in self.parts], self._states())
        self._load()

    def assemble(
        self, target: str | Path, subtitles: str | None = None, folder_format: str | None = None
    ) -> Iterator[Progress]:
        """Write the book, and its subtitles. Every take must be there (see make).

        target: a file by its suffix, or a folder with a file of `folder_format` for each chapter. subtitles: "srt",
        "vtt" or "json", beside the book or each chapter's file.

        Raises BookError, AudioError, and DamagedTake for a take that cannot be read any more.
        """
        lacking = [part.segment.place for part in self.parts if part.key not in self.takes]
        if lacking:
            raise BookError(f"segment {lacking[0]} is not made yet ({len(lacking)} of {len(self.parts)} are missing)")
        path = Path(target)
        remove_partial(path.resolve().parent, path.name)
        assembly = Assembly(self.plan, self.parts, self.takes, self.store, self.options)
        try:
            yield from assembly.write(path, subtitles, folder_format)
        except DamagedTake:
            raise
        except BookError as error:
            kept = f"the segments are kept in {self.folder}: run the same again to go on"
            raise BookError(f"{error}; {kept}", *error.arguments) from None

    def run(
        self, target: str | Path, subtitles: str | None = None, folder_format: str | None = None
    ) -> Iterator[Progress]:
        """Make what is missing, and write the book in the first process; see make and assemble.

        Raises BookError if another process, which is not of this launch, does the same.
        """
        if not self.team.is_main:
            yield from self.make()
            return
        try:
            with claimed(self.folder):
                remove_partial(self.store.folder)
                yield from self.make()
                yield from self._assemble_all(target, subtitles, folder_format)
        except BlockingIOError:
            raise BookError(f"another process writes to {self.folder}: wait for its end, or stop it") from None

    def _assemble_all(self, target: str | Path, subtitles: str | None, folder_format: str | None) -> Iterator[Progress]:
        """Write the book; make takes once more that turn out to be damaged."""
        while True:
            try:
                yield from self.assemble(target, subtitles, folder_format)
            except DamagedTake as damaged:
                self._maker.takes.pop(damaged.key)
                yield from self._maker.run(self.missing)
            else:
                return


def render(
    tts: Qwen3TTS, book: Document | Plan, target: str | Path, options: BookOptions | None = None, *,
    chapters: Sequence[int] | None = None, subtitles: str | None = None, folder_format: str | None = None,
    voices: Mapping[str, Voice] | None = None, redo: Iterable[str] = (), redo_seed: int | None = None,
    check: str | None = None, check_limit: float | None = None, on_progress: OnProgress | None = None,
) -> RenderedBook:  # fmt: skip
    """Read a book aloud into a file, or a folder with a file for each chapter.

    The segments are kept beside the target, in NAME.book: a second run makes only what is missing or changed, also
    after the first one was killed.
    book: a Document, or a Plan that was made with the same options. chapters: from 0; None takes all of a Document.
    subtitles: "srt", "vtt" or "json": written beside the book. folder_format: of the files in a folder.
    on_progress: called with a Progress now and then. The others: see Renderer.
    Raises BookError, DocumentError, RequestError and AudioError.
    """
    options = options or BookOptions()
    check_output(Path(target), subtitles, folder_format)
    planned = book if isinstance(book, Plan) else plan_document(book, options, chapters)
    renderer = Renderer(
        tts, planned, folder_beside(target, folder_format), options,
        voices=voices, redo=redo, redo_seed=redo_seed, check=check, check_limit=check_limit,
    )  # fmt: skip
    seconds = 0.0
    for progress in renderer.run(target, subtitles, folder_format):
        if progress.stage == "write":
            seconds = progress.audio_seconds
        if on_progress is not None:
            on_progress(progress)
    written = Path(target) if renderer.team.is_main else None
    return RenderedBook(written, seconds, len(renderer.parts), renderer.flaws)
