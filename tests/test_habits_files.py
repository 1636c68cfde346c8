"""Audio files of every suffix, WAV beyond 4 GB, the WAV of a pipe, and the player of a notebook."""

import base64
import io
import os
import re
import subprocess
import sys
import threading

import av
import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import AudioError, SynthesisResult, result as results
from mlx_qwen3_tts.audio import formats, write, writers
from mlx_qwen3_tts.audio.formats import NAMES, SUFFIXES, rf64_header, wav_header
from mlx_qwen3_tts.audio.sinks import FileSink, Sink
from mlx_qwen3_tts.audio.write import check_writable, open_writer, write_audio
from mlx_qwen3_tts.cli.output import SpeechOutput
from mlx_qwen3_tts.result import AudioChunk, SynthesisTiming

RATE = 24000
WAVE = (0.5 * np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE)).astype(np.float32)
NEW = {".opus": ("ogg", "opus"), ".aiff": ("aiff", "pcm_s16be"), ".caf": ("caf", "pcm_s16be"), ".m4a": ("mov", "aac")}
TIMING = SynthesisTiming(0.1, 0.1, 0.1, 0.1, 0.4, 12, 1.0, 0)


def decode(data: bytes, audio_format: str | None = None) -> tuple[str, str, np.ndarray]:
    """Return the container, the codec and the audio of a file, as FFmpeg reads them, at 24 kHz."""
    with av.open(io.BytesIO(data), format=audio_format) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        frames = [one for frame in container.decode(audio=0) for one in resampler.resample(frame)]
        frames += resampler.resample(None)
        audio = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
        return container.format.name, container.streams.audio[0].codec.name, audio


def frequency(audio: np.ndarray) -> float:
    return np.argmax(np.abs(np.fft.rfft(audio))) * RATE / len(audio)


def write_growing(path, audio: np.ndarray) -> None:
    writer = open_writer(path, RATE)
    for start in range(0, len(audio), 1920):
        assert not path.exists()
        writer.write(audio[start : start + 1920])
    writer.close()


@pytest.mark.parametrize("write", [write_growing, lambda path, audio: write_audio(path, audio, RATE)])
@pytest.mark.parametrize("suffix", NEW)
def test_formats(tmp_path, suffix, write):
    path = tmp_path / f"tone{suffix}"
    write(path, WAVE)
    container, codec, audio = decode(path.read_bytes())
    assert (container.split(",")[0], codec) == NEW[suffix]
    assert abs(frequency(audio) - 440) < 2
    # An encoder of AAC ends with a whole frame; all others have the samples that were written.
    assert 0 <= len(audio) - len(WAVE) < (1024 if suffix == ".m4a" else 1)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_the_names_are_those_of_the_help():
    assert {f".{name}" for name in re.findall(r"\w+", NAMES) if name != "or"} == set(SUFFIXES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    writer = open_writer(path, RATE)
    writer.write(WAVE)
    assert path.read_bytes() == b"old"
    writer.abort()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]
    writer = open_writer(path, RATE)
    writer.write(WAVE)
    writer.close()
    assert abs(frequency(decode(path.read_bytes())[2]) - 440) < 2
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_restart(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    writer = open_writer(path, RATE)
    writer.write(np.zeros(3 * RATE, np.float32))
    writer.restart()
    writer.write(WAVE)
    writer.close()
    audio = decode(path.read_bytes())[2]
    assert abs(len(audio) - RATE) < 2500
    assert abs(frequency(audio) - 440) < 2


def test_an_empty_m4a(tmp_path):
    writer = open_writer(tmp_path / "a.m4a", RATE)
    writer.write(WAVE[:0])
    writer.close()
    assert (tmp_path / "a.m4a").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("suffix", [".aiff", ".caf", ".m4a"])
def test_a_pipe_cannot_take_formats_that_seek(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with pytest.raises(AudioError, match=f"a pipe cannot take {suffix}"):
        check_writable(tmp_path / f"pipe{suffix}")


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"the format m4a needs PyAV: pip install"):
        check_writable(tmp_path / "a.m4a")
    for suffix in set(SUFFIXES) - {".m4a"}:
        check_writable(tmp_path / f"a{suffix}")
    write_audio(tmp_path / "a.opus", WAVE, RATE)


def test_an_old_libsndfile(tmp_path, monkeypatch):
    monkeypatch.setattr(soundfile, "check_format", lambda container, subtype: subtype != "OPUS")
    with pytest.raises(AudioError, match=r"libsndfile .* cannot write \.opus: choose another format"):
        check_writable(tmp_path / "a.opus")
    check_writable(tmp_path / "a.caf")


def test_m4a_on_a_failing_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.m4a"
    path.write_bytes(b"old")
    writer = open_writer(path, RATE)
    writer.write(WAVE)

    def full(frame):
        raise av.error.OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "encode", full)
    with pytest.raises(AudioError, match=r"No space left on device\): nothing was kept"):
        writer.write(WAVE)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.m4a"]


# --- beyond 4 GB ---


@pytest.fixture
def small_wav(monkeypatch):
    """Let a WAV end after 20,000 bytes."""
    monkeypatch.setattr(writers, "MAX_WAV_SIZE", 20_000)
    monkeypatch.setattr(writers, "SHIFT_BLOCK", 1000)


def test_a_large_wav_is_rf64(tmp_path, small_wav):
    path = tmp_path / "a.wav"
    writer = open_writer(path, RATE)
    writer.write(WAVE[:9000])
    assert writer.notice is None
    writer.write(WAVE[9000:])
    assert "becomes an RF64 file" in writer.notice
    writer.close()
    data = path.read_bytes()
    assert data[:4] == b"RF64"
    assert len(data) == 80 + 2 * len(WAVE)
    info = soundfile.info(path)
    assert (info.format, info.frames) == ("RF64", len(WAVE))
    np.testing.assert_allclose(decode(data)[2], WAVE, atol=1.01 / 32768)


def test_rf64_header_beyond_4_gb():
    """The header is that of 50 hours; FFmpeg finds the length in it."""
    num_samples = 50 * 3600 * RATE
    header = rf64_header(RATE, num_samples)
    assert int.from_bytes(header[20:28], "little") == 2 * num_samples + 72
    with av.open(io.BytesIO(header + bytes(48000))) as container:
        assert container.streams.audio[0].duration == num_samples
    with pytest.raises(Exception, match="'I' format requires"):
        wav_header(RATE, num_samples)


def test_a_large_wav_on_a_full_disk(tmp_path, small_wav, monkeypatch):
    """If there is no room for the larger header, the samples are kept behind a header of open length."""
    path = tmp_path / "a.wav"
    writer = open_writer(path, RATE)
    writer.write(WAVE)
    write = Sink.write

    def full(self, data):
        if data == bytes(36):
            write(self, data[:7])
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(Sink, "write", full)
    writer.close()
    assert path.stat().st_size == 44 + 2 * len(WAVE)
    np.testing.assert_allclose(soundfile.read(path)[0], WAVE, atol=1.01 / 32768)


def test_a_large_wav_is_completed_once_more_after_an_error(tmp_path, small_wav, monkeypatch):
    """The samples are not moved twice."""
    path = tmp_path / "a.wav"
    writer = open_writer(path, RATE)
    writer.write(WAVE)
    write, failed = Sink.write, []

    def fail_once(self, data):
        if data[:4] == b"RF64" and not failed:
            failed.append(data)
            raise OSError(5, "Input/output error")
        write(self, data)

    monkeypatch.setattr(Sink, "write", fail_once)
    with pytest.raises(AudioError, match=r"the first 1\.00 s were kept"):
        writer.close()
    np.testing.assert_allclose(soundfile.read(path)[0], WAVE, atol=1.01 / 32768)


def test_a_large_wav_may_begin_anew(tmp_path, small_wav):
    writer = open_writer(tmp_path / "a.wav", RATE)
    writer.write(WAVE)
    writer.restart()
    writer.write(WAVE[:100])
    assert writer.notice is None
    writer.close()
    assert (tmp_path / "a.wav").stat().st_size == 44 + 200


def test_the_user_is_told_once(tmp_path, small_wav, capsys):
    output = SpeechOutput("a.wav", open_writer(tmp_path / "a.wav", RATE), None)
    for number in range(3):
        output.write(AudioChunk(WAVE, np.zeros((12, 16), np.int32), RATE, 1, TIMING, is_final=number == 2))
    output.abort(keep_partial=True)
    assert capsys.readouterr().err.count("RF64") == 1
    assert soundfile.info(tmp_path / "a.wav").frames == 3 * RATE


def test_an_aiff_ends_at_4_gb(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "MAX_AIFF_SAMPLES", 30_000)
    writer = open_writer(tmp_path / "a.aiff", RATE)
    writer.write(WAVE)
    with pytest.raises(AudioError, match=r"an AIFF file ends at 4 GB: choose wav or caf\): the first 1.00 s were kept"):
        writer.write(WAVE)
    assert soundfile.info(tmp_path / "a.aiff").frames == RATE


def test_a_large_array_is_rf64_too(tmp_path, small_wav, monkeypatch):
    monkeypatch.setattr(write, "MAX_WAV_SIZE", 20_000)
    write_audio(tmp_path / "a.wav", WAVE, RATE)
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"


def test_the_wav_of_a_pipe_is_endless(tmp_path):
    """FFmpeg, as in ffplay and mpv, reads a pipe to its end, whatever its header says."""
    reading, writing = os.pipe()
    heard = []

    def listen() -> None:
        with open(reading, "rb") as pipe, av.open(pipe, format="wav") as container:
            assert container.duration is None
            heard.extend(frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0))

    listener = threading.Thread(target=listen)
    listener.start()
    with open(writing, "wb", buffering=0) as pipe:
        writer = open_writer(pipe, RATE)
        for _ in range(10):
            writer.write(WAVE)
        writer.close()
    listener.join()
    audio = np.concatenate(heard)
    assert audio.tobytes() == formats.pcm16(np.tile(WAVE, 10))


# --- notebooks ---


def result_of(audio: np.ndarray) -> SynthesisResult:
    return SynthesisResult(audio, np.zeros((12, 16), np.int32), RATE, TIMING, "stop", 1)


def sound_of(html: str) -> tuple[str, bytes]:
    """Return the media type and the bytes of the one sound of an HTML text."""
    found = re.findall(r'src="data:([a-z/]+);base64,([A-Za-z0-9+/=]+)"', html)
    assert len(found) == 1
    return found[0][0], base64.b64decode(found[0][1])


def test_a_notebook_shows_a_player():
    html = result_of(WAVE)._repr_html_()
    assert html.startswith("<audio controls ")
    media, data = sound_of(html)
    assert media == "audio/wav"
    np.testing.assert_allclose(soundfile.read(io.BytesIO(data))[0], WAVE, atol=1.01 / 32768)


def test_long_speech_is_compressed(monkeypatch):
    monkeypatch.setattr(results, "MAX_SHOWN_WAV", 1.5)
    assert sound_of(result_of(WAVE)._repr_html_())[0] == "audio/wav"
    media, data = sound_of(result_of(np.tile(WAVE, 3))._repr_html_())
    assert media == "audio/mpeg"
    assert abs(soundfile.info(io.BytesIO(data)).duration - 3) < 0.2


def test_a_notebook_stays_small(monkeypatch):
    monkeypatch.setattr(results, "MAX_SHOWN_WAV", 1.5)
    monkeypatch.setattr(results, "MAX_SHOWN", 2.0)
    html = result_of(np.tile(WAVE, 3))._repr_html_()
    assert abs(soundfile.info(io.BytesIO(sound_of(html)[1])).duration - 2) < 0.2
    assert "the first 2 of 3 s" in html
    assert "the first" not in result_of(np.tile(WAVE, 2))._repr_html_()


def test_two_minutes_are_a_megabyte():
    assert len(result_of(np.tile(WAVE, 120))._repr_html_()) < 1.4e6


def test_no_player_without_sound_or_encoder(monkeypatch):
    assert result_of(WAVE[:0])._repr_html_() is None

    def broken(*_):
        raise soundfile.LibsndfileError(1)

    monkeypatch.setattr(results, "encode_audio", broken)
    assert result_of(WAVE)._repr_html_() is None


def test_sink_reads_what_it_wrote(tmp_path):
    sink = FileSink(tmp_path / "a")
    sink.write(b"0123456789")
    assert sink.read(3, 4) == b"3456"
    with pytest.raises(OSError, match="shorter"):
        sink.read(8, 4)
    sink.discard()


@pytest.mark.parametrize("suffix, seconds", [(".ogg", 120), (".opus", 20)])
def test_long_speech_in_one_piece(tmp_path, suffix, seconds):
    """libsndfile's Vorbis encoder crashes on a block of two minutes."""
    path = tmp_path / f"a{suffix}"
    code = f"""
import numpy as np
from mlx_qwen3_tts.audio.write import write_audio
write_audio({str(path)!r}, np.full({seconds * RATE}, 0.1), {RATE})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert soundfile.info(path).duration == seconds
