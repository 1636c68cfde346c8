"""Audio files: formats, and that a file is whole or not there."""

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import AudioError
from mlx_qwen3_tts.audio.write import check_writable, write_audio

WAVE = (0.5 * np.sin(np.arange(24000) * 2 * np.pi * 440 / 24000)).astype(np.float32)


@pytest.mark.parametrize(
    "suffix, container", [("wav", "WAV"), ("flac", "FLAC"), ("ogg", "OGG"), ("mp3", "MP3"), ("WAV", "WAV")]
)
def test_formats(tmp_path, suffix, container):
    path = tmp_path / f"tone.{suffix}"
    write_audio(path, WAVE, 24000)
    info = soundfile.info(path)
    assert (info.format, info.samplerate, info.channels) == (container, 24000, 1)
    audio, _ = soundfile.read(path)
    spectrum = np.abs(np.fft.rfft(audio[:24000]))
    assert np.argmax(spectrum) == 440
    if suffix.lower() in ("wav", "flac"):
        np.testing.assert_allclose(audio, WAVE, atol=1 / 32768)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_result_save(demo, tmp_path):
    result = demo.synthesize("Hello", seed=1, max_frames=2)
    result.save(tmp_path / "a.wav")
    assert soundfile.info(tmp_path / "a.wav").frames == 2 * 1920


@pytest.mark.parametrize("name, message", [("x.aac", r"\.wav, \.flac"), ("x", "must end"), ("no/dir/x.wav", "No such")])
def test_unwritable(tmp_path, name, message):
    with pytest.raises(AudioError, match=message):
        check_writable(tmp_path / name)


def test_name_that_no_file_can_have(tmp_path):
    for name in ("x" * 300 + ".wav", "a\0.wav"):
        with pytest.raises(AudioError, match="cannot write"):
            check_writable(tmp_path / name)


def test_write_protected(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    path.touch()
    monkeypatch.setattr("os.access", lambda *args: False)  # root may write anywhere
    with pytest.raises(AudioError, match="write-protected"):
        check_writable(path)


def test_links_and_pipes_stay_what_they_are(tmp_path):
    target, link, pipe = tmp_path / "target.wav", tmp_path / "link.wav", tmp_path / "pipe.wav"
    link.symlink_to(target)
    write_audio(link, WAVE, 24000)
    assert link.is_symlink()
    assert soundfile.info(target).frames == len(WAVE)
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_audio(pipe, WAVE, 24000)
    reader.join()
    assert got == [target.read_bytes()]
    assert pipe.is_fifo()


def test_undecodable_names(tmp_path):
    """A name that Python could not decode is still the name of a file."""
    if sys.platform == "darwin":
        pytest.skip("file names are Unicode here")
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/a\xff.wav")
    write_audio(path, WAVE, 24000)
    assert os.listdir(os.fsencode(str(tmp_path))) == [b"a\xff.wav"]


def test_directory(tmp_path):
    (tmp_path / "x.wav").mkdir()
    with pytest.raises(AudioError, match="is a directory"):
        check_writable(tmp_path / "x.wav")


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    path.write_bytes(b"old")

    def full_disk(self, data):
        self.open("wb").write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(AudioError, match="No space left"):
        write_audio(path, WAVE, 24000)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
