"""A real server in this process: uvicorn on a free port, with the demo models."""

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import av
import httpx
import numpy as np

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.generation.scheduler import Scheduler
from mlx_qwen3_tts.server.models import LoadOptions, Models
from mlx_qwen3_tts.server.run import listen, serve_until
from mlx_qwen3_tts.server.service import Service
from mlx_qwen3_tts.server.settings import Settings
from mlx_qwen3_tts.server.workers import Workers

TEXT = "It is ten."
SPEECH = "/v1/audio/speech"
MODELS = ("demo", "demo-base", "demo-random")
# Codes that were generated before are preferred, so that this speech does not end by itself.
LONG = {
    "model": "demo-random", "input": "On and on.", "do_sample": False, "repetition_penalty": 0.2, "stop_runaway": False,
    "response_format": "pcm", "max_frames": 1500, "seed": 1,
}  # fmt: skip


class LiveServer:
    """A running server, and what a test looks at inside of it."""

    def __init__(self, service: Service, port: int, loop: asyncio.AbstractEventLoop, log: list[str]) -> None:
        self.service = service
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.socket_url = f"ws://127.0.0.1:{port}{SPEECH}/stream"
        self.loop = loop
        self.log = log
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def speak(self, client: httpx.Client | None = None, **fields) -> httpx.Response:
        """Post a request of speech."""
        return (client or self.client).post(SPEECH, json={"input": TEXT, **fields})

    def model(self, name: str = "demo") -> Qwen3TTS:
        """Return a model of the server, which loads it."""

        async def use() -> Qwen3TTS:
            async with self.service.models.use(self.service.models.named(name)) as tts:
                return tts

        return asyncio.run_coroutine_threadsafe(use(), self.loop).result()

    def requests_under_way(self) -> int:
        """Return the number of requests that the schedulers of all models serve."""
        loaded = [served.tts for served in self.service.models.all if served.tts is not None]
        return sum(tts.engine.worker.run(count_of, tts.scheduler) for tts in loaded)

    def logged(self) -> str:
        """Return the line of the last request, which is written after the response has ended."""
        assert eventually(lambda: bool(self.log) and not self.log[-1].startswith(("loaded ", "unloaded ")))
        return self.log[-1]

    def is_idle(self) -> bool:
        """Return whether nothing of any request is left."""
        service = self.service
        threads = [thread for thread in threading.enumerate() if thread.name == "text"]
        is_free = not (service.active or service.gate.inside or service.gate.waiting or threads)
        return is_free and self.requests_under_way() == 0 and not any(m.users for m in service.models.all)

    def wait_until_idle(self) -> None:
        """Wait until nothing of any request is left. Raises AssertionError if that takes long."""
        assert eventually(self.is_idle), "something of a request is left"


def count_of(scheduler: Scheduler) -> int:
    """Return the number of requests of a scheduler."""
    return scheduler.count


def eventually(condition: Callable[[], bool], seconds: float = 10, pause: float = 0.01) -> bool:
    """Wait until something is so; return whether it is. pause: seconds between two looks."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


@contextmanager
def running(
    models: tuple[str, ...] = MODELS, grace: float = 0.2, wait: bool = True, **settings
) -> Iterator[LiveServer]:
    """Run a server with these settings."""
    log: list[str] = []
    workers = Workers()
    options = Settings(**settings)
    bound = listen("127.0.0.1", 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**15)  # so that slow readers are noticed soon
    service = Service(options, Models(models, LoadOptions(), workers, options.memory, log.append), workers, log.append)
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    begun, ready = threading.Event(), threading.Event()

    async def serve() -> None:
        stop = asyncio.Event()
        started.append((asyncio.get_running_loop(), stop))
        begun.set()
        await serve_until(stop, service, bound, ready.set, grace)

    thread = threading.Thread(target=asyncio.run, args=[serve()], name="test-server")
    thread.start()
    try:
        assert begun.wait(10)
        assert not wait or ready.wait(60)
        loop, stop = started[0]
        server = LiveServer(service, bound.getsockname()[1], loop, log)
        try:
            yield server
        finally:
            server.client.close()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()


def exact(audio: np.ndarray) -> bytes:
    """Return decoded audio of a lossless format as 16-bit samples again."""
    return np.rint(audio * 32768).astype("<i2").tobytes()


def decoded(data: bytes, response_format: str) -> tuple[np.ndarray, int]:
    """Return the samples of a file, or of the beginning of one, and its sample rate."""
    if response_format == "pcm":
        return np.frombuffer(data[: len(data) // 2 * 2], "<i2") / 32768, 24000
    samples = []
    with av.open(io.BytesIO(data)) as container:
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler("flt", "mono")
        try:
            for frame in container.decode(audio=0):
                samples += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        except (av.error.EOFError, av.error.InvalidDataError):
            pass  # the last packet is cut
    return np.concatenate(samples) if samples else np.zeros(0, np.float32), rate
