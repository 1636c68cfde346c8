"""Qwen3-TTS on MLX: text in, speech out. See README.md; the public names are those below.

They are imported when first used: MLX takes a moment to load, and a command line must listen to Ctrl-C meanwhile.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import (
        AudioError,
        CheckpointError,
        ConversionError,
        DownloadError,
        GenerationError,
        PlaybackError,
        Qwen3TTSError,
        RequestError,
        VoiceError,
    )
    from .generation.sampling import Sampling
    from .result import AudioChunk, SynthesisResult, SynthesisTiming
    from .tts import Qwen3TTS
    from .voice import VoiceClonePrompt

__all__ = [
    "AudioChunk",
    "AudioError",
    "CheckpointError",
    "ConversionError",
    "DownloadError",
    "GenerationError",
    "PlaybackError",
    "Qwen3TTS",
    "Qwen3TTSError",
    "RequestError",
    "Sampling",
    "SynthesisResult",
    "SynthesisTiming",
    "VoiceClonePrompt",
    "VoiceError",
]
__version__ = "0.1.0"

_HOMES = {
    "Qwen3TTS": "tts", "Sampling": "generation.sampling", "VoiceClonePrompt": "voice", "AudioChunk": "result",
    "SynthesisResult": "result", "SynthesisTiming": "result",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
