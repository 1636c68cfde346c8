"""The user's named voices."""

import os
import re
from pathlib import Path

from platformdirs import user_data_path

from .errors import VoiceError

NAME = re.compile(r"\w[\w -]{0,63}")  # of a voice


def library() -> Path:
    """Return the directory of saved voices: $MLX_QWEN3_TTS_VOICES, or a directory among the user's data."""
    if override := os.environ.get("MLX_QWEN3_TTS_VOICES"):
        return Path(os.path.expanduser(override))
    return user_data_path("mlx-qwen3-tts", appauthor=False) / "voices"


def library_path(name: str) -> Path:
    """Return the file of the voice `name`. Raises VoiceError for a name that a file may not have."""
    if not NAME.fullmatch(name):
        raise VoiceError(f"invalid name {name!r} of a voice: use at most 64 letters, digits, spaces, - and _")
    return library() / f"{name}.safetensors"


def library_names() -> list[str]:
    """Return the names of all saved voices; files with other names are ignored."""
    return sorted(path.stem for path in library().glob("*.safetensors") if NAME.fullmatch(path.stem))
