"""One audio file of a book, written while the audio comes; its tags and chapters are written at the end.

audio ─ MediaFile ─ encoder ─┬─ m4b, m4a, wav: the file itself; chapters go into the trailer
                             └─ mp3, flac, opus: a bare file ─ copied behind its tags, which these formats have in front

The bytes depend on the audio, the tags and FFmpeg's version alone. Decoded, a file has the samples that were written
where they were written. At the end AAC has up to a frame (43 ms) of silence more for decoders that ignore the length in
the file's edit list, MP3 some samples; Opus, FLAC and WAV are exact. MP4 chapters are exact to the sample, the others
to the millisecond. WAV files have no chapters; they become RF64 beyond 4 GiB.
"""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.pyav import add_mono_stream, audio_frame, error_text, load_pyav
from ..errors import AudioError, BookError
from .tags import ChapterMark, Metadata, open_cover, picture_block, plain_tags, vorbis_comments

_ID3_HEADER_SIZE = 10


@dataclass(frozen=True)
class MediaFormat:
    """How a kind of file is made: FFmpeg's muxer and encoder, their options and the default bits per second.

    tags: "trailer" if they are written at the end, else how they get in front of the audio: "id3", "vorbis".
    """

    muxer: str
    codec: str
    sample_format: str
    bit_rate: int | None
    tags: str
    options: dict[str, str] = field(default_factory=dict)
    codec_options: dict[str, str] = field(default_factory=dict)


# The index comes first, so that players can begin before they have the whole file.
_MP4_OPTIONS = {"movflags": "+faststart"}
# Twice as fast as the default coder, and closer to the input: 36 dB of SNR against 30 at 64 kb/s, speech at 24 kHz.
_AAC_OPTIONS = {"aac_coder": "fast"}
FORMATS = {
    # The brand and the media type tell Apple's players that it is an audiobook.
    ".m4b": MediaFormat("mp4", "aac", "fltp", 64_000, "trailer", {"brand": "M4B ", **_MP4_OPTIONS}, _AAC_OPTIONS),
    ".m4a": MediaFormat("mp4", "aac", "fltp", 64_000, "trailer", {"brand": "M4A ", **_MP4_OPTIONS}, _AAC_OPTIONS),
    ".mp3": MediaFormat("mp3", "libmp3lame", "fltp", 64_000, "id3", {"id3v2_version": "0"}),
    ".opus": MediaFormat("ogg", "libopus", "flt", 48_000, "vorbis"),
    ".flac": MediaFormat("flac", "flac", "s16", None, "vorbis"),
    ".wav": MediaFormat("wav", "pcm_s16le", "s16", None, "trailer", {"rf64": "auto"}),
}
_AUDIOBOOK = {"media_type": "2"}  # the atom `stik`


class MediaFile:
    """Encodes audio into `path`, which is incomplete until `close`."""

    def __init__(
        self,
        path: Path,
        suffix: str,
        sample_rate: int,
        metadata: Metadata,
        bit_rate: int | None = None,
        chapter_title: str | None = None,
        track: str = "",
    ) -> None:
        """suffix: of FORMATS; `path` itself may end in anything. Others: see tags.plain_tags.

        Raises BookError.
        """
        self._av = load_pyav("a book")
        self._path = path
        self._suffix = suffix
        self._format = FORMATS[suffix]
        self._sample_rate = sample_rate
        self._metadata = metadata
        self._tags = plain_tags(metadata, chapter_title, track)
        self._bare = path if self._format.tags == "trailer" else path.with_name(path.name + ".bare")
        self.num_samples = 0
        if self._format.bit_rate is None:
            bit_rate = None
        with self._one_error():
            self._open(bit_rate or self._format.bit_rate)

    def _open(self, bit_rate: int | None) -> None:
        options = dict(self._format.options)
        if self._format.muxer == "mp4":
            options["movie_timescale"] = str(self._sample_rate)  # what chapters are counted in
        self._container = self._create(self._bare, options)
        self._stream = add_mono_stream(
            self._av, self._container, self._format.codec, self._format.codec_options, self._format.sample_format,
            self._sample_rate, bit_rate,
        )  # fmt: skip
        packets = []
        if self._format.tags == "trailer":
            packets = self._add_tags(self._container)
        self._container.start_encoding()
        self._container.mux(packets)

    def _create(self, target: Path | io.BytesIO, options: dict[str, str]) -> Any:
        """Return a muxer that writes no version, date or random number."""
        name = str(target) if isinstance(target, Path) else target
        container = self._av.open(name, "w", format=self._format.muxer, options=options)
        container.flags |= self._av.container.Flags.bitexact.value
        return container

    def write(self, audio: np.ndarray) -> None:
        """Append float audio [samples] in -1 .. 1. Raises BookError."""
        with self._one_error():
            for start in range(0, len(audio), self._sample_rate):
                block = audio[start : start + self._sample_rate]
                sample_format = self._format.sample_format
                self._encode(audio_frame(self._av, block, sample_format, self._sample_rate, self.num_samples))
                self.num_samples += len(block)

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self, chapters: list[ChapterMark]) -> None:
        """Complete the file. Raises BookError."""
        with self._one_error():
            self._encode(None)
            if self._format.muxer == "mp4":
                self._container.set_chapters(self._chapter_list(chapters))
            self._container.close()
            if self._format.tags == "id3":
                self._put_behind_tags(chapters)
            elif self._format.tags == "vorbis":
                self._copy_with_tags(chapters)

    def abort(self) -> None:
        """Remove what was written. Raises OSError."""
        with suppress(self._av.FFmpegError):  # it writes a trailer, which may fail as what was before
            self._container.close()
        self._bare.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _one_error(self) -> Iterator[None]:
        """Turn what PyAV and the disk raise into a BookError."""
        try:
            yield
        except (self._av.FFmpegError, OSError, AudioError) as error:
            raise BookError(error_text(error)) from None

    def _chapter_list(self, chapters: list[ChapterMark]) -> list[dict[str, Any]]:
        time_base = Fraction(1, self._sample_rate)
        return [
            {"id": i, "start": c.start, "end": c.end, "time_base": time_base, "metadata": {"title": c.title}}
            for i, c in enumerate(chapters)
        ]

    def _add_tags(self, container: Any) -> list[Any]:
        """Set a container's tags, and return the packets of its cover, which come first."""
        container.metadata.update(self._tags)
        if self._format.muxer == "mp4":
            container.metadata.update(_AUDIOBOOK)
            if "language" in self._tags:
                container.streams[0].metadata["language"] = self._tags["language"]
        if self._metadata.cover is None or self._format.muxer in ("ogg", "wav"):
            return []
        with open_cover(self._metadata.cover) as image:
            source = image.streams.video[0]
            packet = next(packet for packet in image.demux(source) if packet.size)
            stream = container.add_stream_from_template(source)
        stream.disposition = self._av.stream.Disposition.attached_pic
        packet.stream = stream
        packet.pts = packet.dts = 0
        return [packet]

    def _put_behind_tags(self, chapters: list[ChapterMark]) -> None:
        """Make the MP3 file: an ID3 tag, which FFmpeg writes into a file without audio, and the bare file."""
        buffer = io.BytesIO()
        container = self._create(buffer, {"id3v2_version": "4", "write_xing": "0"})
        container.add_stream(self._format.codec, rate=self._sample_rate, layout="mono")
        container.set_chapters(self._chapter_list(chapters))
        packets = self._add_tags(container)
        container.start_encoding()
        container.mux(packets)
        container.close()
        tag = buffer.getvalue()
        size = 0
        for byte in tag[6:_ID3_HEADER_SIZE]:  # seven bits each
            size = size << 7 | byte
        with self._path.open("wb") as target, self._bare.open("rb") as source:
            target.write(tag[: _ID3_HEADER_SIZE + size])
            shutil.copyfileobj(source, target)
        self._bare.unlink()

    def _copy_with_tags(self, chapters: list[ChapterMark]) -> None:
        """Make the FLAC or Opus file: the packets of the bare file behind a header with comments."""
        self._tags = vorbis_comments(self._tags, chapters, self._sample_rate)
        if self._format.muxer == "ogg" and self._metadata.cover is not None:
            self._tags["METADATA_BLOCK_PICTURE"] = picture_block(self._metadata.cover)
        with self._av.open(str(self._bare)) as source, self._create(self._path, {}) as target:
            stream = target.add_stream_from_template(source.streams.audio[0])
            packets = self._add_tags(target)
            target.start_encoding()
            target.mux(packets)
            for packet in source.demux(source.streams.audio[0]):
                if packet.dts is not None:  # the last one is empty
                    packet.stream = stream
                    target.mux(packet)
        self._bare.unlink()
