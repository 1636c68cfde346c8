"""The frame loop: the one place where speech is generated.

    prompt ─ talker ─┬─ logits ─ code 0 ─┐
                ▲    └─ hidden ──────────┴─ code predictor ─ codes 1..15 ─► frame
                └──────── embedding of the frame + its text ◄─┘

A frame is two compiled functions of static shapes: `frame` (sampling and the code predictor) and `step` (the talker,
for a capacity of its cache). The talker's next step is queued before the codes are read: the host waits for the device
once a frame, and the device has work meanwhile. Only the first frame, and one whose next text is still being written,
are given out before.
Source: Qwen3TTSTalkerForConditionalGeneration.forward under transformers' generate().
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..errors import GenerationError
from ..models.cache import KVCache, StaticCache
from ..models.talker import Talker
from .prompt import Prompt
from .sampling import MIN_FRAMES, Sampling, draw, gumbel_noise, talker_logits

PREFILL_STEP = 512  # positions of a prompt at a time: bounds the memory of attention, and lets Ctrl-C be heard
NO_CODE = -1  # in the place of a code that was drawn from logits that are no numbers
MIN_PREFIX = 32  # positions; on a GPU a short prompt takes as long as one read of the weights, and two parts take two
KEPT_PREFIXES = 4
KEPT_FUNCTIONS = 8  # compiled frame functions of one model; each is for one set of sampling options

FrameFunction = Callable[..., tuple[mx.array, mx.array, mx.array, mx.array]]


class Start(NamedTuple):
    """The talker after the prompt."""

    hidden: mx.array  # [1, hidden], after the final norm
    logits: mx.array  # [1, vocab] of the first frame's codebook 0
    caches: list[KVCache]


def prefill(talker: Talker, prompt: Prompt, prefixes: "PrefixCache | None" = None) -> Start:
    """Run the prompt through the talker, but for a prefix that `prefixes` has seen before."""
    caches = [KVCache() for _ in talker.model.layers]
    begin = prefixes.restore(talker, prompt, caches) if prefixes else 0
    for start in range(begin, prompt.embeddings.shape[1], PREFILL_STEP):
        hidden, logits = _advance(talker, prompt.embeddings[:, start : start + PREFILL_STEP], caches)
    return Start(hidden, logits, caches)


def _advance(talker: Talker, embeddings: mx.array, caches: list[KVCache]) -> tuple[mx.array, mx.array]:
    hidden, logits = talker(embeddings, caches)
    mx.eval(hidden, logits, [cache.buffer for cache in caches])
    return hidden, logits


class PrefixCache:
    """The talker's keys and values after the last few prefixes of prompts: what a voice and an instruction become.

    A prompt that is longer than its prefix is always run in two parts, so that a kept prefix changes no bit.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[mx.array, list[mx.array]]] = []  # embeddings [1, positions, hidden], each layer's buffer

    def restore(self, talker: Talker, prompt: Prompt, caches: list[KVCache]) -> int:
        """Bring `caches` to the end of the prompt's prefix; returns its length, 0 where it is not worth keeping."""
        if not MIN_PREFIX <= prompt.prefix <= PREFILL_STEP:
            return 0
        embeddings = prompt.embeddings[:, : prompt.prefix]
        found = next((i for i, (kept, _) in enumerate(self._kept) if mx.array_equal(kept, embeddings)), None)
        if found is None:
            _advance(talker, embeddings, caches)
            buffers = [mx.contiguous(cache.buffer[:, :, : prompt.prefix]) for cache in caches]
            mx.eval(embeddings := mx.contiguous(embeddings), buffers)
            self._kept = [*self._kept[-KEPT_PREFIXES + 1 :], (embeddings, buffers)]
        else:
            self._kept.append(self._kept.pop(found))  # the one that was not used for longest goes first
        for cache, buffer in zip(caches, self._kept[-1][1], strict=True):
            cache.restore(buffer)
        return prompt.prefix


def frame_function(talker: Talker, sampling: Sampling) -> FrameFunction:
    """All of a frame but the talker's step, as a function of arrays alone: sampling codebook 0, and the code predictor.

    (hidden, logits, seen, key, may_end) -> (codes [1, 16], embedding [1, hidden], seen, key)
    """
    config = talker.config
    ids = mx.arange(config.vocab_size)

    def frame(
        hidden: mx.array, logits: mx.array, seen: mx.array, key: mx.array, may_end: mx.array
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        key, now = mx.random.split(key)
        noise = gumbel_noise(now, (config.num_code_groups, config.vocab_size))  # a row for each codebook
        allowed = talker_logits(logits, seen, may_end, sampling.repetition_penalty, config)
        code0 = draw(sampling.talker_filter(allowed), noise[:1] if sampling.do_sample else None)  # [1]
        chosen = mx.take_along_axis(allowed, code0[:, None], axis=-1)
        every = []  # the code predictor's logits

        def choose(g: int, logits: mx.array) -> mx.array:
            every.append(logits)
            filtered = sampling.subtalker_filter(logits.astype(mx.float32))
            row = noise[g + 1 : g + 2, : logits.shape[-1]]
            return draw(filtered, row if sampling.subtalker_dosample else None)

        residual, embedding = talker.code_predictor(hidden, talker.model.codec_embedding(code0), choose)
        codes = mx.concatenate([code0[:, None], residual], axis=1)
        total = mx.sum(mx.concatenate(every, axis=-1).astype(mx.float32))  # no number where one of them is none
        codes = mx.where(mx.isfinite(total + chosen), codes, NO_CODE)
        return codes, embedding, seen | (ids == code0[:, None]), key

    return frame


def step_function(talker: Talker) -> Callable[..., tuple[mx.array, mx.array, list[mx.array]]]:
    """The talker's next step as a function of arrays alone, for one capacity of its cache.

    (embedding [1, hidden], text [1, hidden], each layer's buffer, offset [1]) -> (hidden, logits, buffers)
    """

    def step(
        embedding: mx.array, text: mx.array, buffers: list[mx.array], offset: mx.array
    ) -> tuple[mx.array, mx.array, list[mx.array]]:
        mask = mx.arange(buffers[0].shape[2]) <= offset
        caches = [StaticCache(buffer, offset, mask) for buffer in buffers]
        hidden, logits = talker((embedding + text)[:, None], caches)
        return hidden, logits, [cache.buffer for cache in caches]

    return step


class FrameFunctions:
    """The compiled functions of one talker: its step, and a frame for each set of sampling options in use."""

    def __init__(self, talker: Talker, compiled: bool = True) -> None:
        """compiled: False runs the same functions as they are, for comparison."""
        self._talker, self._compiled = talker, compiled
        self._functions: dict[tuple, FrameFunction] = {}
        plain = step_function(talker)
        self._step = mx.compile(plain) if compiled else plain

    def get(self, sampling: Sampling) -> FrameFunction:
        """The frame function for `sampling`, made once. A few are kept."""
        key = (sampling, self._talker.config.codec_eos_token_id)
        if key not in self._functions:
            if len(self._functions) >= KEPT_FUNCTIONS:
                self._functions.pop(next(iter(self._functions)))
            plain = frame_function(self._talker, sampling)
            self._functions[key] = mx.compile(plain) if self._compiled else plain
        return self._functions[key]

    def step(self, embedding: mx.array, text: mx.array, caches: list[KVCache]) -> tuple[mx.array, mx.array]:
        """The talker's next step: hidden state [1, hidden] and logits [1, vocab] after a frame.

        embedding: of the frame [1, hidden]; text: what it is fed beside it [1, hidden]; caches: are advanced.
        """
        for cache in caches:
            cache.reserve(1)
        buffers, offset = [cache.buffer for cache in caches], caches[0].offset
        hidden, logits, buffers = self._step(embedding, text, buffers, mx.array([offset], dtype=mx.int32))
        for cache, buffer in zip(caches, buffers, strict=True):
            cache.buffer, cache.offset = buffer, offset + 1
        return hidden, logits


def generate_frames(
    talker: Talker, functions: FrameFunctions, sampling: Sampling, prompt: Prompt, start: Start, seed: int, limit: int
) -> Iterator[np.ndarray]:
    """Yield the codes of one frame after the other, int32 [16], until the model ends or `limit` frames are out.

    sampling: without None. start: what `prefill` returned for the prompt; its caches are used up.
    seed: fixes every draw of this request and of no other. Raises GenerationError.
    """
    hidden, logits, caches = start
    frame_of = functions.get(sampling)
    seen = mx.zeros((1, talker.config.vocab_size), dtype=mx.bool_)
    key = mx.random.key(seed)
    for frame in range(limit):
        codes, embedding, seen, key = frame_of(hidden, logits, seen, key, mx.array(frame >= MIN_FRAMES))
        more = frame + 1 < limit
        # The next step is under way before anything of this frame is looked at. But not of the first one: the codec's
        # work on it would stand behind that step, and it is what a listener waits for.
        queued = more and frame > 0 and prompt.text.ready
        if queued:
            hidden, logits = functions.step(embedding, talker.embed_text(prompt.text.take(1))[0], caches)
            mx.async_eval(codes, hidden, logits, seen, key)
        row = np.array(codes[0], dtype=np.int32)
        if row[0] == talker.config.codec_eos_token_id:
            return
        if row[0] == NO_CODE:
            raise GenerationError(
                "the logits of a frame are not finite: the checkpoint is damaged, or its numbers are too large for "
                "float16 (dtype='bfloat16', --dtype bfloat16)"
            )
        yield row
        if more and not queued:
            hidden, logits = functions.step(embedding, talker.embed_text(prompt.text.take(1))[0], caches)


class Ahead(Iterator[np.ndarray]):
    """Frames, of which the next can be made before it is asked for."""

    def __init__(self, frames: Iterator[np.ndarray]) -> None:
        self._frames = frames
        self._outcome: tuple[np.ndarray | None, Exception | None] | None = None

    def look(self) -> None:
        """Make the next frame now; it, the end, or an error comes when it is asked for."""
        try:
            self._outcome = next(self._frames), None
        except Exception as error:  # noqa: BLE001
            self._outcome = None, error

    def __next__(self) -> np.ndarray:
        if self._outcome is None:
            return next(self._frames)
        (frame, error), self._outcome = self._outcome, None
        if error is not None:
            raise error
        return frame
