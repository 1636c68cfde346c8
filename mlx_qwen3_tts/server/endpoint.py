"""What is the same for all endpoints: reading of bodies, errors as JSON, a line in the log, the counters.

ASGI ─ Endpoint ─ handler(Exchange) ─┬─ returns a Response, which is sent
                                     ├─ has sent a response by itself
                                     └─ raises ─ Problem ─ JSON
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from .problem import Problem
from .reply import Cut, Hangup, Patience
from .service import Service

BODY_SECONDS = 60.0  # time within which a body must arrive
MAX_FIELDS = 20  # fields of a form

SHUTTING_DOWN = "the server is shutting down"


@dataclass(eq=False)
class Exchange:
    """One request and its answer.

    stack: closes what belongs to the request, after the response was sent. details: what is logged of it.
    """

    service: Service
    request: Request
    send: Send
    stack: AsyncExitStack
    began: float
    status: int | None = None  # the status of the response, once it has begun
    details: str = ""

    async def note(self, message: Message) -> None:
        """Send a message of ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self.send(message)

    @property
    def seconds(self) -> float:
        """Seconds since the request has come."""
        return time.perf_counter() - self.began

    def patience(self) -> Patience:
        """Watch the client, the server and the time until the response was sent. The body must have been read."""
        left = self.service.settings.time_limit - self.seconds
        patience = Patience(self.request.receive, left, self.service.ending)
        self.stack.callback(patience.close)
        return patience

    async def body(self, limit: int) -> bytes:
        """Return the body of a request. Raises Problem for one that is too large or too slow, and Hangup."""
        length = self.request.headers.get("content-length", "0")
        if length.isdecimal() and len(length) < 20 and int(length) > limit:
            raise _too_large(limit)
        try:
            return await asyncio.wait_for(self._read(limit), BODY_SECONDS)
        except ClientDisconnect:
            raise Hangup from None
        except asyncio.TimeoutError:
            raise Problem(408, "the body of the request has not arrived in time", code="timeout") from None

    async def _read(self, limit: int) -> bytes:
        body = bytearray()
        async for part in self.request.stream():
            body += part
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)

    async def form(self, limit: int) -> FormData:
        """Return a multipart body. Raises as `body`."""
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await self.body(limit)
        if kind != "multipart/form-data":
            raise Problem(422, "the body must be multipart/form-data")

        async def parts() -> AsyncIterator[bytes]:
            yield body

        parser = MultiPartParser(self.request.headers, parts(), max_files=1, max_fields=MAX_FIELDS)  # type: ignore
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise Problem(400, f"the form is invalid: {error.message}", code="invalid_form") from None
        except (ValueError, LookupError, UnicodeError):
            raise Problem(400, "the form is invalid", code="invalid_form") from None
        self.stack.push_async_callback(form.close)
        return form


Handler = Callable[[Exchange], Awaitable[Response | None]]


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit / 1e6:.3g} MB", code="too_large")


class Endpoint:
    """An ASGI application for one route, which answers whatever happens."""

    def __init__(self, service: Service, name: str, handler: Handler, is_work: bool = False) -> None:
        """name: of the route, without what a client wrote. is_work: it is refused while the server shuts down."""
        self._service = service
        self._name = name
        self._handler = handler
        self._is_work = is_work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        began = time.perf_counter()
        service = self._service
        service.active += self._is_work
        try:
            async with AsyncExitStack() as stack:
                exchange = Exchange(service, Request(scope, receive), send, stack, began)
                await self._answer(exchange, scope, receive)
        finally:
            service.active -= self._is_work

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        problem: Problem | None = None
        try:
            if self._is_work and self._service.stopping:
                raise Problem(503, SHUTTING_DOWN, code="shutting_down", headers={"Retry-After": "10"})
            response = await self._handler(exchange)
            if response is not None:
                await response(scope, receive, exchange.note)
        except Hangup:
            exchange.details = "the client has left"
        except Cut:
            problem = Problem(503, SHUTTING_DOWN, code="shutting_down")
        except Exception as error:  # noqa: BLE001  (a client gets an answer whatever happens)
            problem = self._service.problem(error, self._name)
        if problem is not None:
            await self._refuse(problem, exchange, scope, receive)
        self._finish(exchange, scope["method"], problem)

    async def _refuse(self, problem: Problem, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        """Answer with an error; if a response has begun, the connection ends in the middle of it."""
        if exchange.status is None:
            headers = problem.headers
            if problem.status in (408, 413):  # the rest of the body is not read
                headers = {**headers, "Connection": "close"}
            await JSONResponse(problem.body, problem.status, headers)(scope, receive, exchange.note)
        exchange.details = problem.code or problem.param or "refused"  # the message may quote the request

    def _finish(self, exchange: Exchange, method: str, problem: Problem | None) -> None:
        status = exchange.status or 499  # the client has left
        if problem is not None:
            status = problem.status
        self._service.metrics.count(self._name, status)
        if self._is_work:
            self._service.log(f"{method} {self._name} {status}: {exchange.details or 'done'}")
