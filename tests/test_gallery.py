"""The gallery: pictures are what the script draws, figures those of BENCHMARKS.md, the sound what its command makes."""

import json
import re
import shlex
from dataclasses import replace
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from benchmarks.timeline import listen
from demo_ears import recognizer
from draw_gallery import DOCS, IMAGES, draw
from mlx_qwen3_tts import Qwen3TTS, Request
from tests.support import released

FIGURES = json.loads((IMAGES / "figures.json").read_text(encoding="utf-8"))
PAGE = (DOCS / "gallery.md").read_text(encoding="utf-8")
BENCHMARKS = (DOCS.parent / "BENCHMARKS.md").read_text(encoding="utf-8")
PICTURES = draw()
MAX_SOUND_BYTES = 200_000
ATOL = 2e-3  # of samples: the codec's float32 differs between processors; 16 bits are 3e-5


def row_of_benchmarks(start: str) -> str:
    """The one line of BENCHMARKS.md that begins so."""
    (row,) = [line for line in BENCHMARKS.splitlines() if line.startswith(start)]
    return row


def test_the_page_shows_all_pictures():
    shown = re.findall(r"!\[[^\]]+\]\(images/([\w.]+)\)", PAGE)
    assert sorted(shown) == sorted(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_a_committed_picture_is_what_the_script_draws(name):
    assert (IMAGES / name).read_bytes().decode() == PICTURES[name] == draw()[name]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_legible_by_itself(name):
    """It is valid XML, has a description, knows dark pages, and takes no more room than a reader has."""
    root = ElementTree.fromstring(PICTURES[name])
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text
    assert root.find(f"{space}desc").text
    assert "prefers-color-scheme:dark" in root.find(f"{space}style").text
    width, height = float(root.get("width")), float(root.get("height"))
    assert width <= 900
    for text in root.iter(f"{space}text"):
        assert 0 < float(text.get("y")) < height
        assert 0 < float(text.get("x")) < width


@pytest.mark.parametrize("name", ["0.6B", "1.7B"])
def test_sizes_are_the_released_ones(name):
    talker = released.config(f"{name}-CustomVoice")["talker_config"]
    tensors = released.tensors(f"{name}-CustomVoice")

    def millions(prefix: str) -> int:
        return round(sum(prod(shape) for key, shape in tensors.items() if key.startswith(prefix)) / 1e6)

    assert FIGURES["sizes"][name] == {
        "hidden": talker["hidden_size"],
        "mlp": talker["intermediate_size"],
        "talker_millions": millions("talker.model.layers."),
        "predictor_millions": millions("talker.code_predictor.model.layers."),
        "heads_millions": millions("talker.code_predictor.lm_head."),
    }


def test_size_of_the_codec():
    weights = sum(prod(shape) for key, shape in released.codec_tensors().items() if key.startswith("decoder."))
    assert FIGURES["sizes"]["codec_decoder_millions"] == round(weights / 1e6)


def test_speed_per_batch_is_that_of_the_benchmarks():
    both = row_of_benchmarks("| the same with the codec")
    for library in FIGURES["batches"]["frames_per_second"].values():
        assert re.search(rf"\b{library['8']}( frames a second)? against {library['1']}\)", both)
    for rows, start in (("4", "| against mlx-audio's batch of 4"), ("8", "| against its batch of 8")):
        row = row_of_benchmarks(start)
        for library in FIGURES["batches"]["ms_per_step"].values():
            ours, theirs = (written(span) for span in library[rows].values())
            assert re.search(rf"\({re.escape(ours)}( ms)? against {re.escape(theirs)}\)", row)


def written(span: list[float]) -> str:
    """Measurements as BENCHMARKS.md has them."""
    low, high = span
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


@pytest.mark.parametrize("number, start", [(0, "| 1 | 60 ms"), (1, "| 8, the first")])
def test_timelines_are_those_of_the_benchmarks(number, start):
    stream = FIGURES["streams"][number]
    first_audio, speed, waited, buffered, underruns = row_of_benchmarks(start).split(" | ")[1:6]
    assert first_audio == f"{1000 * stream['arrivals'][0]:.0f} ms"
    assert speed == f"{sum(stream['audio']) / stream['arrivals'][-1]:.1f} times real time"
    assert waited == f"after {1000 * stream['first_sound']:,.0f} ms"
    arrived = sum(s for at, s in zip(stream["arrivals"], stream["audio"], strict=True) if at <= stream["first_sound"])
    assert buffered == f"{arrived:.2f} s"
    assert underruns == str(stream["underruns"])


def test_a_timeline_is_recorded():
    """A stream of 5 frames on a device in real time: chunks of 1, 1, 2 and 1 frames, and all of it is heard."""
    tts = Qwen3TTS.from_pretrained("demo-random")
    tts.warm_up()
    timeline = listen(tts, replace(Request("hello", stop_runaway=False, seed=1), max_frames=5))
    arrivals = [at for at, _ in timeline.chunks]
    assert [round(seconds / 0.08) for _, seconds in timeline.chunks] == [1, 1, 2, 1]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] <= timeline.first_sound <= timeline.last_sound - 0.4
    assert arrivals[-1] < timeline.last_sound


def test_the_sound_is_what_its_command_makes(run_cli, tmp_path, monkeypatch):
    """The command beside it, in a directory of its own, gives its samples; it is small, and it says what it should."""
    (command,) = re.findall(r"^mlx-qwen3-tts (say .*)$", PAGE, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    code, _, _ = run_cli(*shlex.split(command))
    assert code == 0
    path = DOCS / "demo.wav"
    assert path.stat().st_size < MAX_SOUND_BYTES
    sound, rate = soundfile.read(path, dtype="float32")
    made, made_rate = soundfile.read(Path("demo.wav"), dtype="float32")
    assert (rate, len(sound)) == (made_rate, len(made))
    np.testing.assert_allclose(made, sound, atol=ATOL)
    assert recognizer()(sound, rate) == ("hello", "it", "is", "eleven", "twenty", "six")
