"""Train the demo's checkpoint: `python tools/train_demo.py DIRECTORY` writes it in the released layout.

    flite ─ clips ─ codes ─┬─ decoder ─────────────────┬─ config.json, model.safetensors, speech_tokenizer/ ...
                           └─ talker, code predictor ──┘

It needs the program flite; one seed fixes the sentences and the initial weights. --part trains the codec or the talker
alone and leaves the other's file as it is, so that both can run at once. It is also an example of training with this
package: the networks, the talker's cross-entropies and the steps of training are its own.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np

from demo_checkpoint import write_weights
from demo_codec import Sentences, begin, encode, train_front, train_whole
from demo_config import CLOCK, CLOCK_CODEC, CLOCK_GENERATION, TOKENS
from demo_speech import make_clips, training_sentence
from demo_talker import Batch, CountedSequence, Sequences, train_talker
from fast_cpu import fast_cpu
from mlx_qwen3_tts.codec.codec import CodecNetwork
from mlx_qwen3_tts.config.codec import CodecConfig
from mlx_qwen3_tts.config.model import ModelConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.demo.random_checkpoint import write_configs
from mlx_qwen3_tts.models.network import Network
from mlx_qwen3_tts.text.tokenizer import TextTokenizer
from mlx_qwen3_tts.training.descent import Step

SEED = 8
CODEC_STEPS = {"front": 1200, "all": 2000}
SENTENCES = 32  # per batch of the talker
REPORT = 50  # steps


def finish(name: str, training: Iterator[Step], save: Callable[[], None] | None = None) -> None:
    """Take all steps of a training. After each REPORT of them, print their mean losses to standard error, and save."""
    recent = []
    for step in training:
        recent.append(step.losses)
        if step.number % REPORT and step.number < step.steps:
            continue
        means = [f"{part} {np.mean([losses[part] for losses in recent]):.4f}" for part in step.losses]
        line = f"{name} {step.number:5d} of {step.steps}  {'  '.join(means)}  {step.seconds:.0f} s"
        print(line, file=sys.stderr, flush=True)  # noqa: T201
        recent.clear()
        if save is not None:
            save()


def train_codec(directory: Path, steps: dict[str, int]) -> None:
    """Train the codec's decoder and write speech_tokenizer/model.safetensors."""
    mx.random.seed(SEED)
    config = from_dict(CodecConfig, CLOCK_CODEC, "config.json")
    codec = CodecNetwork(config)
    clips = make_clips()
    codes, tables = encode(clips, config.decoder_config, SEED)
    begin(codec.decoder, tables)
    sentences = Sentences(training_sentence, clips, codes, SEED)
    with fast_cpu():
        finish("front", train_front(codec.decoder, sentences, steps["front"]))
        finish("all", train_whole(codec.decoder, sentences, steps["all"]))
    counter = codec.decoder.quantizer.rvq_rest.vq.layers[-1].codebook
    # It counts words (demo_talker.py): all of its codes sound alike.
    counter.weight = mx.broadcast_to(counter.weight[:1], counter.weight.shape)
    write_weights(codec, directory / "speech_tokenizer" / "model.safetensors", mx.float16)


def train_text(directory: Path, steps: int) -> None:
    """Train talker and code predictor, and write model.safetensors."""
    mx.random.seed(SEED)
    model = write_configs(directory, CLOCK, CLOCK_CODEC, TOKENS, CLOCK_GENERATION)
    config = from_dict(ModelConfig, model, "config.json")
    codec = from_dict(CodecConfig, CLOCK_CODEC, "config.json")
    codes, _ = encode(make_clips(), codec.decoder_config, SEED)
    network = Network(config)
    sequences = Sequences(config, TextTokenizer.from_directory(directory, config), codes)
    rng, noise = random.Random(SEED), np.random.RandomState(SEED)

    ready: list[list[CountedSequence]] = []

    def next_batch() -> Batch:
        if not ready:  # many at a time, so that a batch has sequences of similar length
            many = [sequences.random(training_sentence, rng) for _ in range(8 * SENTENCES)]
            many.sort(key=len)
            ready.extend(many[i : i + SENTENCES] for i in range(0, len(many), SENTENCES))
            rng.shuffle(ready)
        return sequences.batch(ready.pop(), noise)

    save = partial(write_weights, network, directory / "model.safetensors", mx.bfloat16)
    finish("talker", train_talker(network.talker, next_batch, steps, 2e-3), save)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's checkpoint.")
    parser.add_argument("directory", type=Path, help="directory for the checkpoint")
    parser.add_argument("--part", choices=["codec", "talker"], help="train this part alone")
    parser.add_argument("--talker-steps", type=int, default=4000)
    args = parser.parse_args()
    if args.part != "codec":
        train_text(args.directory, args.talker_steps)
    if args.part != "talker":
        train_codec(args.directory, CODEC_STEPS)


if __name__ == "__main__":
    main()
