"""The code predictor: codebooks 1..15 of a frame, one after the other, from the talker's hidden state and codebook 0.

    position 0: talker's hidden state ─┐
    position 1: embedding of code 0    ├─ small_to_mtp_projection ─ 5 layers ─ norm ─ lm_head[g] ─ code g + 1
    position g: embedding of code g-1  ┘  (where the widths differ)

Each frame starts with an empty cache. Keys: talker.code_predictor.*.
Source: Qwen3TTSTalkerCodePredictorModelForConditionalGeneration.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from ..config.model import CodePredictorConfig
from .cache import KVCache
from .qwen3 import Transformer


class CodePredictorModel(Transformer):
    """Layers, final norm, and one input table per residual codebook, in the talker's width."""

    def __init__(self, config: CodePredictorConfig, talker_hidden_size: int) -> None:
        super().__init__(config)
        self.codec_embedding = [
            nn.Embedding(config.vocab_size, talker_hidden_size) for _ in range(config.num_code_groups - 1)
        ]


class CodePredictor(nn.Module):
    """Predicts the residual codes of one frame."""

    def __init__(self, config: CodePredictorConfig, talker_hidden_size: int) -> None:
        super().__init__()
        self.model = CodePredictorModel(config, talker_hidden_size)
        self.lm_head = [
            nn.Linear(config.hidden_size, config.vocab_size, bias=False) for _ in range(config.num_code_groups - 1)
        ]
        if config.hidden_size != talker_hidden_size:
            self.small_to_mtp_projection = nn.Linear(talker_hidden_size, config.hidden_size)

    def _project(self, x: mx.array) -> mx.array:
        return self.small_to_mtp_projection(x) if "small_to_mtp_projection" in self else x

    def __call__(
        self, hidden: mx.array, code0: mx.array, choose: Callable[[int, mx.array], mx.array]
    ) -> tuple[mx.array, mx.array]:
        """Complete a frame.

        hidden: the talker's normalized output at this frame [batch, talker hidden].
        code0: the embedding of its codebook 0 [batch, talker hidden].
        choose: given g and the logits [batch, vocab] of codebook g + 1, its codes [batch].
        Returns codes 1..15 [batch, 15] and the sum of all 16 embeddings [batch, talker hidden].
        """
        caches = [KVCache(step=len(self.lm_head) + 1) for _ in self.model.layers]  # exactly what a frame needs
        x = self._project(mx.stack([hidden, code0], axis=1))  # [batch, 2, hidden]
        codes, total = [], code0.astype(mx.float32)  # rounded once, at the end, as PyTorch sums bfloat16
        for g, (head, table) in enumerate(zip(self.lm_head, self.model.codec_embedding, strict=True)):
            codes.append(choose(g, head(self.model(x, caches))))
            embedding = table(codes[-1])
            total = total + embedding
            x = self._project(embedding)[:, None]  # [batch, 1, hidden]
        return mx.stack(codes, axis=1), total.astype(code0.dtype)
