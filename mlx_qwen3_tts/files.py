"""A directory that is written whole or not at all.

    target ─ check_target ─ written_whole: a directory beside it ─ ... ─ rename

A process that is killed leaves a hidden directory `.NAME.XXXXXXXX.partial`, and what stood at the target stays.
"""

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConversionError


def check_target(out: str | Path, force: bool, replaceable: Collection[str]) -> Path:
    """The directory to write, links resolved.

    replaceable: names of files, beside weights, that may go with the checkpoint that holds them.
    Raises ConversionError where it exists and may not be replaced: without `force`, and where it holds anything but a
    checkpoint's files.
    """
    if not str(out):
        raise ConversionError("the directory to write has no name")
    path = Path(os.path.realpath(os.path.expanduser(out)))
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConversionError(f"cannot write {out}: {path.parent} is no directory that can be written to")
    if not path.exists():
        return path
    if not force:
        raise ConversionError(f"{out} exists; --force replaces a checkpoint there")
    if not path.is_dir():  # a file, a pipe, /dev/null
        raise ConversionError(f"{out} is no directory, and is not replaced; name another")
    names = (str(p.relative_to(path)) for p in path.rglob("*") if not p.is_dir() or p.is_symlink())
    other = next((name for name in names if name not in replaceable and not _is_weight_file(name)), None)
    if other is not None:
        raise ConversionError(f"{out} is not replaced: {other} is in it, which is no part of a checkpoint")
    return path


def _is_weight_file(name: str) -> bool:
    path = Path(name)
    return (
        str(path.parent) in (".", "speech_tokenizer") and path.name.startswith("model") and ".safetensors" in path.name
    )


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A new directory beside `target`, which takes its place when the block is done, and goes when it is not."""
    directory = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        directory.mkdir()
        yield directory
        _take_place(directory, target)
    except OSError as error:
        raise ConversionError(f"cannot write {target}: {error.strerror or error}; nothing is left behind") from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _take_place(directory: Path, target: Path) -> None:
    """Rename, with what was there before put aside first, and put back if that fails."""
    if not target.exists():
        directory.rename(target)
        return
    aside = directory.with_suffix(".replaced")
    target.rename(aside)
    try:
        directory.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` so that `path` never names half of it. Raises OSError."""
    if path.exists() and not path.is_file():  # a pipe or a device is written to, not replaced
        path.write_bytes(data)
        return
    path = path.resolve()  # behind a symbolic link
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
