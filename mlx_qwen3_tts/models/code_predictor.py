"""The code predictor: codebooks 1..15 of a frame, one after the other, from the talker's hidden state and codebook 0.

    position 0: talker's hidden state ─┐
    position 1: embedding of code 0    ├─ small_to_mtp_projection ─ 5 layers ─ norm ─ lm_head[g] ─ code g + 1
    position g: embedding of code g-1  ┘  (if the widths differ)

Each frame starts with an empty cache. Keys: talker.code_predictor.*.
Source: Qwen3TTSTalkerCodePredictorModelForConditionalGeneration.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from ..config.model import CodePredictorConfig
from .cache import KVCache
from .qwen3 import ApplyLayer, Transformer, call_layer


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

    def project(self, x: mx.array) -> mx.array:
        """Bring inputs of the talker's width [..., talker hidden] to the predictor's."""
        return self.small_to_mtp_projection(x) if "small_to_mtp_projection" in self else x

    def __call__(
        self, hidden: mx.array, code0: mx.array, choose: Callable[[int, mx.array], mx.array]
    ) -> tuple[list[mx.array], mx.array]:
        """Complete frames, one in each row.

        hidden: the talker's normalized output before the frame [rows, talker hidden].
        code0: the embedding of codebook 0 [rows, talker hidden].
        choose: given g and the logits [rows, vocab] of codebook g + 1, returns its codes [rows].
        Returns the codes of codebooks 1..15, each [rows], and the sum of all 16 embeddings [rows, talker hidden].
        """
        caches = [KVCache(capacity=len(self.lm_head) + 1) for _ in self.model.layers]
        x = self.project(mx.stack([hidden, code0], axis=1))  # [rows, 2, hidden]
        codes = []
        total = code0.astype(mx.float32)  # rounded once, at the end, as PyTorch sums bfloat16
        for g, (head, table) in enumerate(zip(self.lm_head, self.model.codec_embedding, strict=True)):
            codes.append(choose(g, head(self.model(x, caches))))
            embedding = table(codes[-1])
            total = total + embedding
            x = self.project(embedding)[:, None]  # [rows, 1, hidden]
        return codes, total.astype(code0.dtype)

    def teacher_forced(self, hidden: mx.array, embeddings: mx.array, apply_layer: ApplyLayer = call_layer) -> mx.array:
        """Return the logits of codebooks 1..15 for frames that are given, all positions at once.

        hidden: the talker's normalized output before each frame [frames, talker hidden].
        embeddings: of codebooks 0..14 of each frame [frames, 15, talker hidden].
        apply_layer: see Transformer.run_layers. Returns [frames, 15, vocab].
        """
        x = self.project(mx.concatenate([hidden[:, None], embeddings], axis=1))
        out = self.model.hidden_states(x, apply_layer=apply_layer)
        return mx.stack([head(out[:, g + 1]) for g, head in enumerate(self.lm_head)], axis=1)
