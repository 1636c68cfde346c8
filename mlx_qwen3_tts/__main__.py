"""The way in for `mlx-qwen3-tts` and `python -m mlx_qwen3_tts`: nothing is imported before Ctrl-C can be heard."""

import os
import sys


def main() -> int:
    """Run the command line and return its exit code."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by the caller: the next file opened must not take its number
            os.open(os.devnull, os.O_RDWR)
    try:
        from . import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130
    except ImportError as error:
        if "mlx" not in str(error):
            raise
        sys.stderr.write(
            "mlx-qwen3-tts: error: MLX has no back end here; install one: pip install 'mlx[cpu]' (or mlx[cuda13])\n"
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
