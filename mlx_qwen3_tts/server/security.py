"""Who may talk to a server: the key, the Host header, the origin of a web page.

    request ─ Host is ours? ─ Origin is our page, or none? ─ key? ─► the routes
                    └─ 403 ───────────────┴─ 403               └─ 401

A web page anywhere may let a browser send requests to a server on the user's machine. It cannot read the answers, as
no other origin is permitted; it cannot cause anything, as its Origin header is refused; and it cannot pretend to be
of our origin by a name that it lets point to this machine (DNS rebinding), as the Host header must be an address or
one of our names.
"""

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from .problem import Problem
from .settings import Settings

# Names that no public DNS has: `internal` is reserved for private networks (host.docker.internal is a container's name
# for the machine that it runs on).
PRIVATE_SUFFIXES = (".internal", ".localhost")

# For answers of all kinds. The page's scripts, styles and picture are files of this server, it asks no other host, and
# it plays clips that it holds itself (blob:).
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; media-src blob:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
}


class Guard:
    """Lets requests pass, or answers them. `open_paths` need no key."""

    def __init__(self, app: ASGIApp, settings: Settings, open_paths: Iterable[str]) -> None:
        self._app = app
        self._key = settings.api_key
        own = socket.gethostname().lower().rstrip(".")
        self._hosts = {"localhost", own, f"{own.removesuffix('.local')}.local", *map(str.lower, settings.hosts)}
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = self._problem(Headers(scope=scope), scope["path"])
        if problem is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await deny(WebSocket(scope, receive, send), problem)
        else:
            await JSONResponse(problem.body, problem.status, problem.headers)(scope, receive, send)

    def _problem(self, headers: Headers, path: str) -> Problem | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return Problem(
                403, f"the Host header {host[:100]!r} is not a name of this server: --allow-host NAME permits one",
                code="host_not_allowed",
            )  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and not is_same_origin(origin, host):
            return Problem(403, "requests of other web pages are refused", code="origin_not_allowed")
        if self._key is None or path in self._open_paths or self._has_key(headers):
            return None
        return Problem(
            401, "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'", code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )  # fmt: skip

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = (self._key or "").encode()
        # The time of the comparison does not depend on where the two differ.
        is_equal = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected)
        return is_equal and scheme.lower() == "bearer"

    def _is_ours(self, host: str) -> bool:
        name = host_name(host)
        return is_address(name) or name in self._hosts or name.endswith(PRIVATE_SUFFIXES)


async def deny(socket: WebSocket, problem: Problem) -> None:
    """Answer the handshake of a WebSocket with an error."""
    response = JSONResponse(problem.body, problem.status, problem.headers)
    del response.headers["Content-Length"]  # uvicorn adds one
    await socket.send_denial_response(response)


def host_name(host: str) -> str:
    """Return a Host header without the port, in lower case; empty if it is invalid."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for an invalid one
    except ValueError:
        return ""
    is_plain = parts.path == parts.query == parts.fragment == "" and parts.username is None
    if not is_plain:
        return ""
    return (parts.hostname or "").rstrip(".")


def is_address(name: str) -> bool:
    """Return whether a name is an IP address, which no DNS can let point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether an Origin header names the page that the Host header's server has sent."""
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme.lower() in ("http", "https") and rest.lower() == host.lower()
