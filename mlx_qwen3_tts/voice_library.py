"""The user's named voices.

A name is the same in both of Unicode's spellings of an accent: macOS hands over file names with a letter and its accent
apart (NFD), keyboards write them as one (NFC). A voice is saved as NFC, and its file is found in both.
"""

import os
import unicodedata
from pathlib import Path

from platformdirs import user_data_path

from .errors import VoiceError
from .files import user_path
from .text.unicode import composed

MAX_NAME = 64  # characters of a voice's name
MAX_BYTES = 240  # bytes of the name as a file's name, without the suffix


def library() -> Path:
    """Return the directory of saved voices: $MLX_QWEN3_TTS_VOICES, or a directory among the user's data.

    Raises VoiceError if there is none.
    """
    folder = user_path("MLX_QWEN3_TTS_VOICES", user_data_path, "voices")
    if folder is None:
        raise VoiceError("you have no home directory: set HOME, or MLX_QWEN3_TTS_VOICES to a directory for voices")
    return folder


def library_path(name: str) -> Path:
    """Return the file of the voice `name`. Raises VoiceError for a name that a file may not have."""
    name = composed(name)
    if not is_name(name):
        raise VoiceError(f"invalid name {name!r} of a voice: use at most {MAX_NAME} letters, digits, spaces, - and _")
    path = library() / f"{name}.safetensors"
    apart = path.with_name(unicodedata.normalize("NFD", path.name))
    if os.path.exists(apart) and not os.path.exists(path):  # os.path takes names of any length
        return apart
    return path


def library_names() -> list[str]:
    """Return the names of all saved voices; files with other names are ignored."""
    try:
        files = library().glob("*.safetensors")
    except VoiceError:
        return []
    return sorted({name for name in (composed(path.stem) for path in files) if is_name(name)})


def is_name(name: str) -> bool:
    """Return whether a voice may have this name. Letters of some scripts have vowels and accents of their own."""
    is_plain = all(c.isalnum() or c in "_ -" or unicodedata.category(c)[0] == "M" for c in name)
    is_short = is_plain and len(name) <= MAX_NAME and len(name.encode()) <= MAX_BYTES
    return is_short and name[:1] not in ("", " ", "-")
