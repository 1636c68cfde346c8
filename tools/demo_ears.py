"""An independent recognizer for the demo: pocketsphinx with a grammar of times and digits.

    audio ─ 16 kHz ─ 0.25 s of silence at both ends ─ recognizer ─ words

The acoustic model is the English one in the pocketsphinx wheel; it is not adapted to the demo's voices. The grammar
allows any time of day, or any string of digits.
"""

import random
from collections.abc import Callable

import numpy as np
import soxr
from pocketsphinx import Decoder

from demo_speech import Utterance, random_digits, random_time

RATE = 16000
GRAMMAR = """#JSGF V1.0;
grammar clock;
<unit> = one | two | three | four | five | six | seven | eight | nine;
<digit> = zero | <unit>;
<teen> = ten | eleven | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen;
<hour> = <unit> | ten | eleven | twelve;
<minute> = o'clock | zero <unit> | <teen> | (twenty | thirty | forty | fifty) [<unit>];
<time> = [hello] it is <hour> <minute>;
public <utterance> = <time> | <digit>+;
"""


def recognizer(grammar: str = GRAMMAR) -> Callable[[np.ndarray, int], tuple[str, ...]]:
    """Return a function from audio, float32 [samples] at any rate, to the recognized words."""
    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    decoder.add_jsgf_string("clock", grammar)
    decoder.activate_search("clock")
    silence = np.zeros(RATE // 4, np.float32)

    def hear(audio: np.ndarray, rate: int) -> tuple[str, ...]:
        audio = np.concatenate([silence, soxr.resample(audio, rate, RATE), silence])
        decoder.start_utt()
        decoder.process_raw((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        heard = decoder.hyp()
        return tuple(heard.hypstr.split()) if heard else ()

    return hear


def random_utterance(rng: random.Random) -> Utterance:
    """Return a time, or a string of 2 to 8 digits."""
    return random_time(rng) if rng.random() < 0.5 else random_digits(rng)


def unseen_utterance(rng: random.Random) -> Utterance:
    """Return an utterance that training never uses: one of the held-out times, or a string of 8 digits."""
    return random_time(rng, held_out=True) if rng.random() < 0.5 else random_digits(rng, 8, 8)
