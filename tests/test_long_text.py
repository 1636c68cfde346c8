"""A short run of benchmarks/long_text.py."""

import pytest

from benchmarks.long_text import PARAGRAPH, measure, paragraphs, tenths


def test_paragraphs():
    texts = paragraphs(3000, seed=0)
    counts = [len(text.split()) for text in texts]
    assert sum(counts) >= 3000
    assert all(PARAGRAPH <= count < PARAGRAPH + 8 for count in counts[:-1])
    assert texts == paragraphs(3000, seed=0)


def test_tenths():
    assert tenths([*range(100)]) == [4.5, 49.5, 94.5]
    assert tenths([3.0]) == [3, 3, 3]
    assert tenths([]) == []


@pytest.mark.slow
def test_what_is_measured():
    report = measure(words=PARAGRAPH + 20, model="demo", every=0.3)
    assert (report["exit_code"], report["paragraphs"]) == (0, 2)
    assert len(report["cpu_ms_per_frame"]) == 3
    assert report["resident_mb_most"] > 20
    assert abs(report["file_mb"] - report["audio_minutes"] * 60 * 0.048) < 0.2
