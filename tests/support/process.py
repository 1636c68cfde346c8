"""Processes of their own."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the project: code that is run from here can import `tests`


def spawn(*argv) -> list[str]:
    """The command line as a process of its own."""
    return [sys.executable, "-m", "mlx_qwen3_tts", *map(str, argv)]
