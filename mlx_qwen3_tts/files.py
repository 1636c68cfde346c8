"""Files and directories that appear under their name only when they are complete.

    target ─ PartialPath, a hidden sibling ─ is written ─┬─ commit: takes the target's place
                                                         └─ discard: is removed

A killed process leaves a hidden `.NAME.XXXXXXXX.part` behind, and the target as it was; only a directory that is being
replaced has for a moment no name but `.NAME.XXXXXXXX.old`.
"""

import fcntl
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import TypeVar

Writer = TypeVar("Writer", bound="WholeOrNothing")

MAX_NAME = 255  # bytes of a file's name, on all common file systems
MAX_STEM = MAX_NAME - len("..01234567.part")  # bytes of a target's name that its hidden sibling has


class PartialPath:
    """A hidden sibling of `target`: the path of a file or directory that is still being written."""

    def __init__(self, target: Path) -> None:
        """target: links in it must be resolved, or the link itself is replaced."""
        self.target = target
        self.path = target.with_name(f".{_stem(target.name)}.{secrets.token_hex(4)}.part")

    def check(self) -> None:
        """Raise OSError or ValueError if the target's name is too long or contains a zero."""
        for path in (self.target, self.path):
            with suppress(FileNotFoundError):
                os.lstat(path)

    def commit(self, replace: bool = True) -> None:
        """Give the sibling the target's name, replacing what has it. Raises OSError.

        replace: False raises FileExistsError if a file has the name, even if it appeared at this moment.
        """
        if not replace:
            self._claim()
        elif self.path.is_dir() and self.target.exists():
            self._swap()
        else:
            self.path.replace(self.target)

    def _claim(self) -> None:
        """Take a name that is free. A link, unlike a renaming, fails if it is not."""
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if os.path.lexists(self.target):
                raise FileExistsError(EEXIST, os.strerror(EEXIST), str(self.target)) from None
            self.path.replace(self.target)

    def _swap(self) -> None:
        """Replace a directory, which no system call does at once: put the old one aside, and back if that fails."""
        old = self.path.with_suffix(".old")
        self.target.rename(old)
        try:
            self.path.rename(self.target)
        except BaseException:
            old.rename(self.target)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """Remove the sibling if it exists. Raises OSError."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


def _stem(name: str) -> str:
    """Return the part of a target's name that its hidden sibling has: all of it, unless it is very long."""
    data = os.fsencode(name)
    if len(data) <= MAX_STEM:
        return name
    return data[:MAX_STEM].decode(errors="ignore")


class WholeOrNothing(ABC):
    """Something that is written bit by bit. As a context manager it closes at the end, and aborts if that raises."""

    @abstractmethod
    def close(self) -> None:
        """Complete what was written and give it its name."""

    @abstractmethod
    def abort(self) -> None:
        """Leave nothing behind. After `close` it does nothing."""

    def __enter__(self: Writer) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


@contextmanager
def atomic_path(target: Path, replace: bool = True) -> Iterator[Path]:
    """Yield a path to write a file or directory to; it is renamed to `target` on success, removed on failure.

    replace: False raises FileExistsError at the end if a file has that name.
    Raises OSError.
    """
    partial = PartialPath(target)
    try:
        yield partial.path
        partial.commit(replace)
    finally:
        partial.discard()


def remove_partial(folder: Path, name: str = "*") -> None:
    """Remove what killed processes have left of half-written files and directories.

    name: of the target; by default of any target in the folder. No other process may be writing there.
    """
    pattern = name if name == "*" else escape(_stem(name))
    for path in folder.glob(f".{pattern}.{'[0-9a-f]' * 8}.part*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a directory for this process until the end of the block, or of the process.

    Raises BlockingIOError if another one holds it. If the file system has no locks, nothing is held.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def is_regular(path: Path) -> bool:
    """Return True for a regular file or one that does not exist yet, False for a pipe, a device or a directory."""
    return path.is_file() or not path.exists()


def write_file(path: Path, data: bytes, replace: bool = True) -> None:
    """Write `data` to a file that is complete at any time; a pipe or a device is written in place. Raises OSError.

    replace: False raises FileExistsError if there is a file already.
    """
    if not is_regular(path):
        path.write_bytes(data)
        return
    with atomic_path(path.resolve(), replace) as partial:
        partial.write_bytes(data)


def user_path(variable: str, find: Callable[..., Path], name: str) -> Path | None:
    """Return the path that an environment variable names, or `name` among this package's files of the user.

    find: a function of platformdirs. Returns None for a user without a home directory, as in a container.
    """
    if override := os.environ.get(variable):
        return Path(os.path.expanduser(override))
    try:
        folder = find("mlx-qwen3-tts", appauthor=False)
    except RuntimeError:
        return None
    return folder / name if folder.is_absolute() else None  # older versions of platformdirs leave a ~ as it is
