"""Text to codes: the demo's talker and code predictor, trained by teacher forcing.

    sentence and its clips' codes ─ make_sequence ─ collate ─ slips ─ cross_entropies ─┬─ loss ─ Descent ─ weights
        the numbers of the words written and spoken ─ two more losses on layer 2 ──────┘

Sequences, cross-entropies and steps are those of mlx_qwen3_tts.training. This file adds what lets such a small model
learn within minutes:
- The last codebook does not describe the sound: it counts the words begun so far, so that the talker can read its
  position in the text from its own codes.
- Two linear layers predict from the talker's second layer how many words have been written and spoken, and two heads of
  the third layer are made to attend to the word spoken and the next one. The linear layers are not saved.
- Some of the input codes are wrong, so that the model learns to continue after an error.
- Near the end, weights are rounded to 4 bits in some steps, so that they can be quantized.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from demo_speech import PAUSE, VOICES, Key, Utterance
from mlx_qwen3_tts.config.model import ModelConfig
from mlx_qwen3_tts.generation.prompt import PromptBuilder
from mlx_qwen3_tts.models.cache import Cache
from mlx_qwen3_tts.models.qwen3 import DecoderLayer, RotaryEmbedding, call_layer
from mlx_qwen3_tts.models.talker import Talker
from mlx_qwen3_tts.text.tokenizer import TextTokenizer
from mlx_qwen3_tts.training.descent import Descent, DescentOptions, Step, other_weights
from mlx_qwen3_tts.training.loss import (
    TrainingBatch,
    TrainingSequence,
    collate,
    cross_entropies,
    cross_entropy,
    make_sequence,
)

PREDICTED = 64  # frames per batch that train the code predictor
SLIPS = 0.01  # share of wrong input codes
MOST_WORDS = 32  # in a sentence, plus one
LOSSES = ("loss", "code 0", "codes 1-15", "code 15", "counting", "following")
BITS = 4
GROUP = 64  # weights that share a scale when quantized
MULTIPLE = 8  # of the length of a batch


@dataclass(frozen=True)
class CountedSequence:
    """One utterance as the talker sees it, and the numbers of its words."""

    ids: TrainingSequence
    written: list[int]  # the number of the word that each text id begins, from 1; 0 for other ids; one more at the end
    spoken: list[int]  # the number of words begun by the end of each frame; one more at the end

    def __len__(self) -> int:
        return len(self.ids)


class Batch(NamedTuple):
    """Sequences, padded on the right."""

    given: TrainingBatch  # with wrong codes, and a few of the frames for the code predictor
    spoken: mx.array  # int [batch, time]: the words begun, including the target
    written: mx.array  # int [batch, time]: the words written; 0 if there is no text


class Sequences:
    """Makes training sequences from utterances, and batches of them."""

    def __init__(self, config: ModelConfig, tokenizer: TextTokenizer, codes: dict[tuple[str, Key], np.ndarray]) -> None:
        self.config, self.codes = config, codes
        self._tokenizer = tokenizer
        self._builder = PromptBuilder(config, tokenizer)

    def make(self, utterance: Utterance, voice: str, language: str, non_streaming_mode: bool) -> CountedSequence:
        """Return the sequence of an utterance in one of the two text layouts; see Request."""
        parts = [self.codes[voice, key] for key in utterance.keys]
        codes = np.concatenate(parts)
        words = np.cumsum([word_count(key) for key in utterance.keys])
        spoken = [count for count, part in zip(words, parts, strict=True) for _ in part]
        codes[:, -1] = spoken
        return CountedSequence(
            ids=make_sequence(self._builder, utterance.text, codes, voice, language, non_streaming_mode),
            written=self._written(utterance.text),
            spoken=[*spoken, words[-1] + 1],
        )

    def _written(self, text: str) -> list[int]:
        """Return the number of the word that each id begins, 0 for other ids, and one more for the end."""
        pieces = [self._tokenizer.decode([id_]).strip() for id_ in self._tokenizer.encode(text)]
        is_word = np.array([piece.isalpha() for piece in pieces])
        counts = np.cumsum(is_word)
        return [*(counts * is_word), counts[-1] + 1]

    def random(self, sentence: Callable[[random.Random], Utterance], rng: random.Random) -> CountedSequence:
        language = "english" if rng.random() < 0.5 else "auto"
        return self.make(sentence(rng), rng.choice(VOICES), language, rng.random() < 0.5)

    def batch(self, sequences: Sequence[CountedSequence], rng: np.random.RandomState) -> Batch:
        """Pad sequences and stack them, one in each row."""
        num_codes = self.config.talker_config.num_codes
        time = -(-max(map(len, sequences)) // MULTIPLE) * MULTIPLE
        given = collate([one.ids for one in sequences], end=num_codes)  # the head's last row; see Lesson
        padded = ("text", "codes", "targets", "is_target")  # to a larger multiple, which a CPU is slow to compute
        given = given._replace(**{name: getattr(given, name)[:, :time] for name in padded})
        is_frame = np.zeros((len(sequences), time, 1), bool)
        spoken = np.zeros((len(sequences), time), np.int32)
        written = np.zeros((len(sequences), time), np.int32)
        for row, one in enumerate(sequences):
            start = one.ids.start
            end = len(one)
            is_frame[row, start:end] = True
            spoken[row, start - 1 : end] = one.spoken
            first = list(one.ids.text).index(self.config.tts_bos_token_id) + 1  # the text follows, in both layouts
            written[row, first : first + len(one.written)] = one.written[: end - first]
        picked = mx.array(rng.randint(0, is_frame.sum(), PREDICTED))
        given = given._replace(
            codes=mx.array(with_slips(np.array(given.codes), is_frame, num_codes, rng)),
            places=given.places[picked],
            frames=given.frames[picked],
            is_frame=mx.ones(PREDICTED),
        )
        return Batch(given, mx.array(spoken), mx.array(written))


def with_slips(codes: np.ndarray, is_frame: np.ndarray, num_codes: int, rng: np.random.RandomState) -> np.ndarray:
    """Return codes [batch, time, 16] of which some are wrong, in half of the frames. is_frame: [batch, time, 1]."""
    slips = (rng.random_sample(codes.shape) < SLIPS) & (rng.random_sample(is_frame.shape) < 0.5) & is_frame
    slips[..., -1] = False
    return np.where(slips, rng.randint(0, num_codes, codes.shape), codes)


def word_count(key: Key) -> int:
    """Return the number of words in a clip."""
    return 0 if key[0] == PAUSE else len(key[0].split())


class Lesson(nn.Module):
    """The talker with the auxiliary layers and losses of training."""

    def __init__(self, talker: Talker) -> None:
        super().__init__()
        self.talker = talker
        config = talker.config
        self._ids = mx.array([*range(config.num_codes), config.codec_eos_token_id])  # no other id can follow
        self.spoken = nn.Linear(config.hidden_size, MOST_WORDS)
        self.written = nn.Linear(config.hidden_size, MOST_WORDS)

    def __call__(self, batch: Batch, is_rounded: bool) -> tuple[mx.array, ...]:
        """Return LOSSES."""
        weights = self.talker.parameters()
        if is_rounded:
            weights = tree_map(rounded, weights)
        # The head has rows for the ids that can follow alone: codes, and then the end.
        weights = weights | {"codec_head": {"weight": weights["codec_head"]["weight"][self._ids]}}
        with other_weights(self.talker, weights):
            first, rest, last, counting, following = self._parts(batch)
        total = first + 0.1 * rest + 0.5 * last + 0.3 * counting + 0.5 * following
        return total, first, rest, last, counting, following

    def _parts(self, batch: Batch) -> tuple[mx.array, ...]:
        third = self.talker.model.layers[2]
        seen: list[tuple[mx.array, RotaryEmbedding]] = []  # by the third layer

        def apply_layer(layer: nn.Module, x: mx.array, cache: Cache, rotation: RotaryEmbedding) -> mx.array:
            if layer is third:
                seen.append((x, rotation))
            return call_layer(layer, x, cache, rotation)

        given = batch.given
        each = cross_entropies(self.talker, given, apply_layer)
        (x, rotation), *_ = seen
        x = x.reshape(*given.text.shape, -1)
        is_text = (batch.written > 0).astype(mx.float32)
        counting = weighted_mean(cross_entropy(self.spoken(x), batch.spoken), given.is_target)
        counting = counting + weighted_mean(cross_entropy(self.written(x), batch.written), is_text)
        predicted = each.predictor.mean(axis=0)  # [15]
        first = weighted_mean(each.talker, given.is_target)
        return first, predicted.sum(), predicted[-1], counting, follow(third, x, rotation, batch)


def follow(layer: DecoderLayer, x: mx.array, rotation: RotaryEmbedding, batch: Batch) -> mx.array:
    """Return a loss that makes two heads of a layer, with input `x`, attend to the spoken word and to the next one."""
    attention, x = layer.self_attn, layer.input_layernorm(x)

    def heads(projected: mx.array, count: int) -> mx.array:  # the first `count`: [batch, count, time, head_dim]
        return projected.reshape(*x.shape[:2], -1, attention.head_dim)[:, :, :count].swapaxes(1, 2)

    queries = rotation(attention.q_norm(heads(attention.q_proj(x), 2)))
    keys = rotation(attention.k_norm(heads(attention.k_proj(x), 1)))
    scores = queries @ keys.swapaxes(2, 3) * attention.head_dim**-0.5  # [batch, 2, time, time]
    time = mx.arange(x.shape[1])
    scores = mx.where(time[:, None] >= time, scores, -1e9)
    wanted = mx.stack([batch.spoken, batch.spoken + 1], axis=1)[..., None]
    there = (batch.written[:, None, None] == wanted) & (time[:, None] >= time)
    found = mx.logsumexp(mx.where(there, scores, -1e9), axis=-1) - mx.logsumexp(scores, axis=-1)
    weight = batch.given.is_target[:, None] * there.any(axis=-1)
    return -(found * weight).sum() / weight.sum()


def weighted_mean(values: mx.array, weights: mx.array) -> mx.array:
    return (values * weights).sum() / weights.sum()


def rounded(weight: mx.array) -> mx.array:
    """Round a matrix as quantization does; gradients pass straight through."""
    if weight.ndim != 2 or weight.shape[-1] % GROUP:
        return weight
    kept = mx.stop_gradient(weight)
    return weight + mx.stop_gradient(mx.dequantize(*mx.quantize(kept, GROUP, BITS), GROUP, BITS) - kept)


def train_talker(
    talker: Talker, next_batch: Callable[[], Batch], steps: int, peak: float, rounding_from: float = 0.7
) -> Iterator[Step]:
    """Train talker and code predictor together; yields after each step.

    rounding_from: the share of the steps after which every second one rounds the weights.
    """
    table = talker.model.text_embedding
    table.weight = table.weight * 4  # the scale of the codec embeddings that it is added to
    lesson = Lesson(talker)
    options = DescentOptions(
        steps=steps,
        learning_rate=peak,
        warm_up=max(1, min(100, steps // 10)),
        last_rate=peak * 0.02,
        betas=(0.9, 0.98),
        weight_decay=0.02,
    )

    def batches(step: int) -> list[tuple[Batch, bool]]:
        is_rounded = step > rounding_from * steps and step % 2 == 1
        return [(next_batch(), is_rounded)]

    return Descent(lesson, lesson, LOSSES, options).run(batches)
