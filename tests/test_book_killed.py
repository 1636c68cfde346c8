"""A book whose process is killed at any moment, and a book that several processes make.

KILLS=20 kills it 20 times; the default is a few.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.book_run import CHAPTERS
from tests.support.process import ROOT, without_coverage

COUNT = sum(map(len, CHAPTERS))
KILLS = int(os.environ.get("KILLS", "6"))
RUN = [sys.executable, "-m", "tests.support.book_run"]
LAUNCH = [f"{sys.prefix}/bin/mlx.launch", "-n", "2", "--backend", "ring", "--"]
SECONDS = 1.5  # a whole run, without its start


def run(target: Path, *argv: str, launch: bool = False) -> subprocess.CompletedProcess[str]:
    command = [*(LAUNCH if launch else []), *RUN, str(target), *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The book and its subtitles, without any interruption."""
    target = tmp_path_factory.mktemp("whole") / "book.m4b"
    done = run(target)
    assert done.returncode == 0, done.stderr
    return target


def content(target: Path) -> tuple[bytes, bytes]:
    return target.read_bytes(), target.with_suffix(".srt").read_bytes()


def takes(target: Path) -> list[Path]:
    return sorted((target.with_suffix(".book") / "segments").glob("*.flac"))


def kill_after(target: Path, seconds: float) -> None:
    """Begin a book, and kill the process some seconds after the work began."""
    with subprocess.Popen([*RUN, target], cwd=ROOT, stdout=subprocess.PIPE, env=without_coverage()) as child:
        assert child.stdout.readline() == b"begins\n"
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()


def kill_and_go_on(target: Path, whole: Path, moments: list[float]) -> None:
    kept: list[Path] = []
    for moment in moments:
        kill_after(target, moment)
        assert set(kept) <= set(takes(target)), "nothing that was made is lost"
        kept = takes(target)
        if target.exists():  # this run came to its end: the next ones begin anew
            assert content(target) == content(whole)
            target.unlink()
            for path in kept:
                path.unlink()
            kept = []
    done = run(target)
    assert done.returncode == 0, done.stderr
    assert content(target) == content(whole)
    assert not list(target.parent.rglob(".*.part*"))


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, whole):
    """Also between the takes, while a take or the book is written."""
    rng = random.Random(5)
    kill_and_go_on(tmp_path / "book.m4b", whole, [rng.uniform(0, SECONDS / 4) for _ in range(KILLS)])


# --- several processes ---


@pytest.mark.slow
def test_two_processes_with_one_folder(tmp_path, whole):
    done = run(tmp_path / "book.m4b", launch=True)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "book.m4b") == content(whole)
    assert len(takes(tmp_path / "book.m4b")) == COUNT


@pytest.mark.slow
def test_two_processes_with_folders_of_their_own(tmp_path, whole):
    """Both make a part; the first one gets all, and it alone writes the book."""
    done = run(tmp_path / "book.m4b", "RANKS_APART", launch=True)
    assert done.returncode == 0, done.stderr
    first, second = (tmp_path / f"rank{rank}" / "book.m4b" for rank in (0, 1))
    assert content(first) == content(whole)
    assert len(takes(first)) == COUNT
    assert 2 <= len(takes(second)) <= COUNT - 2
    assert not second.exists()
    takes(first)[0].unlink()
    for path in takes(second):
        path.unlink()
    first.unlink()
    done = run(tmp_path / "book.m4b", "RANKS_APART", launch=True)
    assert done.returncode == 0, done.stderr
    assert content(first) == content(whole)
    assert len(takes(second)) <= 1


@pytest.mark.slow
def test_a_process_that_dies_is_reported(tmp_path, whole):
    """The first one goes on to the end of its share; the next run makes up for what is missing."""
    target = tmp_path / "book.m4b"
    done = run(target, "DIE", launch=True)
    assert "rank 0: another process of this launch has ended" in done.stderr
    assert not target.exists()
    made = len(takes(target))
    assert 3 <= made < COUNT
    assert run(target).returncode == 0
    assert content(target) == content(whole)


@pytest.mark.slow
def test_processes_with_different_books(tmp_path):
    """All of them are told, before anything is made."""
    code = (
        "import os, sys\nfrom tests.support import book_run, books\n"
        "if os.environ['MLX_RANK'] == '1': book_run.plan_of = lambda _: books.plan_of([['One.']] )\n"
        f"sys.argv = ['x', {str(tmp_path / 'book.m4b')!r}]\nbook_run.main()"
    )
    done = subprocess.run([*LAUNCH, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert "the processes differ in book, options, model" in done.stderr
    assert not takes(tmp_path / "book.m4b")
