"""The ASGI application: routes behind the guard, and the page's files.

request ─ Guard (Host, Origin, key) ─ Router ─┬─ Endpoint ─ routes.py
                                              ├─ LiveEndpoint ─ live.py (WebSocket)
                                              └─ a file of page/
"""

import mimetypes
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import routes
from .endpoint import Endpoint, Handler
from .live import NAME as LIVE, LiveEndpoint
from .problem import Problem
from .security import HEADERS, Guard
from .service import Service

PAGE = Path(__file__).parent / "page"
INDEX = "index.html"

# Path, method, handler, and whether it is work that is refused while the server shuts down.
ENDPOINTS: tuple[tuple[str, str, Handler, bool], ...] = (
    (routes.SPEECH, "POST", routes.speech, True),
    (routes.BATCH, "POST", routes.batch, True),
    ("/v1/audio/voices", "GET", routes.list_voices, False),
    ("/v1/audio/voices", "POST", routes.upload_voice, True),
    ("/v1/audio/voices/{name}", "DELETE", routes.delete_voice, True),
    ("/v1/models", "GET", routes.list_models, False),
    ("/v1/models/{name:path}", "GET", routes.retrieve_model, False),
    ("/v1/audio/models", "GET", routes.list_audio_models, False),
    ("/health", "GET", routes.health, False),
    ("/metrics", "GET", routes.metrics, False),
)


def build_app(service: Service) -> ASGIApp:
    """Return the application that answers all requests."""
    files = page_files()
    paths = dict.fromkeys(path for path, *_ in ENDPOINTS)
    entries: list[BaseRoute] = [Route(path, Dispatcher(service, path)) for path in paths]
    entries += [Route(path, file, methods=["GET"]) for path, file in files.items()]
    entries.append(WebSocketRoute(LIVE, LiveEndpoint(service)))
    app = Starlette(routes=entries, exception_handlers={HTTPException: http_problem})
    app.router.redirect_slashes = False
    return WithHeaders(Guard(app, service.settings, [*files, "/health"]))


class Dispatcher:
    """Passes a request to the endpoint of its method."""

    def __init__(self, service: Service, path: str) -> None:
        self._endpoints = {
            method: Endpoint(service, path, handler, is_work)
            for entry, method, handler, is_work in ENDPOINTS
            if entry == path
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        endpoint = self._endpoints.get(method)
        if endpoint is None:
            problem = Problem(405, "this path does not take that method", headers={"Allow": ", ".join(self._endpoints)})
            await JSONResponse(problem.body, problem.status, problem.headers)(scope, receive, send)
        else:
            await endpoint(scope, receive, send)


def page_files() -> dict[str, Response]:
    """Return the page's files by their paths in a URL. They are read once: no path of a request becomes a file's."""
    files: dict[str, Response] = {}
    for path in sorted(PAGE.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            name = path.relative_to(PAGE).as_posix()
            media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            response = Response(path.read_bytes(), media_type=media_type, headers={"Cache-Control": "no-cache"})
            files["/" if name == INDEX else f"/{name}"] = response
    return files


async def http_problem(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Return Starlette's own errors (404, 405) as OpenAI's JSON."""
    assert isinstance(error, HTTPException)
    message = "there is no such path; the API is at /v1" if error.status_code == 404 else error.detail
    problem = Problem(error.status_code, message)
    return JSONResponse(problem.body, problem.status, error.headers)


class WithHeaders:
    """Adds the headers that tell browsers what not to do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
