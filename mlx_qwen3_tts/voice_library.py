"""The user's named voices."""

import os
import re
from pathlib import Path

from .errors import VoiceError

NAME = re.compile(r"\w[\w -]{0,63}")  # of a voice in the library


def library() -> Path:
    """The directory of saved voices: $MLX_QWEN3_TTS_VOICES, or the platform's place for a user's data."""
    if override := os.environ.get("MLX_QWEN3_TTS_VOICES"):
        return Path(os.path.expanduser(override))
    from platformdirs import user_data_path

    return user_data_path("mlx-qwen3-tts", appauthor=False) / "voices"


def library_path(name: str) -> Path:
    """Where the voice `name` is kept. Raises VoiceError for a name that could not be a file's."""
    if not NAME.fullmatch(name):
        raise VoiceError(f"a voice cannot be called {name!r}: use letters, digits, spaces, - and _")
    return library() / f"{name}.safetensors"


def library_names() -> list[str]:
    """The names of all saved voices; files that were put there under another kind of name are left alone."""
    return sorted(path.stem for path in library().glob("*.safetensors") if NAME.fullmatch(path.stem))
