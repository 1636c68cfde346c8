"""Audio files: formats, writers, and that each file is complete or absent."""

import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import AudioError
from mlx_qwen3_tts.audio.formats import wav_header
from mlx_qwen3_tts.audio.sinks import FileSink, Sink
from mlx_qwen3_tts.audio.write import check_writable, open_writer, write_audio

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


def test_a_writer_takes_suffixes_in_any_case(tmp_path):
    for suffix, container in (("WAV", "WAV"), ("Flac", "FLAC")):
        writer = open_writer(tmp_path / f"a.{suffix}", 24000)
        writer.write(WAVE)
        writer.close()
        assert soundfile.info(tmp_path / f"a.{suffix}").format == container


def test_result_save(demo, tmp_path):
    result = demo.synthesize("Hello", seed=1, max_frames=2)
    result.save(tmp_path / "a.wav")
    assert soundfile.info(tmp_path / "a.wav").frames == 2 * 1920


@pytest.mark.parametrize("name, message", [("x.aac", r"\.wav, \.flac"), ("x", "must end"), ("no/dir/x.wav", "No such")])
def test_unwritable(tmp_path, name, message):
    for check in (check_writable, lambda path: open_writer(path, 24000), lambda path: write_audio(path, WAVE, 24000)):
        with pytest.raises(AudioError, match=message):
            check(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_invalid_file_names(tmp_path):
    for name in ("x" * 300 + ".wav", "a\0.wav"):
        with pytest.raises(AudioError, match="cannot write"):
            check_writable(tmp_path / name)


def test_write_protected(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    path.touch()
    monkeypatch.setattr("os.access", lambda *args: False)  # root may write anywhere
    with pytest.raises(AudioError, match="write-protected"):
        check_writable(path)


def test_links_and_pipes_are_not_replaced(tmp_path):
    target, link, pipe = tmp_path / "target.wav", tmp_path / "link.wav", tmp_path / "pipe.wav"
    link.symlink_to(target)
    write_audio(link, WAVE, 24000)
    assert link.is_symlink()
    assert soundfile.info(target).frames == len(WAVE)
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_audio(pipe, WAVE, 24000)
    reader.join()
    assert got == [target.read_bytes()]
    assert pipe.is_fifo()


def test_undecodable_names(tmp_path):
    """A file name that Python cannot decode is accepted."""
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


# --- writers ---


@pytest.mark.parametrize("suffix, magic", [("wav", wav_header(24000, None)), ("flac", b"fLaC"), ("ogg", b"OggS")])
def test_writer_to_a_pipe(tmp_path, suffix, magic):
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    writer = open_writer(pipe, 24000)
    assert not writer.can_restart
    writer.write(WAVE)
    writer.close()
    reader.join()
    assert received[0].startswith(magic)
    # libFLAC cannot seek in a pipe and appends its final header, which makes a decoder lose the last block.
    num_samples = len(WAVE) - 4096 if suffix == "flac" else len(WAVE)
    audio, _ = soundfile.read(io.BytesIO(received[0]), frames=num_samples)
    assert len(audio) == num_samples
    if suffix != "ogg":
        np.testing.assert_allclose(audio, WAVE[:num_samples], atol=1.01 / 32768)
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no such device")
def test_writer_to_a_full_device(tmp_path):
    (tmp_path / "full.wav").symlink_to("/dev/full")
    with pytest.raises(AudioError, match=r"cannot write .*full\.wav: No space left"):
        open_writer(tmp_path / "full.wav", 24000)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_disk_that_is_full_from_the_start(tmp_path, monkeypatch, suffix):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Sink, "write", full)
    monkeypatch.setattr(soundfile, "SoundFile", full)
    with pytest.raises(AudioError, match=r"cannot write .*No space left"):
        open_writer(tmp_path / f"x.{suffix}", 24000)
    assert list(tmp_path.iterdir()) == []


class SlowStream(io.RawIOBase):
    """Takes a few bytes at a time."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += bytes(data[:7])
        return len(data[:7])


def test_stream_with_partial_writes():
    stream = SlowStream()
    writer = open_writer(stream, 24000)
    writer.write(WAVE[:100])
    writer.close()
    assert len(stream.data) == 44 + 200
    assert not stream.closed


def test_failed_write_keeps_the_earlier_audio(tmp_path, monkeypatch):
    """The file is completed, an incomplete chunk is cut off, and closing or aborting it later changes nothing."""
    path = tmp_path / "x.wav"
    writer = open_writer(path, 24000)
    writer.write(WAVE[:5000])
    write = Sink.write

    def full_disk(self, data):
        if len(data) > 44:  # the header still fits
            write(self, data[:1001])
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(Sink, "write", full_disk)
    with pytest.raises(AudioError, match=r"No space left on device\): the first 0\.21 s were kept"):
        writer.write(WAVE[5000:10000])
    for finish in (writer.close, writer.abort):
        finish()
        assert path.stat().st_size == 44 + 2 * 5000
        assert soundfile.info(path).frames == 5000
    assert [p.name for p in tmp_path.iterdir()] == ["x.wav"]


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_failed_close_is_an_error_of_the_package(tmp_path, monkeypatch, suffix):
    def full_disk(self):
        self.raw.close()
        raise OSError(28, "No space left on device")

    writer = open_writer(tmp_path / f"x.{suffix}", 24000)
    writer.write(WAVE)
    monkeypatch.setattr(FileSink, "commit", full_disk)
    with pytest.raises(AudioError, match=r"cannot write .*No space left"):
        writer.close()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_failed_restart_leaves_nothing(tmp_path, monkeypatch):
    writer = open_writer(tmp_path / "x.wav", 24000)
    writer.write(WAVE)

    def full_disk(self, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSink, "truncate", full_disk)
    with pytest.raises(AudioError, match="No space left"):
        writer.restart()
    assert list(tmp_path.iterdir()) == []
