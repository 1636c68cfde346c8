"""Known numbers of released weights, and the same numbers of a checkpoint.

text ids ─ embedding ─ layers, their means ─ likeliest codes ─ code predictor ─ its means, its likeliest codes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..checkpoint.weights import load_weights
from ..config.model import ModelConfig
from ..mlx_thread import Worker
from ..models.network import Network
from ..models.qwen3 import Transformer

LayerMeans = tuple[tuple[int, float], ...]  # number of a layer, mean of the residual stream after it


@dataclass(frozen=True)
class Fingerprints:
    """Numbers that known weights give in float32. Empty fields are unknown.

    The text ids go through text embedding, text projection, the layers with causal attention, the final norm and
    codec_head. The code predictor then starts from the last hidden state and the last of the codes.
    """

    vocabulary: int = 151936  # text_vocab_size of the models that the numbers belong to
    pad: tuple[float, ...] = ()  # the first values of the projected embedding of tts_pad
    ids: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()  # the likeliest one after each id
    layers: LayerMeans = ()  # the talker's
    residual_codes: tuple[int, ...] = ()  # the likeliest one of each of the 15 heads, all at the second position
    predictor_layers: LayerMeans = ()


# By tts_model_type and tts_model_size. Source: the released weights in float32, as tests/reference_validation.rs and
# docs/VALIDATION.md of qwen3-tts-rs assert; `pad` from blog/cross-model-voice-analysis.md of gabriele-mastrapasqua's
# qwen3-tts.
KNOWN = {
    ("base", "0b6"): Fingerprints(
        pad=(0.004777, -0.003806, -0.001696),
        ids=(9707, 11, 419, 374, 264),
        codes=(1501, 1231, 1732, 1353, 963),
        layers=((0, -0.001917), (7, -0.017344), (14, -0.032283), (21, -0.027164), (27, -0.006411)),
        residual_codes=(281, 1899, 1174, 221, 1049, 280, 1863, 1317, 82, 604, 1300, 1030, 342, 165, 1750),
        predictor_layers=((0, 0.045735), (4, 0.051924)),
    ),
    ("custom_voice", "0b6"): Fingerprints(pad=(0.004978, -0.003639, -0.002433)),
}


def fingerprints(directory: Path, config: ModelConfig, like: Fingerprints) -> Fingerprints:
    """Return the numbers of a checkpoint, for the ids and layers of `like`. The weights are read again, as float32.

    They are computed on the CPU, because matrix products of some GPUs round float32 to fewer bits.
    """
    return Worker(mx.Device(mx.cpu)).run(_fingerprints, directory, config, like)


def _fingerprints(directory: Path, config: ModelConfig, like: Fingerprints) -> Fingerprints:
    network = Network(config)
    load_weights(network, directory, mx.float32)
    talker = network.talker
    predictor = talker.code_predictor
    pad = np.array(talker.embed_text(mx.array([config.tts_pad_token_id])))[0, : len(like.pad)]
    if not like.ids:
        return Fingerprints(like.vocabulary, tuple(pad.tolist()))
    x, layers = run_and_average(talker.model, talker.embed_text(mx.array([like.ids])), like.layers)
    hidden = talker.model.norm(x)
    codes = likeliest(talker.codec_head(hidden)[0])
    code0 = talker.model.codec_embedding(mx.array([[codes[-1] % config.talker_config.vocab_size]]))
    x = predictor.project(mx.concatenate([hidden[:, -1:], code0], axis=1))
    x, predictor_layers = run_and_average(predictor.model, x, like.predictor_layers)
    last = predictor.model.norm(x)[0, -1]
    return Fingerprints(
        vocabulary=like.vocabulary,
        pad=tuple(pad.tolist()),
        ids=like.ids,
        codes=codes,
        layers=layers,
        residual_codes=likeliest(mx.stack([head(last) for head in predictor.lm_head])),
        predictor_layers=predictor_layers,
    )


def likeliest(logits: mx.array) -> tuple[int, ...]:
    """Return the code of the largest logit in each row [rows, codes]."""
    return tuple(np.array(mx.argmax(logits, axis=-1)).tolist())


def run_and_average(
    model: Transformer, x: mx.array, wanted: Sequence[tuple[int, float]]
) -> tuple[mx.array, LayerMeans]:
    """Run x [1, time, hidden] through a model's layers; also return the means after the layers that are wanted."""
    numbers = dict(wanted)
    means: list[tuple[int, float]] = []

    def average(number: int, rows: mx.array) -> None:
        if number in numbers:
            means.append((number, float(np.array(mx.mean(rows)))))

    return model.run_layers(x, after_layer=average), tuple(means)
