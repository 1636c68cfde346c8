"""Draw the pictures of docs/gallery.md from figures that were measured.

    docs/images/figures.json, docs/demo.wav ─ three functions, one for each picture ─► docs/images/*.svg

    python tools/draw_gallery.py

The same figures give the same bytes, and a test compares them with the committed files. BENCHMARKS.md names the machine
and the commands of the figures; the sizes are those of the released configurations.
"""

import json
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import soundfile

from gallery_svg import Axes, Picture

DOCS = Path(__file__).parents[1] / "docs"
IMAGES = DOCS / "images"
FRAME_SECONDS = 0.08
FRAME_SAMPLES = 1920
SHOWN_FRAME = 10  # of demo.wav: a vowel
Figures = dict[str, Any]


def main() -> None:
    for name, text in draw().items():
        (IMAGES / name).write_text(text, encoding="utf-8")


def draw() -> dict[str, str]:
    """Return the pictures by file name."""
    figures = json.loads((IMAGES / "figures.json").read_text(encoding="utf-8"))
    return {
        "frame.svg": frame_picture(figures["sizes"]),
        "stream.svg": stream_picture(figures["streams"], figures["streams_machine"]),
        "batch.svg": batch_picture(figures["batches"], figures["batches_machine"]),
    }


# --- a frame's way through the model ---


def frame_picture(sizes: Figures) -> str:
    """Draw the flow of one frame; the columns at the right have the sizes of both models."""
    picture = Picture(
        860, 640, "A frame's way through the model",
        "Text token and previous frame are summed, the talker gives codebook 0, the code predictor codebooks 1 to 15, "
        "and the codec decoder turns the 16 codes into 1,920 samples.",
    )  # fmt: skip
    picture.text(30, 36, "A frame's way through the model", size=17, bold=True)
    picture.text(30, 58, "One frame: 16 codes, 80 ms, 1,920 samples. At the right: width and weights.", "muted")
    _stage(picture, (60, 96, 220, 52), "grey", "Text token", "embedding of 2,048, projection")
    _stage(picture, (320, 96, 220, 52), "grey", "Previous frame", "sum of its 16 embeddings")
    picture.arrow([(170, 148), (170, 184), (287, 184)])
    picture.arrow([(430, 148), (430, 184), (313, 184)])
    picture.box(288, 172, 24, 24, "pale-grey", "grey", radius=12)
    picture.text(300, 189, "+", size=16, anchor="middle", bold=True)
    picture.arrow([(300, 196), (300, 221)])
    _stage(picture, (60, 222, 480, 58), "blue", "Talker: 28 layers, one step", "16 heads of 128, 8 of keys and values")
    picture.arrow([(180, 280), (180, 333)])
    picture.text(192, 312, "hidden state", "muted")
    picture.arrow([(400, 280), (400, 333)])
    picture.text(412, 312, "codebook 0", "blue")
    _stage(picture, (60, 334, 480, 58), "orange", "Code predictor: 5 layers, 15 passes", "codebooks 1 to 15 in turn")
    picture.arrow([(300, 392), (300, 419)])
    _codes(picture, 92, 420)
    picture.arrow([(508, 433), (572, 433), (572, 122), (541, 122)])
    picture.text(92, 464, "16 codes", "muted", 12)
    picture.text(508, 464, "also input of the next frame", "muted", 12, "end")
    picture.arrow([(300, 446), (300, 485)])
    stages = "8 layers with a window of 72, then convolutions: ×2 ×2 ×8 ×5 ×4 ×3"
    _stage(picture, (60, 486, 480, 58), "green", "Codec decoder: its state is kept, chunks are exact", stages)
    picture.arrow([(300, 544), (300, 571)])
    _wave(picture, 92, 596)
    picture.text(528, 600, "1,920 samples, of demo.wav", "muted", 12)
    _sizes(picture, sizes)
    return picture.svg()


def _stage(picture: Picture, area: tuple[float, float, float, float], color: str, name: str, what: str) -> None:
    x, y, width, height = area
    picture.box(x, y, width, height, f"pale-{color}", color, radius=6)
    picture.text(x + width / 2, y + height / 2 - 4, name, size=14, anchor="middle", bold=True)
    picture.text(x + width / 2, y + height / 2 + 15, what, "muted", 12, "middle")


def _codes(picture: Picture, left: float, top: float) -> None:
    """Draw the 16 codes: the talker's and the code predictor's."""
    for i in range(16):
        color = "orange" if i else "blue"
        picture.box(left + 26 * i + 1, top, 24, 26, f"pale-{color}", color, radius=3)
        picture.text(left + 26 * i + 13, top + 17, str(i), color, 11, "middle")


def _wave(picture: Picture, left: float, middle: float) -> None:
    """Draw a frame of demo.wav."""
    samples, _ = soundfile.read(DOCS / "demo.wav", start=SHOWN_FRAME * FRAME_SAMPLES, frames=FRAME_SAMPLES)
    loudest = abs(samples).max()
    step = 8
    picture.line(
        [(left + 416 * i / FRAME_SAMPLES, middle - 24 * samples[i] / loudest) for i in range(0, FRAME_SAMPLES, step)],
        "green", 1.2,
    )  # fmt: skip


def _sizes(picture: Picture, sizes: Figures) -> None:
    """Write the columns of both models."""
    for x, name in ((655, "0.6B"), (780, "1.7B")):
        size = sizes[name]
        hidden = size["hidden"]
        picture.text(x, 90, name, size=15, anchor="middle", bold=True)
        picture.text(x, 127, f"width {hidden:,}", anchor="middle")
        picture.text(x, 247, f"{size['talker_millions']:,} million", "blue", anchor="middle", bold=True)
        picture.text(x, 266, f"MLP {size['mlp']:,}", "muted", 12, "middle")
        picture.text(x, 352, f"{size['predictor_millions']} million", "orange", anchor="middle", bold=True)
        picture.text(x, 370, f"heads: {size['heads_millions']} million", "muted", 12, "middle")
        width = "width 1,024" if hidden == 1024 else f"{hidden:,} to 1,024"
        picture.text(x, 387, width, "muted", 12, "middle")
    picture.text(717, 511, f"{sizes['codec_decoder_millions']} million", "green", anchor="middle", bold=True)
    picture.text(717, 530, "the same codec, in float32", "muted", 12, "middle")


# --- the timeline of a stream ---


def stream_picture(streams: list[Figures], machine: str) -> str:
    """Draw the first second of a stream, and the whole of one that is fast enough and of one that is not."""
    alone, shared = streams
    picture = Picture(
        860, 580, "When a stream is generated and when it is heard",
        "One stream is heard after its first frame. One of eight is slower than real time, so playback waits until "
        "what is missing will arrive in time.",
    )  # fmt: skip
    picture.text(30, 36, "When a stream is generated and when it is heard", size=17, bold=True)
    picture.text(30, 58, f"Random weights of the released depths and a miniature's widths. {machine}.", "muted")
    _first_second(picture, alone)
    _timeline(picture, (70, 278, 330, 224), alone, "One stream")
    _timeline(picture, (490, 278, 340, 224), shared, f"One of {shared['streams']} streams")
    picture.box(70, 546, 22, 4, "blue")
    picture.text(100, 552, "generated", "muted", 12)
    picture.box(190, 546, 22, 4, "orange")
    picture.text(220, 552, "heard", "muted", 12)
    picture.box(290, 541, 22, 12, "pale-blue", "edge")
    picture.text(320, 552, "waits to be heard", "muted", 12)
    picture.text(830, 552, "up: audio; right: time since the request", "muted", 12, "end")
    return picture.svg()


def _first_second(picture: Picture, stream: Figures) -> None:
    """Draw the chunks as blocks from the arrival of the one before to their own."""
    axes = Axes(picture, (110, 100, 720, 82), (1.0, 1.0))
    picture.text(30, 90, "The first second of one stream", bold=True)
    axes.grid_x([0, 0.2, 0.4, 0.6, 0.8, 1], " s")
    picture.text(98, 124, "generated", "muted", 12, "end")
    for (begin, end), seconds in zip(pairwise([0, *stream["arrivals"]]), stream["audio"], strict=True):
        if begin < 1:
            frames = round(seconds / FRAME_SECONDS)
            left, right = axes.x(begin), axes.x(min(end, 1))
            picture.box(left + 1, 106, right - left - 2, 28, "pale-blue", "blue", radius=3)
            label = f"{frames} frames" if right - left > 80 else str(frames)
            picture.text((left + right) / 2, 124, label, "blue", 12, "middle")
    heard = axes.x(stream["first_sound"])
    picture.text(98, 164, "heard", "muted", 12, "end")
    picture.box(heard, 146, axes.x(1) - heard, 28, "pale-orange", "orange", radius=3)
    picture.text(heard + 10, 164, f"sound from {1000 * stream['first_sound']:.0f} ms on", "orange", 12)


def _timeline(picture: Picture, area: tuple[float, float, float, float], stream: Figures, name: str) -> None:
    """Draw seconds of audio over seconds since the request."""
    total = sum(stream["audio"])
    factor = total / stream["arrivals"][-1]
    axes = Axes(picture, area, (13.0, 8.4))
    picture.text(area[0], area[1] - 16, f"{name}: {factor:.1f} times real time", bold=True)
    axes.grid_x(range(0, 13, 2), " s")
    axes.grid_y(range(0, 9, 2), " s")
    first, last = stream["first_sound"], stream["last_sound"]
    generated = [(0.0, 0.0)]
    for at, audio in zip(stream["arrivals"], accumulate(stream["audio"]), strict=True):
        generated += [(at, generated[-1][1]), (at, audio)]
    heard = [(first, 0.0), (last, total)]
    picture.area([(axes.x(x), axes.y(y)) for x, y in [*generated, *reversed(heard)]], "pale-blue")
    picture.line([(axes.x(x), axes.y(y)) for x, y in generated], "blue", 2)
    picture.line([(axes.x(x), axes.y(y)) for x, y in heard], "orange", 2)
    if first < 1:
        picture.text(axes.x(4.6), axes.y(2.4), "playback starts at once", "orange", 12)
    else:
        buffered = max(audio for at, audio in generated if at <= first)
        picture.line([(axes.x(first), axes.y(0)), (axes.x(first), axes.y(buffered))], "orange", 1.5, dashed=True)
        picture.text(axes.x(first) + 44, axes.y(0.9), f"prebuffer: {buffered:.1f} s of audio", "orange", 12)
        picture.text(axes.x(first) + 44, axes.y(0.3), f"after {first:.1f} s", "orange", 12)


# --- speed per batch ---


def batch_picture(batches: Figures, machine: str) -> str:
    """Draw frames a second at 1 and 8 rows, and the time of a step next to mlx-audio's."""
    picture = Picture(
        860, 420, "Speed per batch",
        "Frames a second at one and eight rows, and milliseconds of a step at four and eight rows next to mlx-audio.",
    )  # fmt: skip
    picture.text(30, 36, "Speed per batch", size=17, bold=True)
    picture.text(30, 58, f"Random weights of the released depths and a miniature's widths. {machine}.", "muted")
    picture.text(30, 96, "Frames a second with the codec (more is better)", bold=True)
    _bars_of_rows(picture, batches["frames_per_second"])
    picture.text(450, 96, "Milliseconds a step without it (less is better)", bold=True)
    _bars_of_packages(picture, batches["ms_per_step"])
    return picture.svg()


def _bars_of_rows(picture: Picture, speeds: Figures) -> None:
    axes = Axes(picture, (90, 104, 310, 246), (140.0, 1.0))
    axes.grid_x(range(0, 121, 20))
    real_time = axes.x(1 / FRAME_SECONDS)
    y = 112.0
    for library, by_rows in speeds.items():
        picture.text(real_time + 9, y + 15, library, "muted", 12)
        y += 24
        for rows, speed in by_rows.items():
            picture.text(82, y + 20, "1 row" if rows == "1" else f"{rows} rows", "muted", 12, "end")
            picture.box(axes.x(0), y, axes.x(speed) - axes.x(0), 30, "blue", radius=2)
            picture.text(axes.x(speed) + 7, y + 20, str(speed), bold=True)
            y += 40
        y += 20
    picture.line([(real_time, 104), (real_time, 350)], "ink", 1.5, dashed=True)
    picture.text(axes.left, 391, "dashed: real time, 12.5 frames a second", "muted", 12)


def _bars_of_packages(picture: Picture, times: Figures) -> None:
    axes = Axes(picture, (510, 104, 310, 246), (110.0, 1.0))
    axes.grid_x(range(0, 101, 20))
    y = 112.0
    for library, by_rows in times.items():
        picture.text(510, y + 14, library, "muted", 12)
        y += 24
        for rows, packages in by_rows.items():
            picture.text(502, y + 22, f"{rows} rows", "muted", 12, "end")
            for name, (low, high) in packages.items():
                _range_bar(axes, y, (low, high), "blue" if name == "ours" else "grey")
                y += 17
            y += 8
        y += 12
    for left, color, name in ((510, "blue", "this package"), (630, "grey", "mlx-audio 0.6.2")):
        picture.box(left, 381, 12, 12, color, radius=2)
        picture.text(left + 18, 391, name, "muted", 12)


def _range_bar(axes: Axes, y: float, span: tuple[float, float], color: str) -> None:
    """Draw a bar to the lowest of several measurements, and its outline to the highest."""
    low, high = span
    label = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    axes.picture.box(axes.x(0), y, axes.x(high) - axes.x(0), 14, f"pale-{color}", color, radius=2)
    axes.picture.box(axes.x(0), y, axes.x(low) - axes.x(0), 14, color, radius=2)
    axes.picture.text(axes.x(high) + 6, y + 11, label, size=11, bold=True)


if __name__ == "__main__":
    main()
