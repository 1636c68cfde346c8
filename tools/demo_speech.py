"""The demo's training data: flite's speech, cut into words of whole frames, and sentences made of these words.

    words ─ flite, each inside a short carrier sentence ─ cut at its phones ─ 24 kHz ─ Clip of k frames of 80 ms
    random time or digits ─ text ("It is eleven twenty-six.") and clips ─ Utterance: text, words, clips, frames

flite (Debian package `flite`) provides the voices slt and rms, made from the CMU Arctic recordings. A word is cut from
the middle of a sentence, or from its end if the word is used at the end, so that it has the pace and pitch of running
speech. Among a few tempos, the one that brings the word closest to whole frames is used; silence fills the rest.
"""

import random
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr

from mlx_qwen3_tts.demo.clock import NUMBERS, TENS, number, time_of_day

VOICES = ("slt", "rms")
RATE, FRAME = 24000, 1920
FLITE_RATE, FLITE_FRAME = 16000, 1280
DIGITS, TEENS = NUMBERS[:10], NUMBERS[10:]
PAUSE = "pause"
ONE_WORD = [0, *range(10, 20), 20, 30, 40, 50]  # minutes whose word is rare among all sixty
TEMPOS = [round(0.90 + 0.02 * i, 2) for i in range(9)]  # flite's duration_stretch
FADE = 120  # samples, to avoid clicks between words

# The words before and after the one that is cut out, by voice. They and the exceptions are chosen by how well the
# recognizer understands the result.
CARRIERS = {"slt": ("six", "six"), "rms": ("nine", "nine")}
EXCEPTIONS = {
    ("slt", "two", "inner"): ("six", "one"),
    ("slt", "three", "inner"): ("four", "four"),
    ("rms", "two", "inner"): ("two", "two"),
    ("rms", "eight", "inner"): ("eight", "eight"),
}

# Frames to add to a word or remove, so that a sentence is as long as flite's own (evaluate_demo.py).
FRAMES_MORE = {
    ("slt", "it is", "inner"): -1,
    ("slt", "one", "inner"): 1,
    ("slt", "three", "inner"): -1,
    ("slt", "four", "inner"): -1,
    ("rms", "hello", "last"): 1,
    ("rms", "four", "inner"): 1,
    ("rms", "five", "last"): -1,
    ("rms", "fifteen", "last"): 1,
}

Key = tuple[str, str]  # a word, or words that always stand together, and "inner" or "last" in its phrase


@dataclass(frozen=True)
class Utterance:
    """A sentence of the closed vocabulary."""

    text: str  # as a user writes it
    words: tuple[str, ...]  # as the recognizer writes it
    keys: tuple[Key, ...]  # its clips, in order


def flite(text: str, voice: str, tempo: float = 1.0) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Speak a text: float32 [samples] at 16 kHz, and its phones with start and end in seconds, pauses left out."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "speech.wav"
        command = ["flite", "-voice", voice, "-psdur", "--setf", f"duration_stretch={tempo}", "-t", text, "-o", path]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        audio, _ = soundfile.read(path, dtype="float32")
    phones, start = [], 0.0
    for item in output.split():
        name, end = item.split(":")
        phones.append((name, start, float(end)))
        start = float(end)
    return audio, [phone for phone in phones if phone[0] != "pau"]


@cache
def phone_count(word: str) -> int:
    """Return the number of phones that flite uses for a word."""
    return len(flite(word, VOICES[0])[1])


def carrier(key: Key, voice: str) -> tuple[list[str], int, int]:
    """Return a sentence to cut `key` out of, and the range of words to take: first, end."""
    word, place = key
    before, after = EXCEPTIONS.get((voice, *key), CARRIERS[voice])
    if word == "it is":
        return ["it", "is", "two"], 0, 2
    if word == "hello":
        return ["hello"], 0, 1
    if word in DIGITS:
        return ([before, word, after], 1, 2) if place == "inner" else (["one", before, word], 2, 3)
    if place == "last":
        return ["it", "is", before, word], 3, 4
    return (["it", "is", before, word, after], 3, 4) if word in TENS else (["it", "is", word, "twenty", "two"], 2, 3)


def cut(key: Key, voice: str, tempo: float) -> np.ndarray:
    """Return the samples of `key` at one tempo, 16 kHz."""
    words, first, end = carrier(key, voice)
    audio, phones = flite(" ".join(words), voice, tempo)
    counts = [phone_count(word) for word in words]
    if sum(counts) != len(phones):
        raise ValueError(f"flite says {' '.join(words)!r} with other phones than its words")
    begin, last = phones[sum(counts[:first])], phones[sum(counts[:end]) - 1]
    return audio[int(begin[1] * FLITE_RATE) : int(last[2] * FLITE_RATE)]


def make_clip(key: Key, voice: str) -> np.ndarray:
    """Return `key` in whole frames: float32 [frames, 1920] at 24 kHz."""
    cuts = [(cut(key, voice, tempo), abs(tempo - 1)) for tempo in TEMPOS]
    audio, _ = min(cuts, key=lambda one: -len(one[0]) % FLITE_FRAME + 6000 * one[1])
    more = FRAMES_MORE.get((voice, *key), 0)
    if more:
        frames = -(-len(audio) // FLITE_FRAME)
        audio = cut_to(key, voice, (frames + more) * FLITE_FRAME)
    audio = soxr.resample(audio, FLITE_RATE, RATE)
    ramp = np.linspace(0, 1, FADE, dtype=np.float32)
    audio[:FADE] *= ramp
    audio[-FADE:] *= ramp[::-1]
    return np.pad(audio, (0, -len(audio) % FRAME)).reshape(-1, FRAME)


def cut_to(key: Key, voice: str, length: int) -> np.ndarray:
    """Return `key` at the slowest tempo that gives at most `length` samples."""
    tempos = [round(1.4 - 0.02 * i, 2) for i in range(41)]
    return next(audio for audio in (cut(key, voice, tempo) for tempo in tempos) if len(audio) <= length)


def inventory() -> list[Key]:
    """Return the keys of all clips that a sentence may need."""
    keys = [(word, place) for word in DIGITS + TENS for place in ("inner", "last")]
    keys += [(word, "inner") for word in TEENS[:3]] + [(word, "last") for word in TEENS]
    return [*keys, ("it is", "inner"), ("o'clock", "last"), ("hello", "last")]


def make_clips() -> dict[tuple[str, Key], np.ndarray]:
    """Return every clip in every voice, [frames, 1920]; PAUSE is a frame of silence."""
    clips = {(voice, key): make_clip(key, voice) for voice in VOICES for key in inventory()}
    silence = np.zeros((1, FRAME), np.float32)
    return clips | {(voice, (PAUSE, "last")): silence for voice in VOICES}


# --- sentences ---


def words_of(text: str) -> list[str]:
    """Return the words of a text as the recognizer writes them."""
    return text.lower().replace(".", " ").replace("-", " ").split()


def hyphenate(words: list[str]) -> str:
    """Join words to a text: twenty-six, but twenty ten."""
    text = words[0]
    for before, word in pairwise(words):
        text += ("-" if before in TENS and word in DIGITS[1:] else " ") + word
    return text


def placed(words: list[str]) -> tuple[Key, ...]:
    """Return the clips of a phrase: "last" for the last word and for words without an "inner" clip, else "inner"."""
    known = set(inventory())
    inner = [(word, "inner") if (word, "inner") in known else (word, "last") for word in words[:-1]]
    return (*inner, (words[-1], "last"))


def time_utterance(hour: int, minute: int, hello: bool) -> Utterance:
    """ "Hello. It is eleven twenty-six." """
    text = ("Hello. " if hello else "") + time_of_day(hour, minute)
    words = words_of(text)
    greeting = [("hello", "last"), (PAUSE, "last"), (PAUSE, "last")] if hello else []
    said = placed(words[words.index("is") + 1 :])
    return Utterance(text, tuple(words), (*greeting, ("it is", "inner"), *said, (PAUSE, "last")))


def number_utterance(words: list[str]) -> Utterance:
    """Return digits or other numbers in a row: "two zero eight four"."""
    return Utterance(hyphenate(words), tuple(words), (*placed(words), (PAUSE, "last")))


def random_time(rng: random.Random, held_out: bool | None = None, minutes: Sequence[int] = range(60)) -> Utterance:
    """Return a time of day. held_out: choose among the times that training never uses (True) or the others (False)."""
    while True:
        hour, minute = rng.randint(1, 12), rng.choice(minutes)
        if held_out is None or is_held_out(hour, minute) == held_out:
            return time_utterance(hour, minute, rng.random() < 0.5)


def is_held_out(hour: int, minute: int) -> bool:
    """Return True for a tenth of the times, spread over all hours and minutes."""
    return (hour * 7 + minute * 3) % 10 == 0


def random_digits(rng: random.Random, least: int = 2, most: int = 8) -> Utterance:
    """Return a string of digits."""
    return number_utterance(rng.choices(DIGITS, k=rng.randint(least, most)))


def random_numbers(rng: random.Random) -> Utterance:
    """Return up to ten numbers of any size in a row, without 8 digits in a row; lengths vary more than elsewhere."""
    count, digits = rng.randint(1, 10), rng.random() < 0.5
    words = []
    for _ in range(count):
        words += [rng.choice(DIGITS)] if digits and rng.random() < 0.8 else words_of(number(rng.randrange(60)))
    runs = "".join("d" if word in DIGITS else " " for word in words)
    return number_utterance(words) if "d" * 8 not in runs else random_numbers(rng)


def random_repetition(rng: random.Random) -> Utterance:
    """Return two to seven digits with at most two distinct ones."""
    return number_utterance(rng.choices(rng.sample(DIGITS, rng.randint(1, 2)), k=rng.randint(2, 7)))


def written_otherwise(utterance: Utterance, rng: random.Random) -> Utterance:
    """Return the same words with other capitalization and punctuation."""
    text = utterance.text
    if rng.random() < 0.5:
        text = text.removesuffix(".") if text.endswith(".") else text + "."
    if rng.random() < 0.2:
        text = text.lower()
    elif rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.2:
        text = text.replace("ello. I", "ello, i")
    return Utterance(text, utterance.words, utterance.keys)


def training_sentence(rng: random.Random) -> Utterance:
    """Return a training sentence, without held-out times and without 8 digits in a row."""
    kind = rng.random()
    if kind < 0.25:
        utterance = random_time(rng, held_out=False)
    elif kind < 0.55:
        utterance = random_time(rng, held_out=False, minutes=ONE_WORD)
    elif kind < 0.75:
        utterance = random_digits(rng, most=7)
    elif kind < 0.82:
        utterance = random_repetition(rng)
    else:
        utterance = random_numbers(rng)
    return written_otherwise(utterance, rng) if rng.random() < 0.3 else utterance
