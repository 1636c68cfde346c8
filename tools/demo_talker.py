"""Text to codes: the demo's talker and code predictor, trained by teacher forcing.

    sentence ─ PromptBuilder ─ a text id and a row of codes for each position ──┐
    its clips ─ frames of 16 codes, each with the text id that it is fed with ──┴─ one sequence
    sequences ─ embeddings ─ talker ─ hidden ─┬─ codec_head ─ code 0 of the next frame, or the end
                                              └─ code predictor, on a few of the frames ─ codes 1..15

During training, two linear layers predict from the talker's second layer how many words have been written and spoken.
With this auxiliary loss the talker learns within minutes to find its place in the text. The layers are not saved.
The last codebook does not describe the sound: it counts the words begun so far, so that the talker can read its
position in the text from its own codes. A model of this size does not find its place within minutes otherwise.
The prompt is built by the same code as in a request. Some of the input codes are wrong, so that the model learns to
continue after an error. Near the end, weights are rounded to 4 bits in some steps, so that they can be quantized.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from demo_speech import PAUSE, VOICES, Key, Utterance
from mlx_qwen3_tts.config.model import ModelConfig
from mlx_qwen3_tts.generation.prompt import PromptBuilder
from mlx_qwen3_tts.generation.scoring import predictor_logits
from mlx_qwen3_tts.models.qwen3 import DecoderLayer, RotaryEmbedding
from mlx_qwen3_tts.models.talker import NO_CODE, Talker
from mlx_qwen3_tts.request import Request
from mlx_qwen3_tts.text.tokenizer import TextTokenizer

PREDICTED = 64  # frames per batch that train the code predictor
SLIPS = 0.01  # share of wrong input codes
MOST_WORDS = 32  # in a sentence, plus one
PARTS = ("code 0", "codes 1-15", "code 15", "counting", "following")
GROUP = 64  # weights that share a scale when quantized


@dataclass(frozen=True)
class Sequence_:
    """One utterance as the talker sees it."""

    prompt_text: np.ndarray  # int [positions]
    prompt_codes: np.ndarray  # int [positions, 16]
    text: list[int]  # the text id that each frame is fed with
    codes: np.ndarray  # int [frames, 16]
    written: list[int]  # the number of the word that each text id begins, from 1; 0 for other ids; one more at the end
    spoken: list[int]  # the number of words begun by the end of each frame; one more at the end

    def __len__(self) -> int:
        return len(self.prompt_text) + len(self.codes)


class Batch(NamedTuple):
    """Sequences, padded on the right."""

    text: mx.array  # int [batch, time]
    codes: mx.array  # int [batch, time, 16]; NO_CODE adds nothing
    target: mx.array  # int [batch, time]: code 0 of the next frame; num_codes for the end
    weight: mx.array  # float [batch, time]: 1 if there is a target
    spoken: mx.array  # int [batch, time]: the words begun, including the target
    written: mx.array  # int [batch, time]: the words written; 0 if there is no text
    picked: mx.array  # int [PREDICTED, 2]: sequence and position whose hidden state the code predictor completes
    picked_codes: mx.array  # int [PREDICTED, 16]


class Sequences:
    """Makes training sequences from utterances."""

    def __init__(self, config: ModelConfig, tokenizer: TextTokenizer, codes: dict[tuple[str, Key], np.ndarray]) -> None:
        self.config, self.codes = config, codes
        self._tokenizer = tokenizer
        self._builder = PromptBuilder(config, tokenizer)

    def make(self, utterance: Utterance, voice: str, language: str, non_streaming_mode: bool) -> Sequence_:
        """Return the sequence of an utterance in one of the two text layouts; see Request."""
        request = Request(utterance.text, voice=voice, language=language, non_streaming_mode=non_streaming_mode)
        prompt = self._builder.build(request)
        parts = [self.codes[voice, key] for key in utterance.keys]
        codes = np.concatenate(parts)
        words = np.cumsum([word_count(key) for key in utterance.keys])
        spoken = [count for count, part in zip(words, parts, strict=True) for _ in part]
        codes[:, -1] = spoken
        return Sequence_(
            prompt_text=prompt.text,
            prompt_codes=prompt.codes,
            text=prompt.feed.take(len(codes)),
            codes=codes,
            written=self._written(utterance.text),
            spoken=[*spoken, words[-1] + 1],
        )

    def _written(self, text: str) -> list[int]:
        """Return the number of the word that each id begins, 0 for other ids, and one more for the end."""
        pieces = [self._tokenizer.decode([id_]).strip() for id_ in self._tokenizer.encode(text)]
        is_word = np.array([piece.isalpha() for piece in pieces])
        counts = np.cumsum(is_word)
        return [*(counts * is_word), counts[-1] + 1]

    def random(self, sentence: Callable[[random.Random], Utterance], rng: random.Random) -> Sequence_:
        language = "english" if rng.random() < 0.5 else "auto"
        return self.make(sentence(rng), rng.choice(VOICES), language, rng.random() < 0.5)

    def batch(self, sequences: Sequence[Sequence_], rng: np.random.RandomState) -> Batch:
        """Pad sequences and stack them, one in each row."""
        num_codes = self.config.talker_config.num_codes
        time = max(map(len, sequences))
        time += -time % 8
        shape = (len(sequences), time)
        text = np.zeros(shape, int)
        codes = np.full((*shape, 16), NO_CODE)
        is_frame = np.zeros((*shape, 1), bool)
        weight = np.zeros(shape)
        target = np.zeros(shape, int)
        spoken = np.zeros(shape, int)
        written = np.zeros(shape, int)
        places = []
        for i, one in enumerate(sequences):
            start = len(one.prompt_text)
            end = len(one)
            text[i, :start] = one.prompt_text
            text[i, start:end] = one.text
            codes[i, :start] = one.prompt_codes
            codes[i, start:end] = one.codes
            is_frame[i, start:end] = True
            target[i, start - 1 : end - 1] = one.codes[:, 0]
            target[i, end - 1] = num_codes  # the end, after the codes
            weight[i, start - 1 : end] = 1
            spoken[i, start - 1 : end] = one.spoken
            first = list(one.prompt_text).index(self.config.tts_bos_token_id) + 1  # the text follows, in both layouts
            written[i, first : first + len(one.written)] = one.written[: end - first]
            places += [(i, start - 1 + k, frame) for k, frame in enumerate(one.codes)]
        picked = [places[k] for k in rng.randint(0, len(places), PREDICTED)]
        slips = (rng.random_sample(codes.shape) < SLIPS) & (rng.random_sample((*shape, 1)) < 0.5) & is_frame
        slips[..., -1] = False
        codes = np.where(slips, rng.randint(0, num_codes, codes.shape), codes)
        return Batch(
            text=mx.array(text),
            codes=mx.array(codes),
            target=mx.array(target),
            weight=mx.array(weight.astype(np.float32)),
            spoken=mx.array(spoken),
            written=mx.array(written),
            picked=mx.array([pick[:2] for pick in picked]),
            picked_codes=mx.array(np.stack([pick[2] for pick in picked])),
        )


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
        self.spoken = nn.Linear(talker.config.hidden_size, MOST_WORDS)
        self.written = nn.Linear(talker.config.hidden_size, MOST_WORDS)

    def __call__(self, batch: Batch, bits: int | None) -> tuple[mx.array, ...]:
        """Return the losses of codebook 0, the predictor's codes, its last code, and counting and following words."""
        talker = self.talker
        if bits:
            round_weights(talker, bits)
        second: list[mx.array] = []  # the output of the second layer

        def keep_second(number: int, rows: mx.array) -> None:
            if number == 1:
                second.append(rows)

        x = talker.embed_text(batch.text) + talker.embed_frames(batch.codes)
        hidden = talker.model.norm(talker.model.run_layers(x, after_layer=keep_second))
        x = second[0].reshape(x.shape)
        rotation = talker.model.rotary_embedding(np.arange(x.shape[1]))
        guided = follow(talker.model.layers[2], x, rotation, batch)
        is_text = (batch.written > 0).astype(mx.float32)
        counting = mean_loss(self.spoken(x), batch.spoken, batch.weight)
        counting = counting + mean_loss(self.written(x), batch.written, is_text)
        first = mean_loss(hidden @ talker.codec_head.weight[self._ids].T, batch.target, batch.weight)
        picked = hidden[batch.picked[:, 0], batch.picked[:, 1]]
        rest, last = predict(talker, picked, batch.picked_codes)
        return first, rest, last, counting, guided


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
    weight = batch.weight[:, None] * there.any(axis=-1)
    return -(found * weight).sum() / weight.sum()


def mean_loss(logits: mx.array, target: mx.array, weight: mx.array) -> mx.array:
    """Return the weighted mean of the positions' cross entropy."""
    return (nn.losses.cross_entropy(logits, target) * weight).sum() / weight.sum()


def predict(talker: Talker, hidden: mx.array, codes: mx.array) -> tuple[mx.array, mx.array]:
    """hidden [frames, hidden] and codes [frames, 16] -> the losses of all of the predictor's codes, and of the last."""
    logits = predictor_logits(talker, hidden, codes)
    losses = nn.losses.cross_entropy(logits, codes[:, 1:]).mean(axis=0)  # [15]
    return losses.sum(), losses[-1]


def round_weights(talker: Talker, bits: int) -> None:
    """Round every matrix as quantization does; gradients pass straight through."""

    def rounded(weight: mx.array) -> mx.array:
        if weight.ndim != 2 or weight.shape[-1] % GROUP:
            return weight
        kept = mx.stop_gradient(weight)
        return weight + mx.stop_gradient(mx.dequantize(*mx.quantize(kept, GROUP, bits), GROUP, bits) - kept)

    talker.update(tree_map(rounded, talker.parameters()))


def train_talker(
    talker: Talker,
    next_batch: Callable[[], Batch],
    steps: int,
    peak: float,
    log: Callable[[str], None],
    save: Callable[[], None],
    rounding_from: float = 0.7,
) -> None:
    """Train talker and code predictor together."""
    warm = max(1, min(100, steps // 10))
    rate = optim.join_schedules(
        [optim.linear_schedule(0, peak, warm), optim.cosine_decay(peak, steps - warm, peak * 0.02)], [warm]
    )
    optimizer = optim.AdamW(rate, betas=[0.9, 0.98], weight_decay=0.02)

    table = talker.model.text_embedding
    table.weight = table.weight * 4  # the scale of the codec embeddings that it is added to
    lesson = Lesson(talker)

    def loss(batch: Batch, bits: int | None) -> tuple[mx.array, ...]:
        first, rest, last, counting, guided = lesson(batch, bits)
        total = first + 0.1 * rest + 0.5 * last + 0.3 * counting + 0.5 * guided
        return total, first, rest, last, counting, guided

    gradient = nn.value_and_grad(lesson, loss)
    started, means = time.time(), None
    for step in range(steps):
        bits = 4 if step > rounding_from * steps and step % 2 else None
        weights = lesson.parameters()
        values, gradients = gradient(next_batch(), bits)
        lesson.update(weights)  # as they were before rounding
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(lesson, gradients)
        mx.eval(values, lesson.parameters(), optimizer.state)
        now = np.array([value.item() for value in values])
        means = now if means is None else 0.95 * means + 0.05 * now
        if step % 50 == 0:
            parts = "  ".join(f"{name} {mean:.4f}" for name, mean in zip(PARTS, means[1:], strict=True))
            log(f"talker {step:5d} of {steps}  {parts}  {time.time() - started:.0f} s")
        if step % 250 == 249:
            save()
