"""The loss of fine-tuning: the cross-entropy of given frames, teacher-forced over the prompt that generation builds.

    text, language, voice ─ PromptBuilder ─ ids ─┐
    frames, each with the text id that it is fed ┴─ Sequence ─ collate ─ Batch ─ talker ─ hidden states
                                 codec_head: codebook 0 of the next frame, or the end ◄─┤
                                 code predictor: codebooks 1..15 of the next frame    ◄─┘

    position     ... | last of the prompt | frame 0 | ... | frame N-1
    predicts           frame 0              frame 1         the end

Everything that follows a position is predicted from the hidden state before it, as in generation. The official script
shifts the labels twice, and gives the predictor a hidden state that has already seen the frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..generation.prompt import ClonedSpeaker, PromptBuilder
from ..generation.scoring import predictor_logits
from ..models.qwen3 import ApplyLayer, call_layer
from ..models.talker import NO_CODE, Talker
from ..request import Request
from ..voice import VoiceClonePrompt

PREDICTOR_WEIGHT = 0.3  # the weight of the predictor's loss, as in the official script
NO_VOICE = -1  # no position
MULTIPLE = 32  # lengths of batches are multiples of it, so that few different shapes are compiled


@dataclass(frozen=True, eq=False)
class TrainingSequence:
    """The ids of one utterance: its prompt, then its frames."""

    text: np.ndarray  # int32 [positions]
    codes: np.ndarray  # int32 [positions, 16]
    start: int  # number of positions of the prompt
    voice: np.ndarray  # float32 [hidden], the speaker embedding
    voice_position: int  # NO_VOICE if a preset voice's id is among the codes

    def __len__(self) -> int:
        return len(self.text)


class TrainingBatch(NamedTuple):
    """Sequences, padded on the right, where a causal model does not look."""

    text: mx.array  # int32 [rows, time]
    codes: mx.array  # int32 [rows, time, 16]
    voices: mx.array  # float32 [rows, hidden]
    voice_positions: mx.array  # int32 [rows]
    targets: mx.array  # int32 [rows, time]: codebook 0 of the next frame, or the end
    is_target: mx.array  # float32 [rows, time]: 1 if something follows, else 0
    places: mx.array  # int32 [frames, 2]: row and position of the hidden state before each frame
    frames: mx.array  # int32 [frames, 16]
    is_frame: mx.array  # float32 [frames]: 0 for padding


class Totals(NamedTuple):
    """What a mean is taken over: numbers of predictions, of all batches whose gradients are added up."""

    targets: float  # predictions of codebook 0 and of the end
    residuals: float  # predictions of codebooks 1..15

    @classmethod
    def of(cls, sequences: Sequence[TrainingSequence]) -> "Totals":
        """Count the predictions in sequences."""
        frames = sum(len(one) - one.start for one in sequences)
        residuals = sum((len(one) - one.start) * (one.codes.shape[1] - 1) for one in sequences)
        return cls(float(frames + len(sequences)), float(residuals))


class CrossEntropies(NamedTuple):
    """Those of each prediction of a batch, float32, padding included."""

    talker: mx.array  # [rows, time]: of codebook 0 and the end
    predictor: mx.array  # [frames, 15]: of codebooks 1..15


class Losses(NamedTuple):
    """Sums over all predictions of a batch."""

    talker: mx.array
    predictor: mx.array


def make_sequence(
    builder: PromptBuilder,
    text: str,
    codes: np.ndarray,
    voice: np.ndarray | str,
    language: str | None = None,
    non_streaming_mode: bool = True,
) -> TrainingSequence:
    """Return the ids of an utterance in one of the two text layouts.

    codes: int [frames, 16]. voice: of a Base model, the speaker embedding, which takes the place that a preset voice's
    id has in generation; of a CustomVoice model, the name of a preset voice. Raises RequestError for a text, voice or
    language that the model does not take.
    """
    speaks: str | VoiceClonePrompt = voice if isinstance(voice, str) else VoiceClonePrompt(speaker_embedding=voice)
    request = Request(text, voice=speaks, language=language, non_streaming_mode=non_streaming_mode)
    prompt = builder.build(request)
    speaker = prompt.speaker
    if speaker is None:
        speaker = ClonedSpeaker(np.zeros(builder.config.talker_config.hidden_size, np.float32), NO_VOICE)
    return TrainingSequence(
        text=np.concatenate([prompt.text, np.array(prompt.feed.take(len(codes)), np.int32)]),
        codes=np.concatenate([prompt.codes, codes.astype(np.int32)]),
        start=len(prompt),
        voice=speaker.embedding,
        voice_position=speaker.position,
    )


def collate(sequences: Sequence[TrainingSequence], end: int) -> TrainingBatch:
    """Pad sequences and stack them; end: the id of the end of speech."""
    rows = len(sequences)
    groups = sequences[0].codes.shape[1]
    time = padded(max(map(len, sequences)))
    text = np.zeros((rows, time), np.int32)
    codes = np.full((rows, time, groups), NO_CODE, np.int32)
    targets = np.zeros((rows, time), np.int32)
    is_target = np.zeros((rows, time), np.float32)
    places = []
    for row, one in enumerate(sequences):
        text[row, : len(one)] = one.text
        codes[row, : len(one)] = one.codes
        targets[row, one.start - 1 : len(one) - 1] = one.codes[one.start :, 0]
        targets[row, len(one) - 1] = end
        is_target[row, one.start - 1 : len(one)] = 1
        places += [(row, position) for position in range(one.start - 1, len(one) - 1)]
    count = padded(len(places))
    frames = np.zeros((count, groups), np.int32)
    frames[: len(places)] = np.concatenate([one.codes[one.start :] for one in sequences])
    return TrainingBatch(
        text=mx.array(text),
        codes=mx.array(codes),
        voices=mx.array(np.stack([one.voice for one in sequences])),
        voice_positions=mx.array(np.array([one.voice_position for one in sequences], np.int32)),
        targets=mx.array(targets),
        is_target=mx.array(is_target),
        places=mx.array(np.array(places + [(0, 0)] * (count - len(places)), np.int32)),
        frames=mx.array(frames),
        is_frame=mx.array((np.arange(count) < len(places)).astype(np.float32)),
    )


def padded(length: int) -> int:
    """Return the next multiple of MULTIPLE."""
    return -(-length // MULTIPLE) * MULTIPLE


def cross_entropies(talker: Talker, batch: TrainingBatch, apply_layer: ApplyLayer = call_layer) -> CrossEntropies:
    """Return the cross-entropy of each prediction; apply_layer: see Transformer.run_layers."""
    codec = talker.embed_frames(batch.codes)
    is_voice = mx.arange(batch.text.shape[1])[None] == batch.voice_positions[:, None]
    codec = mx.where(is_voice[..., None], batch.voices[:, None].astype(codec.dtype), codec)
    x = talker.embed_text(batch.text) + codec
    hidden = talker.model.norm(talker.model.run_layers(x, apply_layer=apply_layer))
    first = cross_entropy(talker.codec_head(hidden), batch.targets)
    before = hidden[batch.places[:, 0], batch.places[:, 1]]
    rest = cross_entropy(predictor_logits(talker, before, batch.frames, apply_layer), batch.frames[:, 1:])
    return CrossEntropies(first, rest)


def losses(talker: Talker, batch: TrainingBatch, apply_layer: ApplyLayer = call_layer) -> Losses:
    """Return the summed cross-entropies of a batch, float32; apply_layer: see Transformer.run_layers."""
    each = cross_entropies(talker, batch, apply_layer)
    return Losses((each.talker * batch.is_target).sum(), (each.predictor * batch.is_frame[:, None]).sum())


def mean_loss(sums: Losses, totals: Totals) -> mx.array:
    """Return the loss that is minimized."""
    return sums.talker / totals.targets + PREDICTOR_WEIGHT * sums.predictor / totals.residuals


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Return the cross-entropy of each prediction, in float32."""
    return nn.losses.cross_entropy(logits.astype(mx.float32), targets)
