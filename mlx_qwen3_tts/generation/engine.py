"""The engine of a loaded model: its parts, and the one loop in which speech is generated.

    prompt ─ prefill ─► DecodeState ─┬─ frame ─ codes ─► the caller
                          ▲          └─ embedding + text id ─ step ─┐
                          └─────────────────────────────────────────┘

Everything here but the construction of prompts runs on the MLX thread. The talker's next step is queued before the
codes of a frame are read, in a submission of its own: what reads the codes then waits for them alone, and the device
has work meanwhile. Only the first frame, and one whose next text is still being written, are read before.
"""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..checkpoint.load import Checkpoint, load_directory
from ..codec.layers import State
from ..config.model import GenerationConfig
from ..errors import GenerationError, RequestError
from ..mlx_thread import Worker
from ..models.cache import KVCache
from ..models.talker import NO_CODE
from ..text.feed import TextFeed
from .frames import MIN_FRAMES, FrameFunctions
from .prefix_cache import PrefixCache
from .prompt import Prompt, PromptBuilder, embed
from .sampling import FrameOptions

PREFILL_STEP = 512  # positions of a prompt at a time: bounds the memory of attention


@dataclass
class DecodeState:
    """The state of a request's generation between two frames."""

    hidden: mx.array  # [1, hidden], the talker's normalized output before the next frame
    logits: mx.array  # [1, vocab], of the next frame's codebook 0
    caches: list[KVCache]  # of the talker's layers
    seen: mx.array  # bool [1, vocab], true for every id of codebook 0 so far
    keys: mx.array  # uint32 [1, 2], of the next draws
    embedding: mx.array | None = None  # [1, hidden] of the last frame, if the talker has not seen it yet
    frames: int = 0  # number generated

    @property
    def position(self) -> int:
        """Number of positions that the talker has seen."""
        return self.caches[0].offset


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
    def load(cls, directory: Path, dtype: str | None = None, fused: bool = True) -> "Engine":
        """Load a checkpoint directory for MLX's present default device; see load_directory."""
        worker = Worker()
        return cls(load_directory(directory, dtype, fused, worker), worker)

    def check_open(self) -> None:
        """Raise RequestError if the model was unloaded."""
        if self.closed:
            raise RequestError("the model was unloaded: load it again with from_pretrained")

    def prefill(self, prompt: Prompt, seed: int) -> DecodeState:
        """Run a prompt through the talker; a prefix that was seen before is taken from the cache."""
        caches = [KVCache() for _ in self.talker.model.layers]
        start = 0
        prefix = prompt.prefix
        if self.prefixes is not None and self.prefixes.is_worth_keeping(prefix):
            if not self.prefixes.restore(prompt.prefix_key, caches):
                self._advance(prompt, 0, prefix, caches)
                self.prefixes.keep(prompt.prefix_key, caches)
            start = prefix
        for begin in range(start, len(prompt), PREFILL_STEP):
            hidden, logits = self._advance(prompt, begin, min(begin + PREFILL_STEP, len(prompt)), caches)
        mx.clear_cache()
        return DecodeState(
            hidden=hidden,
            logits=logits,
            caches=caches,
            seen=mx.zeros((1, self.config.talker_config.vocab_size), dtype=mx.bool_),
            keys=mx.random.key(seed)[None],
        )

    def _advance(self, prompt: Prompt, start: int, stop: int, caches: list[KVCache]) -> tuple[mx.array, mx.array]:
        hidden, logits = self.talker(embed(self.talker, prompt, start, stop), caches)
        mx.eval(hidden, logits, [cache.buffer for cache in caches])
        return hidden, logits

    def warm_up(self) -> None:
        """Compile every kernel that a default stream needs; see Qwen3TTS.warm_up."""
        config = self.config
        pad = config.tts_pad_token_id
        groups = config.talker_config.num_code_groups
        feed = TextFeed([[config.assistant_token_id]], config.tts_eos_token_id, pad)
        feed.require(2)
        prompt = Prompt(np.full(4, pad, np.int32), np.zeros((4, groups), np.int32), feed, prefix=0)
        frames = Frames(self, prompt, self.prefill(prompt, seed=0), self.generation_config, limit=4)
        while frames.next() is not None:
            pass
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

    def step(self, state: DecodeState, text_id: int) -> None:
        """Queue the talker's step over the last frame and the text that it is fed."""
        if state.embedding is None:
            raise ValueError("the talker has seen all frames")
        cursor = state.position
        for cache in state.caches:
            if cache.reserve(1):  # one layer after the other: no more than one old buffer is left beside the new ones
                mx.eval(cache.buffer)
                mx.clear_cache()
        buffers = [cache.buffer for cache in state.caches]
        text = self.functions.embed_text([text_id], self.config.tts_pad_token_id)
        mask = np.arange(buffers[0].shape[3])[None] <= cursor
        state.hidden, state.logits, buffers = self.functions.step(
            state.embedding, text, buffers, cursor, np.array([cursor]), mask
        )
        state.embedding = None
        for cache, buffer in zip(state.caches, buffers, strict=True):
            cache.buffer = buffer
            cache.offset = cursor + 1
        mx.async_eval(state.hidden, state.logits)


class Frames:
    """The frames of one request, one after the other: the loop."""

    def __init__(
        self, engine: Engine, prompt: Prompt, state: DecodeState, sampling: GenerationConfig, limit: int
    ) -> None:
        """state: the result of `Engine.prefill` for the prompt. sampling: the result of `Sampling.resolve`.

        limit: the most frames.
        """
        self._engine = engine
        self._feed = prompt.feed
        self._state = state
        self._limit = limit
        self._options = FrameOptions.of([sampling], engine.config.talker_config)
        self._model_ended = False
        self._outcome: tuple[np.ndarray | None, Exception | None] | None = None  # of a frame generated ahead

    @property
    def needs_text(self) -> bool:
        """True if the next frame cannot be made before more of the text is known."""
        pending = self._outcome is None and self._state.embedding is not None
        return pending and not self.ended and not self._feed.ready

    @property
    def ended(self) -> bool:
        """True if there is no further frame."""
        return self._model_ended or self._state.frames == self._limit

    def prefetch(self) -> None:
        """Generate the next frame now. `next` then returns it, or raises."""
        try:
            self._outcome = self._generate(), None
        except Exception as error:  # noqa: BLE001
            self._outcome = None, error

    def next(self) -> np.ndarray | None:
        """Return the next frame, int32 [16]; None after the model has ended its speech or the limit is reached.

        The text must be known as far as `needs_text` asks for. Raises GenerationError.
        """
        if self._outcome is None:
            return self._generate()
        (frame, error) = self._outcome
        self._outcome = None
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle through its traceback, which would keep arrays alive
        return frame

    def _generate(self) -> np.ndarray | None:
        state = self._state
        engine = self._engine
        if self.ended:
            return None
        if state.embedding is not None:
            engine.step(state, *self._feed.take())
        may_end = mx.array([[state.frames >= MIN_FRAMES]])
        codes, state.embedding, state.seen, state.keys = engine.functions.frame(
            state.hidden, state.logits, state.seen, state.keys, may_end, self._options
        )
        mx.async_eval(codes, state.embedding, state.seen, state.keys)
        state.frames += 1
        # The codec's work on the first frame, which a listener waits for, must not stand behind the talker's step.
        if 1 < state.frames < self._limit and self._feed.ready:
            engine.step(state, *self._feed.take())
        row = np.array(codes)[0]  # not np.array(codes[0]), a computation behind all that is queued
        if row[0] == engine.config.talker_config.codec_eos_token_id:
            self._model_ended = True
            return None
        if row[0] == NO_CODE:
            self._model_ended = True
            raise GenerationError(
                "the logits of a frame are not finite: the checkpoint is damaged, or its numbers are too large for "
                "float16 (choose dtype 'bfloat16')"
            )
        return row
