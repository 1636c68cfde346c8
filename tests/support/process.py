"""Child processes."""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the project: code that runs from here can import `tests`


def without_coverage() -> dict[str, str]:
    """Return the environment of a child that must not measure coverage, because it cannot write the data."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def heed_interrupts() -> None:
    """Restore the default action of SIGINT; used as the preexec_fn of children that tests interrupt.

    A child inherits SIGINT as ignored if the tests run under nohup or as a shell's background job.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def spawn(*argv) -> list[str]:
    """Return the arguments that run the command line in a child process."""
    return [sys.executable, "-m", "mlx_qwen3_tts", *map(str, argv)]
