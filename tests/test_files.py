"""Files and directories appear under their name only when they are complete."""

import os
import threading

import pytest

from mlx_qwen3_tts.files import PartialPath, WholeOrNothing, atomic_path, remove_partial, write_file


class Interrupted(Exception):
    """Raised in the middle of a write."""


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_is_complete_or_absent(tmp_path, old):
    target = tmp_path / "file"
    if old is not None:
        target.write_bytes(old)
    before = names(tmp_path)
    with pytest.raises(Interrupted), atomic_path(target) as partial:
        partial.write_bytes(b"half")
        raise Interrupted
    assert names(tmp_path) == before
    with atomic_path(target) as partial:
        assert partial.name.startswith(".")
        partial.write_bytes(b"new")
        assert target.exists() == (old is not None)
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_directory_is_complete_or_absent(tmp_path, exists):
    target = tmp_path / "directory"
    if exists:
        target.mkdir()
        (target / "old").touch()
    before = names(tmp_path)
    with pytest.raises(Interrupted), atomic_path(target) as partial:
        partial.mkdir()
        (partial / "half").touch()
        raise Interrupted
    assert names(tmp_path) == before
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["directory"]


def test_a_directory_that_cannot_be_replaced_is_restored(tmp_path, monkeypatch):
    target = tmp_path / "directory"
    target.mkdir()
    (target / "old").touch()
    rename = type(target).rename

    def refuse_new(self, to):
        if self.name.endswith(".part"):
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(type(target), "rename", refuse_new)
    with pytest.raises(OSError, match="no"), atomic_path(target) as partial:
        partial.mkdir()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["directory"]


def test_two_writers_of_one_target_do_not_interfere(tmp_path):
    first, second = PartialPath(tmp_path / "file"), PartialPath(tmp_path / "file")
    first.path.write_bytes(b"first")
    second.path.write_bytes(b"second")
    first.commit()
    second.commit()
    assert (tmp_path / "file").read_bytes() == b"second"
    first.discard()
    assert names(tmp_path) == ["file"]


def test_links_are_followed_and_pipes_written_in_place(tmp_path):
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    write_file(link, b"data")
    assert link.is_symlink()
    assert target.read_bytes() == b"data"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_file(pipe, b"data")
    reader.join()
    assert received == [b"data"]
    assert pipe.is_fifo()


def test_a_context_closes_what_succeeds_and_aborts_what_fails():
    class Noted(WholeOrNothing):
        def __init__(self):
            self.calls = []

        def close(self):
            self.calls.append("close")

        def abort(self):
            self.calls.append("abort")

    with Noted() as whole:
        pass
    with pytest.raises(Interrupted), Noted() as failed:
        raise Interrupted
    assert (whole.calls, failed.calls) == (["close"], ["abort"])


def test_leftovers_of_one_target_are_removed(tmp_path):
    """Its name is taken literally, and nothing but its leftovers goes."""
    name = "[a] *.wav"
    kept = [name, f".{name}.0123abcd", f".{name}.0123abc.part", f".{name}.nothexa!.part", f"{name}.0123abcd.part"]
    kept += [".a x.wav.0123abcd.part", ".[a] x.wav.0123abcd.part"]
    for one in (*kept, f".{name}.0123abcd.part"):
        (tmp_path / one).touch()
    remove_partial(tmp_path, name)
    assert names(tmp_path) == sorted(kept)


def test_leftovers_of_all_targets_are_removed(tmp_path):
    PartialPath(tmp_path / "a.wav").path.touch()
    folder = PartialPath(tmp_path / "folder").path
    folder.mkdir()
    (folder / "inside").touch()
    (tmp_path / "a.wav").touch()
    remove_partial(tmp_path)
    assert names(tmp_path) == ["a.wav"]
