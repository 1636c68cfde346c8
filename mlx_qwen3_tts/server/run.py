"""Run the application on uvicorn, from the first request to a clean end.

bind ─ listen (503 while the first model is loaded) ─ load, warm up ─ ready ─ ... ─ SIGTERM or Ctrl-C
    ─ no new requests ─ those under way end, or are cut after GRACE seconds ─ unload
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn

from ..errors import RequestError
from .app import build_app
from .connection import Connection
from .service import Service

GRACE = 10.0  # seconds that requests under way have at the end
HEADER_LIMIT = 64 * 1024  # bytes of a request line and its headers
CONNECTIONS = 2048  # connections that may wait to be accepted

Beside = contextlib.AbstractAsyncContextManager[object]


class _Server(uvicorn.Server):
    """A server that leaves the signals to us: uvicorn's own handlers raise them again at the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def listen(host: str, port: int, argument: str = "port") -> socket.socket:
    """Return a socket that is bound to an address. Raises RequestError, which names the argument, if it cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"cannot listen at {host}:{port}: {reason}; choose another {argument}", argument) from None
    return bound


def run_server(service: Service, bound: socket.socket, ready: Callable[[], None], beside: Beside | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises what the loading of the first model raises.

    ready: called once the first model is loaded and warm. beside: another server, which serves inside an `async with`.
    """

    async def run() -> None:
        stop = asyncio.Event()
        with _signals(stop):
            async with beside or contextlib.nullcontext():
                await serve_until(stop, service, bound, ready)

    asyncio.run(run())


async def serve_until(
    stop: asyncio.Event, service: Service, bound: socket.socket, ready: Callable[[], None], grace: float = GRACE
) -> None:
    """Serve until `stop` is set. Raises as `run_server`. grace: seconds that requests under way have at the end."""
    server = _Server(_config(service))
    serving = asyncio.ensure_future(server.serve([bound]))
    loading = asyncio.ensure_future(service.models.load_default())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([serving, loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            ready()
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        await _drain(service, grace)
    finally:
        server.should_exit = True
        await serving
        for task in (loading, stopping):
            task.cancel()
        await service.models.unload_all()
        service.workers.close()


def _config(service: Service) -> uvicorn.Config:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the endpoints log by themselves
    return uvicorn.Config(
        build_app(service),
        http=Connection,
        ws="websockets-sansio",
        ws_max_size=service.settings.max_body,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_LIMIT,
        timeout_graceful_shutdown=1,
    )


async def _drain(service: Service, grace: float) -> None:
    """Let the requests under way end, and cut them after some seconds."""
    service.stopping = True
    if service.active:
        service.log(f"{service.active} requests under way: they have {grace:g} s")
    deadline = asyncio.get_running_loop().time() + grace
    while service.active and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
    service.ending.set()
    await asyncio.sleep(0.05)


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Generator[None, None, None]:
    """Set an event at SIGTERM and SIGINT; a second signal ends the process as usual."""
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in previous.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def heed() -> None:
        restore()
        stop.set()

    for number in previous:
        loop.add_signal_handler(number, heed)
    try:
        yield
    finally:
        restore()
