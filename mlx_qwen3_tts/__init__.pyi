from .audio.player import Player as Player, open_device as open_device
from .conversion.convert import convert as convert
from .errors import (
    AudioError as AudioError,
    BatchError as BatchError,
    CheckpointError as CheckpointError,
    ConversionError as ConversionError,
    DownloadError as DownloadError,
    GenerationError as GenerationError,
    PlaybackError as PlaybackError,
    Qwen3TTSError as Qwen3TTSError,
    RequestError as RequestError,
    TrainingError as TrainingError,
    VoiceError as VoiceError,
)
from .evaluation.evaluate import evaluate as evaluate
from .request import CHUNK_FRAMES as CHUNK_FRAMES, Request as Request, Sampling as Sampling
from .result import AudioChunk as AudioChunk, SynthesisResult as SynthesisResult, SynthesisTiming as SynthesisTiming
from .tts import Qwen3TTS as Qwen3TTS
from .voice import VoiceClonePrompt as VoiceClonePrompt

__version__: str
