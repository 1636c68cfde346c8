"""The engine of a loaded model: its parts, and what is computed of a request before its first frame.

    prompt ─ prefill ─► DecodeState of one row ─► Batch (batch.py), which the scheduler drives (scheduler.py)

Everything here but the construction of prompts runs on the MLX thread.
"""

from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import mlx.core as mx
import numpy as np

from ..checkpoint.load import Checkpoint, load_directory
from ..codec.layers import State
from ..errors import RequestError
from ..mlx_thread import Worker
from ..models.cache import KVCache
from ..text.feed import TextFeed
from .batch import MAX_ROWS, Batch, Row
from .frames import FrameFunctions
from .prefix_cache import PrefixCache
from .prompt import Prompt, PromptBuilder, embed
from .state import DecodeState

PREFILL_STEP = 256  # positions of a prompt at a time: bounds the memory of attention, and how long other rows wait


class Engine:
    """The parts of a loaded checkpoint, and what its requests share."""

    def __init__(self, checkpoint: Checkpoint, worker: Worker) -> None:
        self.worker = worker
        self.config, self.generation_config, self.network, self.codec, self.tokenizer = checkpoint
        self.talker = self.network.talker
        self.prompts = PromptBuilder(self.config, self.tokenizer)
        self.functions = FrameFunctions(self.talker)
        self.prefixes: PrefixCache | None = PrefixCache()
        self.closed = False

    @classmethod
    def load(
        cls, directory: Path, dtype: str | None = None, fused: bool = True, adapter: Path | None = None
    ) -> "Engine":
        """Load a checkpoint directory for MLX's present default device; see load_directory."""
        worker = Worker()
        return cls(load_directory(directory, dtype, fused, worker, adapter), worker)

    def check_open(self) -> None:
        """Raise RequestError if the model was unloaded."""
        if self.closed:
            raise RequestError("the model was unloaded: load it again with from_pretrained")

    def prefill(self, prompt: Prompt, seed: int) -> Generator[None, None, DecodeState]:
        """Run a prompt through the talker, piece by piece; return the state of a row.

        A prefix that was seen before is taken from the cache. Pieces do not depend on what else runs, so that the
        result does not, either.
        """
        caches = [KVCache() for _ in self.talker.model.layers]
        start = 0
        prefix = prompt.prefix
        if self.prefixes is not None and self.prefixes.is_worth_keeping(prefix):
            start = prefix
            if not self.prefixes.restore(prompt.prefix_key, caches):
                yield from self._advance(prompt, 0, prefix, caches)
                self.prefixes.keep(prompt.prefix_key, caches)
                yield
        hidden, logits = yield from self._advance(prompt, start, len(prompt), caches)
        mx.clear_cache()
        return DecodeState(
            hidden=hidden,
            logits=logits,
            embedding=mx.zeros_like(hidden),
            seen=mx.zeros(logits.shape, dtype=mx.bool_),
            keys=mx.random.key(seed)[None],
            buffers=[cache.buffer for cache in caches],
        )

    def _advance(
        self, prompt: Prompt, start: int, stop: int, caches: list[KVCache]
    ) -> Generator[None, None, tuple[mx.array, mx.array]]:
        for begin in range(start, stop, PREFILL_STEP):
            if begin > start:
                yield
            embeddings = embed(self.talker, prompt, begin, min(begin + PREFILL_STEP, stop))
            hidden, logits = self.talker(embeddings, caches)
            mx.eval(hidden, logits, [cache.buffer for cache in caches])
        return hidden, logits

    def warm_up(self, rows: int = 1) -> None:
        """Compile every kernel that default streams need, for batches of up to that many rows."""
        config = self.config
        groups = config.talker_config.num_code_groups
        batch = Batch(self.functions, config)
        size = 1
        while size <= min(rows, MAX_ROWS):
            while len(batch.rows) < size:
                batch.join(*self._warm_up_row())
            for _ in range(2):
                batch.finish(batch.begin(batch.rows))
            size *= 2
        for row in batch.rows:
            batch.leave(row)
        # Kernels depend on whether there is one frame or more. On a GPU all sizes of chunk are traced now as well.
        sizes = (1, 1, 2) if self.worker.device.type == mx.cpu else (1, 1, 2, 4, 8)
        state: State = None
        for size in sizes:
            wait, state = self.codec.decode_async(np.zeros((size, groups), np.int32), state)
            wait()
        wait, _ = self.codec.decode_async(np.zeros((sizes[-1], groups), np.int32))  # a request that is not streamed
        wait()
        mx.clear_cache()

    def embed_speaker(self, mel: np.ndarray) -> np.ndarray:
        """Run a log-mel spectrogram [frames, mel_dim] through the speaker encoder, float32 [hidden]."""
        encoder = self.network.speaker_encoder
        embedding = encoder(mx.array(mel)[None].astype(encoder.fc.weight.dtype))
        found = np.array(embedding.astype(mx.float32))[0]
        mx.clear_cache()
        return found

    def _warm_up_row(self) -> tuple[Row, DecodeState]:
        """Return a row with a prompt of its own."""
        config = self.config
        pad = config.tts_pad_token_id
        groups = config.talker_config.num_code_groups
        feed = TextFeed([[config.assistant_token_id]], config.tts_eos_token_id, pad)
        feed.require(2)
        prompt = Prompt(np.full(4, pad, np.int32), np.zeros((4, groups), np.int32), feed, prefix=0)
        return Row(feed, self.generation_config, 100, len(prompt)), finish(self.prefill(prompt, seed=0))


T = TypeVar("T")


def finish(steps: Generator[None, None, T]) -> T:
    """Run a computation in pieces to its end; return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
