"""`python -m mlx_qwen3_tts` is `mlx-qwen3-tts`."""

import sys

from .cli import main

sys.exit(main())
