"""Sample inputs for checks: a request for a model of any type, and a clip to encode or clone."""

import numpy as np

from ..config.model import ModelConfig
from ..request import Request
from ..voice import VoiceClonePrompt

TEXT = "Hello world, this is a voice."


def sample_request(config: ModelConfig) -> Request:
    """Return a request that a model of this type serves. Runaways are not stopped, as random weights babble."""
    voice = None
    if config.tts_model_type == "base":
        voice = VoiceClonePrompt(speaker_embedding=np.zeros(config.talker_config.hidden_size, np.float32))
    instruct = "A calm voice." if config.tts_model_type == "voice_design" else None
    return Request(TEXT, voice=voice, instruct=instruct, seed=1, stop_runaway=False)


def buzz() -> tuple[np.ndarray, int]:
    """Return three seconds of a voice-like sound (120 Hz and overtones, in syllables) and its sample rate."""
    time = np.arange(3 * 24000) / 24000
    tone = sum(np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 20))
    return (0.1 * tone * (0.6 - 0.4 * np.cos(2 * np.pi * 4 * time))).astype(np.float32), 24000
