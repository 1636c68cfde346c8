"""`python convert.py ...` is `mlx-qwen3-tts convert ...`."""

import sys

from mlx_qwen3_tts.__main__ import main

sys.argv[1:1] = ["convert"]
sys.exit(main())
