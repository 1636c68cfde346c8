"""The networks whose weights model.safetensors holds."""

import mlx.nn as nn

from ..config.model import ModelConfig
from .speaker_encoder import SpeakerEncoder
from .talker import Talker


class Network(nn.Module):
    """The talker and, in Base models, the speaker encoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.talker = Talker(config.talker_config)
        if config.tts_model_type == "base" and config.speaker_encoder_config is not None:
            self.speaker_encoder = SpeakerEncoder(config.speaker_encoder_config)

    @property
    def layers(self) -> list[nn.Module]:
        """The talker's layers, under the name that mlx-lm's tools expect."""
        return self.talker.model.layers
