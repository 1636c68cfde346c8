"""A book of times and numbers is heard word for word, chapter by chapter, out of the finished file.

The demo speaks, pocketsphinx hears: first each segment (`--check`), and in the end what another library decodes.
"""

import json
import os
import shlex
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mlx_qwen3_tts.longform.check import error_rate
from tests.support import ear
from tests.support.process import ROOT

pytest.importorskip("pocketsphinx")
from demo_ears import recognizer

CHAPTERS = {
    "One two three.": ["It is eleven twenty-six.", "It is five zero five.", "Four five six seven."],
    "Eight nine.": ["It is twelve forty.", "Two nine eight one."],
}


def write_epub(path: Path) -> None:
    """Write an EPUB 3 with a file for each chapter."""
    names = [f"part{number}.xhtml" for number in range(len(CHAPTERS))]
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    links = "".join(f'<li><a href="{name}">{title}</a></li>' for name, title in zip(names, CHAPTERS, strict=True))
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr(
            "META-INF/container.xml",
            '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
            'full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        book.writestr(
            "book.opf",
            '<package version="3.0" xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            "<metadata><dc:title>The time</dc:title><dc:creator>A. Clock</dc:creator><dc:language>en</dc:language>"
            '</metadata><manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" '
            f'properties="nav"/>{items}</manifest><spine>{spine}</spine></package>',
        )
        head = '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body>'
        book.writestr("nav.xhtml", f'{head}<nav epub:type="toc"><ol>{links}</ol></nav></body></html>')
        for name, (title, texts) in zip(names, CHAPTERS.items(), strict=True):
            paragraphs = "".join(f"<p>{text}</p>" for text in texts)
            book.writestr(name, f"{head}<h1>{title}</h1>{paragraphs}</body></html>")


def decode(path: Path) -> np.ndarray:
    """Return the samples of an MP4 file, float32 [samples]."""
    import av

    with av.open(str(path)) as file:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]).astype(np.float32)


@pytest.mark.slow
def test_a_book_is_heard(run_cli, tmp_path, monkeypatch):
    import mutagen.mp4

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tools"), prepend=os.pathsep)  # of the recognizer's process
    write_epub(tmp_path / "times.epub")
    target = tmp_path / "times.m4b"
    code, _, err = run_cli(
        "book", tmp_path / "times.epub", "-o", target, "--model", "demo", "--voice", "slt", "--subtitles", "json",
        "--max-chars", 40, "--min-chars", 1, "--check", shlex.join([sys.executable, ear.__file__]),
        "--check-limit", 0,
    )  # fmt: skip
    assert code == 0, err
    assert "seem wrong" not in err, err
    tags = mutagen.mp4.MP4(target)
    assert (tags.tags["\xa9nam"], tags.tags["\xa9ART"]) == (["The time"], ["A. Clock"])
    assert [chapter.title for chapter in tags.chapters] == list(CHAPTERS)
    cues = json.loads(target.with_suffix(".json").read_text())["cues"]
    audio = decode(target)
    hear = recognizer()
    edges = [*(round(24000 * chapter.start) for chapter in tags.chapters), len(audio)]
    for number, (title, texts) in enumerate(CHAPTERS.items(), start=1):
        spoken = [cue for cue in cues if cue["chapter"] == number]
        assert [cue["text"] for cue in spoken] == [title, *texts]
        assert edges[number - 1] - 24 <= spoken[0]["start_sample"]
        assert spoken[-1]["end_sample"] <= edges[number]
        for cue in spoken:
            words = " ".join(hear(audio[cue["start_sample"] : cue["end_sample"]], 24000))
            assert error_rate(cue["text"], words) == 0, f"{cue['text']} was heard as {words}"
