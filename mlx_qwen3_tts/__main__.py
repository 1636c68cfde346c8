"""The way in for `mlx-qwen3-tts` and `python -m mlx_qwen3_tts`: Ctrl-C ends it at once, from the first import on."""

import os
import signal
import sys
from io import TextIOWrapper

from .program import program_name


def main() -> int:
    """Run the command line and return its exit code."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by the caller: the next file opened must not take its number
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: a name is shown in any locale
    try:
        # An import may swallow KeyboardInterrupt; until there is something to clean up, the signal just ends us.
        handler = signal.getsignal(signal.SIGINT)
        end_at_interrupt()
        from . import cli

        cli.import_commands(cli.asked_commands(sys.argv[1:]))
        signal.signal(signal.SIGINT, handler)
        for number in (signal.SIGTERM, signal.SIGHUP):  # clean up, as after Ctrl-C
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, lambda got, _: sys.exit(128 + got))
        return cli.main()
    except KeyboardInterrupt:
        return 130
    except ImportError as error:
        if (error.name or "").split(".")[0] != "mlx":
            raise
        sys.stderr.write(
            f"{program_name()}: error: MLX has no back end here; install one: pip install 'mlx[cpu]' (or mlx[cuda13])\n"
        )
        return 1
    finally:
        # All is cleaned up. Another Ctrl-C, raised while the interpreter is torn down, would show a traceback or abort.
        end_at_interrupt()


def end_at_interrupt() -> None:
    """Let Ctrl-C end the process at once, unless it is ignored, as in a shell's background job."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
