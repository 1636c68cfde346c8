"""Audio as the bytes of a stream that can be played while it grows.

chunks ─ StreamEncoder ─┬─ PcmEncoder      wav, pcm
                        └─ PacketEncoder   mp3, flac, opus, aac: PyAV's encoder ─ its muxer ─ OutputBuffer

A stream has one header, which leaves the length open. Bytes come out as soon as the codec permits. At 24 kHz, chunks of
80 ms leave this much audio in the encoder (measured, at most):

    wav, pcm, flac   0 ms     a FLAC block is one chunk; smaller chunks wait until it is full
    opus            27 ms     a packet of 20 ms, and 6.5 ms of the codec
    mp3             87 ms     frames of 24 ms; no bit reservoir, which would hold back more
    aac            123 ms     frames of 43 ms, two of which are held back: the first chunk alone yields nothing

MP3 and AAC streams have no place for the codec's delay. A decoder yields 46 ms (MP3) or 43 ms (AAC) of near silence
first, and fills up the last frame. Opus, FLAC and WAV have exactly the samples that were written.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from ..errors import AudioError, RequestError
from .formats import pcm16, wav_header
from .pyav import add_mono_stream, audio_frame, error_text, load_pyav

# By format: its media type (RFC 3003, 3533, 7845, 9639; audio/aac is what browsers call ADTS).
MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
}


@dataclass(frozen=True)
class PacketFormat:
    """How PyAV encodes a format.

    sample_rates: those that the codec takes; empty for all.
    """

    container: str
    codec: str
    sample_format: str
    bit_rate: int | None
    container_options: dict[str, str]
    codec_options: dict[str, str] = field(default_factory=dict)
    sample_rates: tuple[int, ...] = ()


_LOW_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
PACKET_FORMATS = {
    # A Xing header states the length, which a stream does not know.
    "mp3": PacketFormat(
        "mp3", "libmp3lame", "fltp", 96_000, {"write_xing": "0", "id3v2_version": "0"}, {"reservoir": "0"}, _LOW_RATES
    ),
    # A block is a frame of the model (80 ms at 24 kHz). By default the header has 8 KiB of padding.
    "flac": PacketFormat("flac", "flac", "s16", None, {"metadata_header_padding": "0"}, {"frame_size": "1920"}),
    # A page for each packet; by default it is one a second.
    "opus": PacketFormat(
        "ogg", "libopus", "flt", 48_000, {"page_duration": "20000"}, {}, (8000, 12000, 16000, 24000, 48000)
    ),
    "aac": PacketFormat("adts", "aac", "fltp", 64_000, {}, {}, _LOW_RATES),
}


class OutputBuffer:
    """Where a muxer writes to; it cannot seek, so that the muxer never goes back to its header."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        """Append the bytes."""
        self._data += data
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data = bytes(self._data)
        self._data.clear()
        return data


class Encoder(ABC):
    """Turns audio into the bytes of one format."""

    @abstractmethod
    def write(self, audio: np.ndarray) -> bytes:
        """Take float audio [samples], and return the bytes that are ready. Raises AudioError."""

    @abstractmethod
    def close(self) -> bytes:
        """Return the last bytes. Raises AudioError."""


class PcmEncoder(Encoder):
    """16-bit samples, after `header`."""

    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def write(self, audio: np.ndarray) -> bytes:
        data = self._header + pcm16(audio)
        self._header = b""
        return data

    def close(self) -> bytes:
        data = self._header
        self._header = b""
        return data


class PacketEncoder(Encoder):
    """A format that PyAV encodes."""

    def __init__(self, name: str, sample_rate: int, bit_rate: int | None) -> None:
        self._name = name
        self._format = PACKET_FORMATS[name]
        self._sample_rate = sample_rate
        self._num_samples = 0
        self._buffer = OutputBuffer()
        self._av = load_pyav(f"the format {name}")
        if bit_rate is None:
            bit_rate = self._format.bit_rate
        try:
            self._open(bit_rate)
        except (self._av.FFmpegError, OverflowError) as error:
            raise RequestError(
                f"{name} cannot have a sample rate of {sample_rate} and a bit rate of {bit_rate}: {error_text(error)}",
                "bit_rate",
            ) from None

    def _open(self, bit_rate: int | None) -> None:
        options = {"flush_packets": "1", **self._format.container_options}
        self._container = self._av.open(self._buffer, "w", format=self._format.container, options=options)
        self._container.flags |= self._av.container.Flags.bitexact.value  # no version, no random serial number
        self._stream = add_mono_stream(
            self._av, self._container, self._format.codec, self._format.codec_options, self._format.sample_format,
            self._sample_rate, bit_rate,
        )  # fmt: skip
        self._container.start_encoding()

    def write(self, audio: np.ndarray) -> bytes:
        if len(audio):
            sample_format = self._format.sample_format
            self._encode(audio_frame(self._av, audio, sample_format, self._sample_rate, self._num_samples))
            self._num_samples += len(audio)
        return self._buffer.take()

    def close(self) -> bytes:
        self._encode(None)
        try:
            self._container.close()
        except self._av.FFmpegError as error:
            raise self._failure(error) from None
        return self._buffer.take()

    def _encode(self, frame: object) -> None:
        """Encode a frame; None flushes the encoder."""
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except self._av.FFmpegError as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> AudioError:
        return AudioError(f"cannot encode {self._name}: {error_text(error)}")


class StreamEncoder:
    """Encodes audio while it is generated. It needs PyAV for all formats but wav and pcm."""

    def __init__(self, format: str, sample_rate: int, bit_rate: int | None = None) -> None:  # noqa: A002
        """format: one of MEDIA_TYPES: mp3, wav, flac, opus (in Ogg), aac (ADTS), pcm (16-bit, little-endian).

        sample_rate: of the audio, in Hz; the stream has the same.
        bit_rate: bits per second; None is the format's default. Lossless formats ignore it.
        Raises RequestError for an invalid argument, AudioError if PyAV is missing.
        """
        if format not in MEDIA_TYPES:
            raise RequestError(f"format must be one of {', '.join(MEDIA_TYPES)}, not {format!r}", "format")
        self._is_open = True
        self._encoder: Encoder
        if format == "pcm":
            self._encoder = PcmEncoder()
        elif format == "wav":
            self._encoder = PcmEncoder(wav_header(sample_rate, None))
        else:
            _check_rate(format, sample_rate)
            self._encoder = PacketEncoder(format, sample_rate, bit_rate)

    def write(self, audio: np.ndarray) -> bytes:
        """Take float audio [samples] in -1 .. 1, and return the bytes that are ready, which may be none.

        Raises AudioError.
        """
        assert self._is_open
        return self._encoder.write(audio)

    def close(self) -> bytes:
        """Return the end of the stream; the second time, nothing. Raises AudioError."""
        if not self._is_open:
            return b""
        self._is_open = False
        return self._encoder.close()


def _check_rate(name: str, sample_rate: int) -> None:
    rates = PACKET_FORMATS[name].sample_rates
    if rates and sample_rate not in rates:
        raise RequestError(
            f"{name} has sample rates of {', '.join(map(str, rates))}, not {sample_rate}: resample the audio",
            "sample_rate",
        )
