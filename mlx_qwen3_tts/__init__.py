"""Qwen3-TTS on MLX: text in, speech out. See README.md; the public names are those below."""

from .errors import AudioError, CheckpointError, DownloadError, Qwen3TTSError, RequestError
from .model import Qwen3TTS
from .result import AudioChunk, SynthesisResult, SynthesisTiming
from .sampling import Sampling

__all__ = [
    "AudioChunk",
    "AudioError",
    "CheckpointError",
    "DownloadError",
    "Qwen3TTS",
    "Qwen3TTSError",
    "RequestError",
    "Sampling",
    "SynthesisResult",
    "SynthesisTiming",
]
__version__ = "0.1.0"
