"""A recognizer for `book --check`: prints the times and digits that pocketsphinx hears in a WAV file.

python tests/support/ear.py FILE.wav
"""

import sys
from pathlib import Path

import soundfile

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from demo_ears import recognizer


def main() -> None:
    audio, rate = soundfile.read(sys.argv[-1], dtype="float32")
    print(" ".join(recognizer()(audio, rate)))


if __name__ == "__main__":
    main()
