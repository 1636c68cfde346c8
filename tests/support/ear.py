"""A recognizer for `book --check`: prints the times and digits that pocketsphinx hears in a WAV file.

PYTHONPATH=tools python tests/support/ear.py FILE.wav
"""

import sys

import soundfile

from demo_ears import recognizer


def main() -> None:
    audio, rate = soundfile.read(sys.argv[-1], dtype="float32")
    print(" ".join(recognizer()(audio, rate)))


if __name__ == "__main__":
    main()
