"""The names of the command, and the one that the user has typed."""

import os
import sys

NAMES = ("mlx-qwen3-tts", "qtts")


def program_name() -> str:
    """Return the name under which this program was called, for messages."""
    typed = os.path.basename(sys.argv[0])
    return typed if typed in NAMES else NAMES[0]
