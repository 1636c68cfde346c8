"""StreamEncoder: streams that other libraries decode, while they grow and when they are complete."""

import gc
import io
import sys

import av
import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts.audio.encode import MEDIA_TYPES, PACKET_FORMATS, StreamEncoder
from mlx_qwen3_tts.errors import AudioError, RequestError

RATE = 24_000
CHUNK = 1920  # samples: a frame of the model
ENCODED = ["mp3", "flac", "opus", "aac"]
PRIMING = {"mp3": 1105, "aac": 1024}  # samples of the codec's delay, which these streams cannot declare
MAX_FRAME = {"mp3": 2 * 576, "aac": 2 * 1024}  # samples at the end, likewise
HELD_BACK = {"wav": 0, "flac": 0, "opus": 27, "mp3": 87, "aac": 123}  # ms, as the module's docstring says
MIN_SNR = {"wav": 80, "flac": 80, "pcm": 80, "opus": 35, "aac": 28, "mp3": 22}  # dB


def chirp(num_samples: int = 2 * RATE) -> np.ndarray:
    seconds = np.arange(num_samples) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + 150 * seconds) * seconds)).astype(np.float32)


def encode(name: str, audio: np.ndarray, size: int = CHUNK) -> list[bytes]:
    encoder = StreamEncoder(name, RATE)
    parts = [encoder.write(audio[start : start + size]) for start in range(0, len(audio), size)]
    return [*parts, encoder.close()]


def decode(name: str, data: bytes) -> np.ndarray:
    """What FFmpeg hears, in floats at RATE."""
    if name == "pcm":
        return np.frombuffer(data, "<i2") / 32767
    # A parser that is to guess AAC wants more of it than the first frames.
    with av.open(io.BytesIO(data), format="aac" if name == "aac" else None) as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    audio = np.concatenate(frames) if frames else np.zeros(0, np.float32)
    if audio.dtype == np.int16:
        audio = audio / 32767
    return audio[:: rate // RATE]  # Opus is always decoded at 48 kHz; the chirp has nothing above 12 kHz


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_complete_stream_has_the_samples(name):
    audio = chirp()
    decoded = decode(name, b"".join(encode(name, audio)))
    priming = PRIMING.get(name, 0)
    assert len(audio) <= len(decoded) - priming <= len(audio) + MAX_FRAME.get(name, 0)
    decoded = decoded[priming : priming + len(audio)]
    error = np.sum((decoded - audio)[500:-500] ** 2)
    assert 10 * np.log10(np.sum(audio[500:-500] ** 2) / error) > MIN_SNR[name]


@pytest.mark.parametrize("name", HELD_BACK)
def test_stream_plays_while_it_grows(name):
    parts = encode(name, chirp(10 * CHUNK))
    for count in range(3, 10):
        heard = len(decode(name, b"".join(parts[:count]))) - PRIMING.get(name, 0)
        assert 1000 * (count * CHUNK - heard) / RATE <= HELD_BACK[name]


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_first_chunk_yields_audio(name):
    encoder = StreamEncoder(name, RATE)
    first = encoder.write(chirp(CHUNK))
    if name == "aac":  # its encoder looks one frame ahead
        assert first == b""
        first = encoder.write(chirp(CHUNK))
    assert len(decode(name, first)) > 0


@pytest.mark.parametrize(("name", "header"), [("wav", b"RIFF"), ("flac", b"fLaC"), ("opus", b"OpusHead")])
def test_there_is_one_header(name, header):
    data = b"".join(encode(name, chirp()))
    assert data.count(header) == 1


def test_length_is_left_open():
    flac = b"".join(encode("flac", chirp()))
    total = int.from_bytes(flac[8 + 13 : 8 + 18], "big") & (2**36 - 1)  # RFC 9639, 8.2: the last 36 bits before the MD5
    assert total == 0
    assert b"".join(encode("wav", chirp()))[40:44] == b"\xff\xff\xff\xff"
    mp3 = b"".join(encode("mp3", chirp()))
    assert mp3[:2] == b"\xff\xf3"  # a frame, no tag before it
    assert b"Xing" not in mp3
    assert b"Info" not in mp3


@pytest.mark.parametrize("name", ["mp3", "flac", "opus"])
def test_libsndfile_reads_the_stream(name):
    audio = chirp()
    with soundfile.SoundFile(io.BytesIO(b"".join(encode(name, audio)))) as file:
        frames = len(audio) * file.samplerate // RATE - 1
        decoded = file.read(frames)  # at the end of a FLAC stream of unknown length, libsndfile fails to seek
    assert len(decoded) == frames
    assert np.abs(decoded).max() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_streams_do_not_depend_on_chunks_and_repeat(name):
    audio = chirp()
    whole = b"".join(encode(name, audio, len(audio)))
    assert b"".join(encode(name, audio, 777)) == whole


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_no_version_is_written(name):
    """A stream has the same bytes with another FFmpeg whose codec does the same."""
    assert b"Lav" not in b"".join(encode(name, chirp()))


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_empty_and_short_streams(name):
    encoder = StreamEncoder(name, RATE)
    assert len(encoder.write(np.zeros(0, np.float32))) in (0, 44) or name in ENCODED
    encoder.close()
    assert encoder.close() == b""
    short = chirp(100) + 0.1
    assert len(decode(name, b"".join(encode(name, short)))) >= 100


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_samples_beyond_full_scale_are_clipped(name):
    loud = 4 * chirp()
    assert encode(name, loud) == encode(name, np.clip(loud, -1, 1))


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_abandoned_streams_do_not_change_later_ones(name):
    """Clients that hang up leave such streams."""
    before = encode(name, chirp(10 * CHUNK))
    for _ in range(20):
        StreamEncoder(name, RATE).write(chirp(CHUNK))
    gc.collect()
    assert encode(name, chirp(10 * CHUNK)) == before


def test_bit_rate():
    sizes = []
    for bit_rate in (32_000, 64_000, 128_000):
        encoder = StreamEncoder("mp3", RATE, bit_rate)
        sizes.append(len(encoder.write(chirp()) + encoder.close()))
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.1)
    assert sizes[2] == pytest.approx(4 * sizes[0], rel=0.1)


@pytest.mark.parametrize("name", ["mp3", "opus", "aac"])
def test_sample_rates_are_those_of_the_codec(name):
    """All that it has from 8 to 48 kHz."""
    known = av.Codec(PACKET_FORMATS[name].codec, "w").audio_rates
    assert sorted(PACKET_FORMATS[name].sample_rates) == sorted(rate for rate in known if 8000 <= rate <= 48_000)


def test_invalid_arguments():
    with pytest.raises(RequestError, match=r"format must be one of mp3, wav, .*, not 'ogg'"):
        StreamEncoder("ogg", RATE)
    with pytest.raises(RequestError, match=r"opus has sample rates of .*, not 44100"):
        StreamEncoder("opus", 44_100)
    with pytest.raises(RequestError, match="bit rate of 10000000"):
        StreamEncoder("opus", RATE, 10_000_000)


def test_an_encoder_that_fails_is_one_line():
    with pytest.raises(AudioError, match="cannot encode aac: Invalid argument"):
        StreamEncoder("aac", RATE).write(np.full(RATE, np.nan, np.float32))


def test_missing_pyav_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"the format mp3 needs PyAV: pip install 'mlx-qwen3-tts\[book\]'"):
        StreamEncoder("mp3", RATE)
    assert StreamEncoder("wav", RATE).write(np.zeros(2, np.float32))[-4:] == bytes(4)
