"""Qwen3-TTS on MLX: text in, speech out. See README.md; the public names are those below.

They are imported when first used: MLX takes a moment to load, and the command line must listen to Ctrl-C meanwhile.
Type checkers read __init__.pyi.
"""

from importlib import import_module

__version__ = "0.1.0"

_MODULES = {
    "audio.player": ("Player", "open_device"),
    "conversion.convert": ("convert",),
    "errors": (
        "AudioError",
        "BatchError",
        "CheckpointError",
        "ConversionError",
        "DownloadError",
        "GenerationError",
        "PlaybackError",
        "Qwen3TTSError",
        "RequestError",
        "TrainingError",
        "VoiceError",
    ),
    "evaluation.evaluate": ("evaluate",),
    "request": ("CHUNK_FRAMES", "Request", "Sampling"),
    "result": ("AudioChunk", "SynthesisResult", "SynthesisTiming"),
    "tts": ("Qwen3TTS",),
    "voice": ("VoiceClonePrompt",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
