"""A process that makes a book of the demo's words: to be killed, and for mlx.launch.

python -m tests.support.book_run TARGET [RANKS_SHARE | RANKS_APART] [DIE]    each member's own folder, or one for all

It prints a line when the work begins. DIE: the second process of a launch ends after its first take.
"""

import os
import sys
from pathlib import Path

import mlx.core as mx

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.errors import Qwen3TTSError
from mlx_qwen3_tts.longform import BookOptions, Renderer
from tests.support.books import plan_of

CHAPTERS = (("One.", "Two."), ("Three.", "Four five."), ("Six.", "Seven.", "Eight."))
OPTIONS = BookOptions(voice="slt", batch_size=2)


def main() -> None:
    mx.set_default_device(mx.cpu)
    target = Path(sys.argv[1])
    rank = int(os.environ.get("MLX_RANK", "0"))
    if "RANKS_APART" in sys.argv:
        target = target.with_name(f"rank{rank}") / target.name
        target.parent.mkdir(exist_ok=True)
    tts = Qwen3TTS.from_pretrained("demo")
    renderer = Renderer(tts, plan_of(CHAPTERS), target.with_suffix(".book"), OPTIONS)
    print("begins", flush=True)
    begun = len(renderer.missing)
    try:
        for _ in renderer.run(target, "srt"):
            if "DIE" in sys.argv and rank == 1 and len(renderer.missing) < begun:
                os._exit(0)  # the launcher leaves the others alone, whose channel breaks
    except Qwen3TTSError as error:
        sys.exit(f"rank {rank}: {error}")


if __name__ == "__main__":
    main()
