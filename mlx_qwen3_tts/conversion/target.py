"""The directory that a conversion writes: whether it may be written, and what else belongs in it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..checkpoint.load import SPEECH_TOKENIZER
from ..errors import ConversionError
from ..files import PartialPath, atomic_path
from ..hub import FILES

COPIED_FILES = (
    "generation_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    f"{SPEECH_TOKENIZER}/config.json",
    f"{SPEECH_TOKENIZER}/configuration.json",
    f"{SPEECH_TOKENIZER}/preprocessor_config.json",
)
SOURCE_FILES = (*FILES, *COPIED_FILES)
CHECKPOINT_FILES = {"config.json", "README.md", *COPIED_FILES}  # next to the weights


def check_target(out: str | Path, force: bool) -> Path:
    """Return the directory to write, with links resolved.

    Raises ConversionError if it cannot be created, if it exists and `force` is false, or if it holds anything but a
    checkpoint.
    """
    if not str(out):
        raise ConversionError("the name of the target directory is empty")
    path = Path(os.path.realpath(os.path.expanduser(out)))
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConversionError(f"cannot write {out}: {path.parent} is not a writable directory")
    try:
        PartialPath(path).check()
    except (OSError, ValueError) as error:
        raise ConversionError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from None
    if not path.exists():
        return path
    if not force:
        raise ConversionError(f"{out} exists; pass force=True to replace the checkpoint there", "force")
    if not path.is_dir():  # a file, a pipe, /dev/null
        raise ConversionError(f"{out} is not a directory and is not replaced; name another target")
    other = next((name for name in file_names(path) if not is_checkpoint_file(name)), None)
    if other is not None:
        raise ConversionError(f"{out} is not replaced, because {other} in it is not part of a checkpoint")
    return path


def file_names(directory: Path) -> Iterable[str]:
    """Yield the relative name of everything below a directory except its subdirectories."""
    for path in directory.rglob("*"):
        if not path.is_dir() or path.is_symlink():
            yield str(path.relative_to(directory))


def is_checkpoint_file(name: str) -> bool:
    """Return True for the name of a file that belongs to a checkpoint, relative to its directory."""
    if name in CHECKPOINT_FILES:
        return True
    path = Path(name)
    is_weights = path.name.startswith("model") and ".safetensors" in path.name
    return is_weights and str(path.parent) in (".", SPEECH_TOKENIZER)


def check_apart(source: Path, target: Path) -> None:
    """Raise ConversionError if source and target are the same directory, or one is inside the other."""
    if target.exists() and os.path.samefile(source, target):
        raise ConversionError(f"{target} is the source itself; name another target")
    if source.resolve() in target.parents or target in source.resolve().parents:
        raise ConversionError(f"{target} and {source} are inside each other; name another target")


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `target` on success and is removed on failure.

    Raises ConversionError if the disk or the system refuses a write.
    """
    try:
        with atomic_path(target) as directory:
            directory.mkdir()
            yield directory
    except OSError as error:
        raise ConversionError(f"cannot write {target}: {error.strerror or error}; nothing is left behind") from None
