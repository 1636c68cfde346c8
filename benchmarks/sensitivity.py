"""Measure which parts of the model lose most with few bits: KL divergence at the released depth with random weights.

usage: python -m benchmarks.sensitivity [--frames N] [--bits N ...] [--seed N]

One part at a time is quantized (and dequantized again, which gives the same numbers and is faster on a CPU); the rest
stays float32. Frames of random codes are teacher-forced. Prints a table and one line of JSON. Random weights show how
rounding propagates through depth and shape, but not how it affects trained weights (see `mlx-qwen3-tts evaluate`).
"""

import argparse
import json
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlx_qwen3_tts.checkpoint.quantization import Affine
from mlx_qwen3_tts.config.model import ModelConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.conversion.affine import plain
from mlx_qwen3_tts.conversion.recipes import PARTS, part_of
from mlx_qwen3_tts.evaluation.evaluate import kl_divergence
from mlx_qwen3_tts.generation.scoring import log_softmax, predictor_logits, talker_hidden_states
from mlx_qwen3_tts.models.network import Network
from mlx_qwen3_tts.models.talker import Talker
from tests.support import released

TEXT = 10  # positions of text before the speech


def random_network(seed: int) -> Network:
    """The 0.6B model's talker and code predictor with a small text vocabulary."""
    config = released.config("0.6B-CustomVoice")
    config["talker_config"]["text_vocab_size"] = 4096
    for key in [key for key in config if key.endswith("token_id")]:
        config[key] = 1
    network = Network(from_dict(ModelConfig, config, "config.json"))
    mx.random.seed(seed)
    drawn = {}
    for name, parameter in tree_flatten(network.parameters()):
        noise = mx.random.normal(parameter.shape)
        if parameter.ndim == 1:
            drawn[name] = 1 + 0.2 * noise if "norm" in name else 0.1 * noise
        elif "embedding" in name:
            drawn[name] = noise
        else:  # the heads' logits spread like those of a trained model
            drawn[name] = noise * (4.0 if "head" in name else 1.0) * parameter.shape[-1] ** -0.5
        mx.eval(drawn[name])
    network.update(tree_unflatten(list(drawn.items())))
    return network


def outputs(talker: Talker, ids: mx.array, codes: mx.array) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of codebook 0 [frames, vocab] and of the others [frames, 15, codes]."""
    text = talker.embed_text(ids)
    spoken = talker.embed_frames(codes) + text[:, -1:]
    hidden = talker_hidden_states(talker, mx.concatenate([text, spoken[:, :-1]], axis=1))[0, -codes.shape[1] :]
    first = log_softmax(talker.codec_head(hidden))
    others = log_softmax(predictor_logits(talker, hidden, codes[0]))
    return np.array(first), np.array(others)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    network = random_network(args.seed)
    codes = mx.random.randint(0, 2048, (1, args.frames, 16))
    ids = mx.random.randint(0, 4096, (1, TEXT))
    expected = outputs(network.talker, ids, codes)
    rows = []
    for part in PARTS:
        layers = [m for path, m in network.named_modules() if part_of(path) == part]
        layers = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Embedding)]
        for bits in args.bits if layers else ():
            weights = [layer.weight for layer in layers]
            for layer in layers:
                layer.weight = mx.dequantize(*plain(layer.weight, Affine(bits)), 64, bits)
            found = outputs(network.talker, ids, codes)
            for layer, weight in zip(layers, weights, strict=True):
                layer.weight = weight
            pairs = list(zip(expected, found, strict=True))
            kl = [float(kl_divergence(*pair).mean()) for pair in pairs]
            same = [float((a.argmax(-1) == b.argmax(-1)).mean()) for a, b in pairs]
            megabytes = sum(weight.size for weight in weights) * (bits + 0.5) / 8e6
            rows.append({"part": part, "bits": bits, "MB": round(megabytes, 1), "kl": kl, "agreement": same})
            print(
                f"{part:<25} {bits} bits {megabytes:7.1f} MB   codebook 0: KL {kl[0]:.4f}, {same[0]:.0%}   "
                f"others: KL {kl[1]:.4f}, {same[1]:.0%}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    print(json.dumps(rows))


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    main()
