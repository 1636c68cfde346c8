"""Evaluate a demo checkpoint: `python tools/evaluate_demo.py [DIRECTORY]` prints the table of the model card.

    random times and digits ─ Qwen3TTS ─ audio ─ pocketsphinx ─ the same words?
                            └ flite ───── audio ─┘

It needs pocketsphinx and the program flite. A row counts the utterances of which exactly the right words are heard.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator

import numpy as np

from demo_ears import random_utterance, recognizer, unseen_utterance
from demo_speech import FLITE_RATE, RATE, VOICES, Utterance, flite, make_clips
from mlx_qwen3_tts import Qwen3TTS, Sampling, SynthesisResult

GREEDY = Sampling(do_sample=False, subtalker_dosample=False)

Spoken = tuple[Utterance, str, SynthesisResult]  # utterance, voice, result

hear = recognizer()


def cases(
    make: Callable[[random.Random], Utterance], count: int, seed: int
) -> Iterator[tuple[int, Utterance, str, bool]]:
    """Yield utterances, alternating voices and text layouts: seed, utterance, voice, non_streaming_mode."""
    rng = random.Random(seed)
    for i in range(count):
        yield i, make(rng), VOICES[i % 2], i // 2 % 2 == 0


def emit(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def row(what: str, right: int, count: int) -> None:
    emit(f"| {what} | {right} of {count} ({100 * right / count:.1f}%) |")


def count_heard(
    tts: Qwen3TTS, what: str, make: Callable[[random.Random], Utterance], count: int, seed: int, sampling: Sampling
) -> list[Spoken]:
    """Print a row of the table; return the results."""
    right, spoken = 0, []
    for i, utterance, voice, text_first in cases(make, count, seed):
        result = tts.synthesize(utterance.text, voice=voice, seed=i, sampling=sampling, non_streaming_mode=text_first)
        heard = hear(result.audio, tts.sample_rate)
        right += heard == utterance.words
        if heard != utterance.words:
            layout = "whole" if text_first else "interleaved"
            sys.stderr.write(f"{what}, {voice}, {layout}: {' '.join(utterance.words)!r} heard as {' '.join(heard)!r}\n")
        spoken.append((utterance, voice, result))
    row(what, right, count)
    return spoken


def check_lengths(spoken: list[Spoken]) -> None:
    """Print how many ended by themselves, and their lengths relative to flite's clips and to its whole sentences."""
    clips = make_clips()
    row("ends by itself", sum(result.finish_reason == "stop" for *_, result in spoken), len(spoken))
    taught, whole = [], []
    for utterance, voice, result in spoken:
        taught.append(len(result.codes) / sum(len(clips[voice, key]) for key in utterance.keys))
        flites = speech_seconds(flite(utterance.text, voice)[0], FLITE_RATE)
        whole.append(speech_seconds(result.audio, result.sample_rate) / flites)
    for what, ratios in (("the clips learnt from", taught), ("flite's own whole sentence", whole)):
        near = sum(abs(ratio - 1) <= 0.15 for ratio in ratios)
        row(f"length within 15% of {what} ({min(ratios):.2f} to {max(ratios):.2f} times)", near, len(ratios))


def speech_seconds(audio: np.ndarray, rate: int) -> float:
    """Return the length of the speech in `audio` without the silence at both ends."""
    size = rate // 100
    loudness = np.square(audio[: len(audio) // size * size]).reshape(-1, size).mean(axis=1) ** 0.5
    (heard,) = np.nonzero(loudness > loudness.max() / 50)
    return (heard[-1] + 1 - heard[0]) * size / rate


def check_streams(tts: Qwen3TTS, count: int, seed: int) -> None:
    """Compare streamed and one-shot samples, and those of a text in pieces."""
    equal = 0
    for i, utterance, voice, text_first in cases(random_utterance, count, seed):
        options = {"voice": voice, "seed": i, "non_streaming_mode": text_first}
        whole = tts.synthesize(utterance.text, **options).audio
        chunks = [chunk.audio for chunk in tts.stream(utterance.text, **options)]
        equal += np.array_equal(np.concatenate(chunks), whole)
    row("streamed and one-shot samples are equal", equal, count)


def count_flite(count: int, seed: int) -> None:
    """Evaluate flite itself with the same recognizer: whole sentences, and the clips that the demo learns from."""
    clips, whole, cut = make_clips(), 0, 0
    for _, utterance, voice, _ in cases(random_utterance, count, seed):
        whole += hear(flite(utterance.text, voice)[0], FLITE_RATE) == utterance.words
        audio = np.concatenate([clips[voice, key] for key in utterance.keys]).reshape(-1)
        cut += hear(audio, RATE) == utterance.words
    row("flite, whole sentences", whole, count)
    row("flite, the clips learnt from", cut, count)


def main() -> None:
    parser = argparse.ArgumentParser(description="Listen to a demo checkpoint.")
    parser.add_argument("model", nargs="?", default="demo", help="checkpoint directory (default: the built-in one)")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="utterances in a row")
    parser.add_argument("--seed", type=int, default=80, metavar="N", help="of the utterances (default: %(default)s)")
    parser.add_argument("--only-greedy", action="store_true", help="the first row alone: for converted checkpoints")
    args = parser.parse_args()
    tts = Qwen3TTS.from_pretrained(args.model)
    emit("| what | result |\n|---|---|")
    spoken = count_heard(tts, "greedy", random_utterance, args.count, args.seed, GREEDY)
    if args.only_greedy:
        return
    spoken += count_heard(tts, "default sampling", random_utterance, args.count, args.seed, Sampling())
    spoken += count_heard(tts, "never seen in training, greedy", unseen_utterance, args.count, args.seed, GREEDY)
    check_lengths(spoken)
    check_streams(tts, 20, args.seed)
    count_flite(args.count, args.seed)


if __name__ == "__main__":
    main()
