"""Connections over HTTP, with a limit to their number and an end to the wait for a request.

connected ─┬─ too many ─ 503, closed
           └─ or response sent ─ no whole header within HEADER_SECONDS ─► closed

uvicorn ends connections that are silent after a response, but waits without end for a first request, and for the rest
of a header: somebody without a key could use up the files that this process may open, of which macOS permits 256.
uvicorn's own limit refuses the next request of every connection as soon as there are too many; ours refuses the new
ones, and serves those that were first.
"""

import asyncio
import resource

import h11
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .problem import RETRY_SECONDS, Problem

HEADER_SECONDS = 30.0
REFUSED_SECONDS = 2.0  # time that a connection beyond the limit has for its request
MAX_CONNECTIONS = 1024
MAX_REFUSED = 32  # connections beyond the limit that get an answer; more are closed at once
OTHER_FILES = 64  # files that the process may have open in addition to its connections


def connection_limit() -> int:
    """Return how many connections are served: as many as the process may have files open, without some for others."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, files - MAX_REFUSED - OTHER_FILES))


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request of a connection beyond the limit."""
    headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
    message = "the server has too many connections: try again later"
    problem = Problem(503, message, code="too_many_connections", headers=headers)
    await JSONResponse(problem.body, problem.status, problem.headers)(scope, receive, send)


class Connection(H11Protocol):
    """uvicorn's protocol, which closes the connection of a client that sends no request, and refuses too many."""

    _deadline: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        excess = len(self.connections) - connection_limit()
        if excess > MAX_REFUSED:
            transport.abort()
            return
        if excess > 0:
            self._is_refused = True
            self.app = refuse
        self._wait()

    def _should_upgrade(self) -> bool:
        """Let a WebSocket beyond the limit be answered as a request."""
        return not self._is_refused and super()._should_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data. What is still no request does not prolong the wait."""
        super().data_received(data)
        is_answered = self.cycle is not None and self.cycle.response_complete
        if self.conn.their_state is h11.IDLE or is_answered:
            self._wait()
        else:
            self._stop_waiting()

    def _wait(self) -> None:
        if self._deadline is None:
            seconds = REFUSED_SECONDS if self._is_refused else HEADER_SECONDS
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
