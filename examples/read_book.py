"""Read a book aloud, stage by stage: its chapters, its segments, their speech, one file with chapters and subtitles.

usage: python examples/read_book.py BOOK OUT [MODEL]

BOOK: .epub, .md, .html or text. OUT: .m4b, .mp3, .opus, .flac or .wav. Run it again after a change or an interruption:
it makes only what is missing. Needs PyAV: pip install '.[book]'.
"""

import sys
from pathlib import Path

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.longform import BookOptions, Document, Renderer, plan

source, out, *model = sys.argv[1:]
options = BookOptions(speed=1.05, seed=3)

document = Document.open(source)
planned = plan(document, options)
for number in planned.chapters:
    print(f"{number}: {document.chapters[number - 1].title}, {len(planned.of_chapter(number))} segments")

tts = Qwen3TTS.from_pretrained(model[0] if model else "demo")
renderer = Renderer(tts, planned, Path(out).with_suffix(".book"), options)
print(f"{len(renderer.missing)} of {len(renderer.parts)} segments are to be made")
for progress in renderer.make():
    print(f"\r{progress.done} of {progress.total}, {progress.audio_seconds:.0f} s of audio", end="")
print()
for progress in renderer.assemble(out, "vtt"):
    seconds = progress.audio_seconds
print(f"{out}: {seconds:.1f} s")
for flaw in renderer.flaws:
    print(f"{flaw.place}: {flaw.problem}: {flaw.text}")
