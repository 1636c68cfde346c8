"""The server under load: the time to the first audio for some numbers of clients, and many clients for a while.

    python -m benchmarks.server                         # first audio at 1, 4 and 8 clients, on the demo
    python -m benchmarks.server --load 60               # 32 clients for a minute: errors, equality, memory
    python -m benchmarks.server --url http://host:port  # another server that takes OpenAI's requests

The server runs in a process of its own.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

SPEECH = "/v1/audio/speech"
TEXT = "It is twenty past seven."
CLIENTS = (1, 4, 8)
REQUESTS = 24  # for each number of clients
LOAD_CLIENTS = 32
SEEDS = 8


@contextmanager
def server(model: str) -> Iterator[tuple[str, int]]:
    """Run a server; yield its address and the id of its process."""
    command = [sys.executable, "-m", "mlx_qwen3_tts", "serve", "--model", model, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1], process.pid
    finally:
        process.terminate()
        process.wait(30)


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) / 1024


async def first_audio(client: httpx.AsyncClient, body: dict) -> tuple[float, float, float]:
    """Return the seconds to the first audio and to the last, and the seconds of audio."""
    began = time.perf_counter()
    first = size = 0
    async with client.stream("POST", SPEECH, json=body) as response:
        response.raise_for_status()
        async for part in response.aiter_raw():
            first = first or time.perf_counter() - began
            size += len(part)
    return first, time.perf_counter() - began, size / 48_000


async def measure(url: str, body: dict, clients: int) -> str:
    """Return a row of the table: so many clients, each of which asks again as soon as it is answered."""
    numbers = iter(range(REQUESTS))
    found: list[tuple[float, float, float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:

        async def ask() -> None:
            for number in numbers:
                found.append(await first_audio(client, {**body, "seed": number}))

        await first_audio(client, body)
        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(clients)))
        seconds = time.perf_counter() - began
    firsts = sorted(first for first, _, _ in found)
    p95 = firsts[round(0.95 * (len(firsts) - 1))]
    speed = sum(audio for _, _, audio in found) / seconds
    return f"| {clients} | {1000 * statistics.median(firsts):.0f} ms | {1000 * p95:.0f} ms | {speed:.1f} x |"


async def load(url: str, pid: int, body: dict, seconds: float) -> None:
    """Let many clients ask for a while; print what became of it."""
    statuses: Counter[int] = Counter()
    wrong = 0
    memory: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        expected = [(await client.post(SPEECH, json={**body, "seed": seed})).content for seed in range(SEEDS)]
        until = time.monotonic() + seconds

        async def ask(number: int) -> None:
            nonlocal wrong
            chance = random.Random(number)
            while time.monotonic() < until:
                seed = chance.randrange(SEEDS)
                response = await client.post(SPEECH, json={**body, "seed": seed})
                statuses[response.status_code] += 1
                if response.status_code == 200:
                    wrong += response.content != expected[seed]
                else:
                    await asyncio.sleep(0.2)

        async def watch() -> None:
            while time.monotonic() < until:
                await asyncio.sleep(seconds / 20)
                memory.append(resident(pid))

        await asyncio.gather(watch(), *(ask(number) for number in range(LOAD_CLIENTS)))
    half = len(memory) // 2
    print(f"{LOAD_CLIENTS} clients, {seconds:g} s: {dict(statuses)}, {wrong} differ from the same request alone")
    print("resident memory in MB:", " ".join(f"{value:.0f}" for value in memory))
    print(f"highest in the second half / in the first: {max(memory[half:]) / max(memory[:half]):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--load", type=float, metavar="SECONDS")
    parser.add_argument("--body", type=json.loads, default={}, help="further fields of the requests, as JSON")
    args = parser.parse_args()
    body = {"model": args.model, "input": TEXT, "response_format": "pcm", **args.body}
    if args.url:
        table(args.url, body)
        return
    with server(args.model) as (url, pid):
        if args.load:
            asyncio.run(load(url, pid, body, args.load))
        else:
            table(url, body)


def table(url: str, body: dict) -> None:
    """Print the time to the first audio for some numbers of clients."""
    print("| clients | first audio p50 | p95 | audio seconds a second |\n|---|---|---|---|")
    for clients in CLIENTS:
        print(asyncio.run(measure(url, body, clients)), flush=True)


if __name__ == "__main__":
    main()
