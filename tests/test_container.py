"""BookWriter: files that mutagen, libsndfile and FFmpeg read back, with chapters where they were written."""

import dataclasses
import errno
import os
import resource
import struct
import sys
import zlib
from base64 import b64decode
from pathlib import Path

import av
import mutagen
import mutagen.flac
import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts.errors import BookError
from mlx_qwen3_tts.longform import media_file
from mlx_qwen3_tts.longform.container import BookWriter, check_target
from mlx_qwen3_tts.longform.tags import Metadata, language_code

RATE = 24_000
SUFFIXES = [".m4b", ".m4a", ".mp3", ".opus", ".flac", ".wav"]
STARTS = [0, 30_001, 70_007]  # samples; no whole number of milliseconds or of any codec's frames
LENGTH = 90_011
TITLES = ['Eins: "Anfang" & <Ende>', "第二章", "Drei"]
# Samples at the end that a decoder adds: the rest of an AAC frame, what LAME's header cannot state.
MAX_EXTRA = {".m4b": 1023, ".m4a": 1023, ".mp3": 576}


def png() -> bytes:
    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 8, 6, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\0\0" * 8) * 6)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", size) + part(b"IDAT", rows) + part(b"IEND", b"")


def jpeg() -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 16, 8, "yuvj420p"
    frame = av.VideoFrame.from_ndarray(np.full((8, 16, 3), 120, np.uint8)).reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


BOOK = Metadata("Die Zeitmaschine", "Anna Ähm", "de-AT", png())


def book_audio() -> np.ndarray:
    """Quiet noise, and a click where each chapter begins."""
    audio = np.random.default_rng(0).normal(0, 1e-3, LENGTH).astype(np.float32)
    for start in STARTS:
        audio[start + 100 : start + 140] = 0.8
    return audio


def write_book(target: Path, metadata: Metadata = BOOK, size: int = 5000, **options) -> np.ndarray:
    audio = book_audio()
    with BookWriter(target, RATE, metadata, **options) as writer:
        for title, start, end in zip(TITLES, STARTS, [*STARTS[1:], LENGTH], strict=True):
            writer.begin_chapter(title)
            for position in range(start, end, size):
                writer.write(audio[position : min(end, position + size)])
        assert writer.num_samples == LENGTH
    return audio


def decode(path: Path) -> np.ndarray:
    """What FFmpeg hears, at RATE."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    audio = np.concatenate(frames)
    if audio.dtype == np.int16:
        audio = audio / 32767
    return audio[:: rate // RATE]


def onsets(audio: np.ndarray) -> list[int]:
    """Where the clicks are: the samples that cross half of them first."""
    loud = np.flatnonzero(audio > 0.4)
    return [int(index) for index in loud[np.diff(loud, prepend=-RATE) > 10_000]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_samples_are_where_they_were_written(tmp_path, suffix):
    audio = write_book(tmp_path / f"book{suffix}")
    decoded = decode(tmp_path / f"book{suffix}")
    assert LENGTH <= len(decoded) <= LENGTH + MAX_EXTRA.get(suffix, 0)
    assert np.abs(decoded[LENGTH + 50 :]).max(initial=0) < 0.02
    for found, start in zip(onsets(decoded), STARTS, strict=True):
        assert abs(found - (start + 100)) <= 3
    if suffix in (".flac", ".wav"):
        np.testing.assert_array_equal(np.rint(decoded * 32767), np.rint(audio * 32767))


@pytest.mark.parametrize("suffix", [".mp3", ".opus", ".flac", ".wav"])
def test_libsndfile_hears_the_same(tmp_path, suffix):
    write_book(tmp_path / f"book{suffix}")
    decoded, rate = soundfile.read(tmp_path / f"book{suffix}")
    assert LENGTH <= len(decoded) * RATE // rate <= LENGTH + MAX_EXTRA.get(suffix, 0)
    for found, start in zip(onsets(decoded[:: rate // RATE]), STARTS, strict=True):
        assert abs(found - (start + 100)) <= 3


@pytest.mark.parametrize("suffix", [".m4b", ".m4a"])
def test_mp4_tags_and_chapters(tmp_path, suffix):
    path = tmp_path / f"book{suffix}"
    write_book(path)
    file = mutagen.File(path)
    assert file.tags["\xa9nam"] == ["Die Zeitmaschine"]
    assert file.tags["\xa9alb"] == ["Die Zeitmaschine"]
    assert file.tags["\xa9ART"] == file.tags["aART"] == ["Anna Ähm"]
    assert file.tags["\xa9gen"] == ["Audiobook"]
    assert file.tags["stik"] == [2]
    assert bytes(file.tags["covr"][0]) == png()
    assert [chapter.title for chapter in file.chapters] == TITLES
    assert [chapter.start for chapter in file.chapters] == pytest.approx([s / RATE for s in STARTS], abs=1e-6)
    data = path.read_bytes()
    assert data[4:12] == b"ftypM4B " if suffix == ".m4b" else b"ftypM4A "
    assert data.index(b"moov") < data.index(b"mdat")  # playable from its beginning
    with av.open(str(path)) as container:  # the chapter track, which Apple's players read, is exact
        found = [(c["start"] * c["time_base"], c["end"] * c["time_base"]) for c in container.chapters()]
        assert [(start * RATE, end * RATE) for start, end in found] == list(
            zip(STARTS, [*STARTS[1:], LENGTH], strict=True)
        )
        assert container.streams.audio[0].language == "deu"


def test_mp4_states_the_exact_length(tmp_path):
    """The edit list, by which players drop the priming and the rest of the last frame."""
    write_book(tmp_path / "book.m4b")
    data = (tmp_path / "book.m4b").read_bytes()
    position = data.index(b"elst")
    _version, count, duration, start = struct.unpack(">IIIi", data[position + 4 : position + 20])
    assert (count, duration, start) == (1, LENGTH, 1024)


def test_mp3_tags_and_chapters(tmp_path):
    write_book(tmp_path / "book.mp3")
    tags = mutagen.File(tmp_path / "book.mp3").tags
    assert tags["TIT2"] == tags["TALB"] == ["Die Zeitmaschine"]
    assert tags["TPE1"] == ["Anna Ähm"]
    assert tags["TLAN"] == ["deu"]
    assert tags.getall("APIC")[0].data == png()
    chapters = tags.getall("CHAP")
    assert [chapter.sub_frames["TIT2"].text[0] for chapter in chapters] == TITLES
    ends = [*STARTS[1:], LENGTH]
    assert [c.start_time for c in chapters] == pytest.approx([1000 * s / RATE for s in STARTS], abs=0.6)
    assert [c.end_time for c in chapters] == pytest.approx([1000 * s / RATE for s in ends], abs=0.6)
    assert tags.getall("CTOC")[0].child_element_ids == [chapter.element_id for chapter in chapters]


@pytest.mark.parametrize("suffix", [".flac", ".opus"])
def test_vorbis_comments_and_chapters(tmp_path, suffix):
    write_book(tmp_path / f"book{suffix}")
    file = mutagen.File(tmp_path / f"book{suffix}")
    assert file["title"] == file["album"] == ["Die Zeitmaschine"]
    assert file["artist"] == ["Anna Ähm"]
    assert file["chapter000"] == ["00:00:00.000"]
    assert file["chapter001"] == ["00:00:01.250"]
    assert file["chapter002"] == ["00:00:02.917"]
    assert [file[f"chapter00{index}name"][0] for index in range(3)] == TITLES
    if suffix == ".opus":
        picture = mutagen.flac.Picture(b64decode(file["metadata_block_picture"][0]))
    else:
        picture = file.pictures[0]
        assert file.info.md5_signature != 0
    assert picture.data == png()
    assert (picture.mime, picture.width, picture.height, picture.depth) == ("image/png", 8, 6, 24)


def test_wav_tags(tmp_path):
    write_book(tmp_path / "book.wav")
    with soundfile.SoundFile(tmp_path / "book.wav") as file:
        assert (file.title, file.artist, file.album) == ("Die Zeitmaschine", "Anna Ähm", "Die Zeitmaschine")
        assert file.subtype == "PCM_16"


@pytest.mark.parametrize("suffix", [".m4b", ".mp3", ".opus", ".flac"])
def test_jpeg_cover(tmp_path, suffix):
    cover = jpeg()
    write_book(tmp_path / f"book{suffix}", Metadata("Title", cover=cover))
    assert cover in (tmp_path / f"book{suffix}").read_bytes() or suffix == ".opus"
    file = mutagen.File(tmp_path / f"book{suffix}")
    if suffix == ".opus":
        picture = mutagen.flac.Picture(b64decode(file["metadata_block_picture"][0]))
        assert (picture.data, picture.width, picture.height) == (cover, 16, 8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_repeat_and_do_not_depend_on_chunks(tmp_path, suffix):
    write_book(tmp_path / f"a{suffix}")
    write_book(tmp_path / f"b{suffix}", size=777)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_else_is_left(tmp_path, suffix):
    write_book(tmp_path / f"book{suffix}", Metadata())
    assert [path.name for path in tmp_path.iterdir()] == [f"book{suffix}"]
    with pytest.raises(ZeroDivisionError), BookWriter(tmp_path / f"other{suffix}", RATE, BOOK) as writer:
        writer.write(book_audio())
        assert not (tmp_path / f"other{suffix}").exists()
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == [f"book{suffix}"]


def test_folder_with_a_file_a_chapter(tmp_path):
    audio = write_book(tmp_path / "book", folder_format="flac", num_chapters=3)
    paths = sorted((tmp_path / "book").iterdir())
    assert [path.name for path in paths] == ["01 Eins Anfang & Ende.flac", "02 第二章.flac", "03 Drei.flac"]
    for number, (path, start, end) in enumerate(zip(paths, STARTS, [*STARTS[1:], LENGTH], strict=True), 1):
        decoded, _ = soundfile.read(path, dtype="int16")
        np.testing.assert_array_equal(decoded, np.rint(audio[start:end] * 32767))
        file = mutagen.File(path)
        assert file["title"] == [TITLES[number - 1]]
        assert file["album"] == ["Die Zeitmaschine"]
        assert file["tracknumber"] == [f"{number}/3"]
        assert file.pictures[0].data == png()
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


@pytest.mark.parametrize("name", ["mp3", "m4a", "opus"])
def test_folder_that_exists_keeps_other_files(tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    write_book(tmp_path, folder_format=name)
    write_book(tmp_path, folder_format=name)
    assert len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert str(mutagen.File(sorted(tmp_path.iterdir())[1], easy=True)["tracknumber"][0]) in ("2", "2/0")


def test_empty_chapters_and_audio_before_the_first(tmp_path):
    with BookWriter(tmp_path / "book.m4b", RATE, BOOK) as writer:
        writer.write(book_audio()[:1000])
        writer.begin_chapter("Empty")
        writer.begin_chapter("  ")
        writer.write(book_audio()[:1000])
    chapters = mutagen.File(tmp_path / "book.m4b").chapters
    assert [chapter.title for chapter in chapters] == ["Die Zeitmaschine", "3"]
    with pytest.raises(BookError, match="there is no audio"):
        BookWriter(tmp_path / "empty.mp3", RATE, BOOK).close()
    assert [path.name for path in tmp_path.iterdir()] == ["book.m4b"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, suffix):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 60 * RATE).astype(np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = BookWriter(tmp_path / f"book{suffix}", RATE, BOOK)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(BookError, match=f"cannot write .*book{suffix}: {os.strerror(errno.EFBIG)}"):
            writer.write(audio)
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_hostile_titles(tmp_path):
    titles = ["../../etc/passwd", "a\0b\nc", "\ud800", "x" * 500, "..", "中" * 200, "CON: a/b"]
    with BookWriter(tmp_path / "book", RATE, BOOK, folder_format="mp3") as writer:
        for title in titles:
            writer.begin_chapter(title)
            writer.write(book_audio()[:1000])
    names = sorted(path.name for path in (tmp_path / "book").iterdir())
    assert len(names) == len(titles)
    assert names[0] == "01 etc passwd.mp3"
    assert names[1] == "02 a b c.mp3"
    assert max(len(name.encode()) for name in names) < 140
    with BookWriter(tmp_path / "book.m4b", RATE, Metadata("\0\ud800\n")) as writer:
        for title in titles:
            writer.begin_chapter(title)
            writer.write(book_audio()[:1000])
    assert len(mutagen.File(tmp_path / "book.m4b").chapters) == len(titles)


def test_targets_that_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    refused = [
        (tmp_path / "book.ogg", None, r"its name must end in .m4b, .m4a, .mp3"),
        (tmp_path / "missing" / "book.m4b", None, "No such file or directory"),
        (tmp_path / "file", "mp3", "it is a file"),
        (tmp_path / "book.m4b", "mp3", "its name is that of a file; leave"),
        (tmp_path / "folder", "ogg", "folder_format must be one of m4b, m4a, mp3, opus, flac, wav, not 'ogg'"),
        (tmp_path / ("x" * 300 + ".m4b"), None, "name too long"),
        (Path("/dev/null"), "mp3", "it is a file"),
    ]
    for path, folder_format, message in refused:
        with pytest.raises(BookError, match=message):
            check_target(path, folder_format)
    check_target(tmp_path / "fine.m4b")
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(Exception, match=r"a book needs PyAV: pip install 'mlx-qwen3-tts\[book\]'"):
        check_target(tmp_path / "fine.m4b")


def test_other_invalid_arguments(tmp_path):
    for cover in (b"", b"GIF89a", png()[:40], b"\xff\xd8\xff\xe0 not an image"):
        with pytest.raises(BookError, match="the cover is not a JPEG or PNG image"):
            BookWriter(tmp_path / "book.m4b", RATE, Metadata(cover=cover))
    with pytest.raises(BookError, match=r".opus has sample rates of .*, not 44100"):
        BookWriter(tmp_path / "book.opus", 44_100, BOOK)
    with pytest.raises(BookError, match=r"cannot write .*book.opus"):
        BookWriter(tmp_path / "book.opus", RATE, BOOK, bit_rate=10**7)
    assert list(tmp_path.iterdir()) == []


def test_bit_rate(tmp_path):
    for suffix in (".m4b", ".mp3", ".opus"):
        write_book(tmp_path / f"low{suffix}", Metadata(), bit_rate=24_000)
        write_book(tmp_path / f"high{suffix}", Metadata(), bit_rate=96_000)
        assert (tmp_path / f"high{suffix}").stat().st_size > 1.5 * (tmp_path / f"low{suffix}").stat().st_size


def test_language_codes():
    found = [language_code(tag) for tag in ("de", "zh-TW", "EN_us", "ast", "", "x", "und")]
    assert found == ["deu", "zho", "eng", "ast", "", "", "und"]


def test_wav_as_rf64(tmp_path, monkeypatch):
    """FFmpeg writes RF64 if the file exceeds 4 GiB; here it is told to always."""
    wav = media_file.FORMATS[".wav"]
    assert wav.options == {"rf64": "auto"}
    monkeypatch.setitem(media_file.FORMATS, ".wav", dataclasses.replace(wav, options={"rf64": "always"}))
    audio = write_book(tmp_path / "book.wav")
    assert soundfile.info(tmp_path / "book.wav").format == "RF64"
    np.testing.assert_array_equal(soundfile.read(tmp_path / "book.wav", dtype="int16")[0], np.rint(audio * 32767))


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".opus"])
def test_only_mp4_says_that_it_is_an_audiobook_by_number(tmp_path, suffix):
    write_book(tmp_path / f"book{suffix}")
    assert b"media_type" not in (tmp_path / f"book{suffix}").read_bytes().lower()
