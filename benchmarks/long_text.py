"""Measure `say - -o FILE` over a long text: time per paragraph and memory, from the first paragraph to the last.

    python -m benchmarks.long_text [--words 30000] [--model demo] [--every 20]

random times and numbers, paragraphs of some 60 words ─ pipe ─ say (a process of its own, which times each paragraph)
                                                                 └─ resident memory, every 20 seconds, from outside

The times are CPU times, so that a busy machine affects them less. The last line of output is JSON.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from mlx_qwen3_tts import cli
from mlx_qwen3_tts.cli import say
from mlx_qwen3_tts.demo.clock import NUMBERS, time_of_day

ROOT = Path(__file__).parents[1]
PARAGRAPH = 60  # words


def sentence(rng: random.Random) -> str:
    """Return a time of day, or some digits."""
    if rng.random() < 0.5:
        return time_of_day(rng.randrange(24), rng.randrange(60))
    return " ".join(rng.choices(NUMBERS[:10], k=rng.randint(2, 8))).capitalize() + "."


def paragraphs(words: int, seed: int) -> list[str]:
    """Return paragraphs of some PARAGRAPH words, `words` words in all."""
    rng = random.Random(seed)
    texts = []
    while words > 0:
        sentences = []
        count = 0
        while count < min(PARAGRAPH, words):
            sentences.append(sentence(rng))
            count += len(sentences[-1].split())
        texts.append(" ".join(sentences))
        words -= count
    return texts


def speak(model: str, output: str, log: str) -> int:
    """Run `say` in this process, and write a line for each paragraph: its CPU seconds, its wall seconds, its frames."""
    original = say.speak_text

    with open(log, "w", buffering=1) as file:

        def timed(tts: object, request: object, target: say.SpeechOutput, bar: object) -> None:
            cpu = time.process_time()
            wall = time.perf_counter()
            frames = target.progress.frames
            original(tts, request, target, bar)
            row = [time.process_time() - cpu, time.perf_counter() - wall, target.progress.frames - frames]
            file.write(json.dumps(row) + "\n")

        say.speak_text = timed
        return cli.main(["say", "-", "--model", model, "--seed", "1", "-o", output])


def resident(pid: int) -> float | None:
    """Return the resident memory of a process in MB, or None if it has ended."""
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
    return int(found.stdout) / 1024 if found.stdout.strip() else None


def measure(words: int, model: str, every: float) -> dict[str, object]:
    """Speak a text of so many words; return the times and the memory of its first, middle and last tenth."""
    texts = paragraphs(words, seed=0)
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        source, log, output = (Path(directory) / name for name in ("text.txt", "log", "out.wav"))
        source.write_text("\n\n".join(texts) + "\n")
        command = [sys.executable, "-m", "benchmarks.long_text", "--model", model, "--speak", str(output), str(log)]
        cat = subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE)
        process = subprocess.Popen(command, stdin=cat.stdout, cwd=ROOT)
        while True:
            try:
                process.wait(every)
                break
            except subprocess.TimeoutExpired:
                megabytes = resident(process.pid)
                if megabytes is not None and log.exists() and log.stat().st_size:  # it speaks
                    memory.append(megabytes)
                    done = len(log.read_text().splitlines())
                    print(f"paragraph {done} of {len(texts)}, {megabytes:.0f} MB", file=sys.stderr, flush=True)
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        size = output.stat().st_size if output.exists() else 0
    return {
        "exit_code": process.returncode, "words": sum(len(text.split()) for text in texts), "paragraphs": len(rows),
        "audio_minutes": round(sum(row[2] for row in rows) * 0.08 / 60, 1), "file_mb": round(size / 1e6, 1),
        "cpu_ms_per_frame": tenths([1000 * row[0] / row[2] for row in rows]),
        "cpu_seconds_per_paragraph": tenths([row[0] for row in rows]),
        "wall_seconds_per_paragraph": tenths([row[1] for row in rows]), "resident_mb": tenths(memory),
        "resident_mb_most": round(max(memory, default=0), 1),
    }  # fmt: skip


def tenths(values: list[float]) -> list[float]:
    """Return the medians of the first, the middle and the last tenth."""
    width = max(1, len(values) // 10)
    middle = (len(values) - width) // 2
    parts = (values[:width], values[middle : middle + width], values[-width:])
    return [round(median(part), 3) for part in parts if part]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--words", type=int, default=30000)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--every", type=float, default=20, help="seconds between two looks at the memory")
    parser.add_argument("--speak", nargs=2, metavar=("FILE", "LOG"), help="speak standard input in this process")
    args = parser.parse_args()
    if args.speak:
        return speak(args.model, *args.speak)
    report = measure(args.words, args.model, args.every)
    print(json.dumps(report))
    return report["exit_code"]


if __name__ == "__main__":
    sys.exit(main())
