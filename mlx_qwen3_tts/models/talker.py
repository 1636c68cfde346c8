"""The talker: a 28-layer transformer over frames that predicts codebook 0, and its embeddings.

    text ids ─ text_embedding ─ text_projection ─┐
    codes    ─ codec_embedding (and the code     ├─ + ─ layers ─ norm ─ codec_head ─ logits of codebook 0
               predictor's 15 tables, summed)   ─┘              └─ hidden state for the code predictor

Keys: talker.*. Source: Qwen3TTSTalkerForConditionalGeneration.
"""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from ..config.model import TalkerConfig
from .cache import Cache
from .code_predictor import CodePredictor
from .qwen3 import RotaryEmbedding, Transformer, silu

NO_CODE = -1  # marks a missing code


class TextProjection(nn.Module):
    """Text embedding width to talker width. Source: Qwen3TTSTalkerResizeMLP."""

    def __init__(self, text_hidden_size: int, hidden_size: int) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(text_hidden_size, text_hidden_size)
        self.linear_fc2 = nn.Linear(text_hidden_size, hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear_fc2(silu(self.linear_fc1(x)))


class TalkerModel(Transformer):
    """Both embeddings, the layers and the final norm."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__(config)
        self.codec_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.text_embedding = nn.Embedding(config.text_vocab_size, config.text_hidden_size)


class Talker(nn.Module):
    """Predicts codebook 0 of each frame; the code predictor is a submodule, as in the checkpoint."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = TalkerModel(config)
        self.text_projection = TextProjection(config.text_hidden_size, config.hidden_size)
        self.codec_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.code_predictor = CodePredictor(config.code_predictor_config, config.hidden_size)

    @property
    def dtype(self) -> mx.Dtype:
        """The type it computes in; tables and matrices may be quantized, norms are not."""
        return self.model.norm.weight.dtype

    def embed_text(self, ids: mx.array) -> mx.array:
        """Embed text ids, int [...] -> [..., hidden]."""
        return self.text_projection(self.model.text_embedding(ids))

    def embed_frames(self, codes: mx.array) -> mx.array:
        """Sum the embeddings of frames, int [..., 16] -> [..., hidden].

        NO_CODE adds nothing, so that a row may also hold a control id or a preset speaker alone, in codebook 0.
        """
        tables = [self.model.codec_embedding, *self.code_predictor.model.codec_embedding]
        total = mx.zeros((*codes.shape[:-1], self.config.hidden_size))
        for i, table in enumerate(tables):
            ids = codes[..., i]
            found = table(mx.maximum(ids, 0)).astype(mx.float32)
            total = total + mx.where(ids[..., None] == NO_CODE, 0, found)
        return total.astype(self.dtype)  # rounded once, as PyTorch sums bfloat16

    def __call__(
        self, x: mx.array, caches: Sequence[Cache], rotation: RotaryEmbedding | None = None
    ) -> tuple[mx.array, mx.array]:
        """Advance over embeddings [rows, time, hidden]; rotation: see Transformer.

        Returns, for the last position, the hidden state after the final norm [rows, hidden] and the logits of
        codebook 0 [rows, vocab].
        """
        hidden = self.model(x, caches, rotation)
        return hidden, self.codec_head(hidden)
