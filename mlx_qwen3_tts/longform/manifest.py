"""The manifest of a book: what each segment is, what its sound depends on, and what the user chose for it.

    NAME.book/ ─┬─ manifest.json      the segments with what was made of them, and the seeds that the user chose
                └─ segments/KEY.flac  the takes (takes.py), by the keys of their parts (parts.py)

A part whose key has a take is made already. The manifest is for people and other programs, except for two things that
are read back: the book's seed, and the seeds of segments that were made once more.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BookError
from ..files import write_file
from ..request import MAX_SEED
from .distributed import Team
from .parts import Part
from .takes import SUFFIX, Take, write_error

FORMAT = "mlx_qwen3_tts.book"
VERSION = 1  # the version of manifest.json; a newer one is refused
MANIFEST = "manifest.json"
TAKES = "segments"  # the folder of takes


@dataclass
class Manifest:
    """What manifest.json keeps from one run to the next.

    seed: the book's; None before the first run. chosen: the seed that the user chose for a part, by its `origin`.
    """

    folder: Path
    seed: int | None = None
    chosen: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / MANIFEST

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read the manifest of a folder, if there is one. Raises BookError."""
        manifest = cls(folder)
        try:
            data = json.loads(manifest.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return manifest
        except OSError as error:
            raise BookError(
                f"cannot read {manifest.path}, which has the book's seeds: {error.strerror or error}"
            ) from None
        except (ValueError, RecursionError) as error:
            raise _damaged(manifest.path, error) from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise _damaged(manifest.path, ValueError("it is not that of a book"))
        if data.get("version") != VERSION:
            raise BookError(
                f"{manifest.path} has version {data.get('version')} of the format, this package reads {VERSION}: "
                "update it"
            )
        chosen = data.get("chosen")
        if not _is_seed(data.get("seed")) or not isinstance(chosen, dict) or not all(map(_is_seed, chosen.values())):
            raise _damaged(manifest.path, ValueError("its seeds are invalid"))
        manifest.seed = data["seed"]
        manifest.chosen = dict(chosen)
        return manifest

    def share(self, team: Team) -> None:
        """Take the chosen seeds of the team's first member. Raises BookError."""
        data = json.dumps(self.chosen).encode() if team.is_main else None
        self.chosen = json.loads(team.send(data, 0))

    def save(self, parts: Sequence[Part], takes: Mapping[str, Take], about: Mapping[str, Any]) -> None:
        """Write the manifest. about: the book and the model. Raises BookError."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            **about,
            "seed": self.seed,
            "chosen": self.chosen,
            "segments": [describe(part, takes.get(part.key)) for part in parts],
        }
        text = json.dumps(data, ensure_ascii=False, indent=1)
        try:
            write_file(self.path, text.encode())
        except OSError as error:
            raise write_error(self.path, error) from None


def _is_seed(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_SEED


def _damaged(path: Path, error: Exception) -> BookError:
    return BookError(
        f"{path} is damaged ({error}): delete it, and give the book's seed again if it had one; the segments that "
        "were made stay, and only the seeds that were chosen for single ones are lost",
        "seed",
    )


def describe(part: Part, take: Take | None) -> dict[str, Any]:
    """Return the manifest's entry of a segment. take: None if it is not made yet."""
    segment = part.segment
    entry: dict[str, Any] = {
        "place": segment.place,
        "text": segment.text,
        "voice": part.voice,
        "key": part.key,
        "seed": part.request.seed,
        "made": take is not None,
    }
    if take is None:
        return entry
    heard = None if take.heard is None else asdict(take.heard)
    return entry | {
        "seed": take.seed,
        "attempts": take.attempts,
        "frames": take.frames,
        "samples": take.samples,
        "file": f"{TAKES}/{part.key}{SUFFIX}",
        "loudness": take.loudness,
        "problem": take.problem,
        "heard": heard,
    }
