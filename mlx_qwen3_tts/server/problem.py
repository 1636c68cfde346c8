"""What is wrong with a request, as OpenAI's JSON.

our errors ─ problem_of ─┐
                         ├─ Problem ─ {"error": {"message", "type", "param", "code"}} and a status
the server's own checks ─┘
"""

import re
import traceback
from collections.abc import Mapping
from typing import Any

from ..errors import AudioError, Qwen3TTSError, RequestError, VoiceError, printable
from .gate import QueueFull

# What HTTP calls the arguments of the library, if it has another name for them.
NAMES = {"text": "input", "instruct": "instructions", "max_seconds": "--max-ref-seconds"}
RETRY_SECONDS = 2  # after which a refused client may come again


class Problem(Exception):
    """A request that is refused or failed.

    param: the field that is wrong. code: a word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = printable(message)
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients read it."""
        kind = "server_error" if self.status >= 500 else KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


KINDS = {401: "authentication_error", 429: "rate_limit_error"}


def problem_of(error: Exception) -> Problem:
    """Return what an error of the package means to a client."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, QueueFull):
        message = "the queue is full: try again later"
        return Problem(429, message, code="queue_full", headers={"Retry-After": str(RETRY_SECONDS)})
    if isinstance(error, RequestError | AudioError | VoiceError):
        param = None if error.about is None else NAMES.get(error.about, error.about)
        return Problem(400, in_http_words(error), param)
    if isinstance(error, Qwen3TTSError):
        return Problem(500, str(error))
    return Problem(500, "the server has failed: see its log")


def in_http_words(error: Qwen3TTSError) -> str:
    """Return an error's message with the names of HTTP in place of the library's arguments."""
    message = str(error)
    for argument in error.arguments:
        name = NAMES.get(argument, argument)
        message = re.sub(rf"(?<![\w/.'\"-]){argument}(?![\w/.'\"-])", name, message)
    return message


def fault(error: Exception, with_message: bool) -> str:
    """Return what is logged of an error that is not the client's. with_message: it may quote the request."""
    if with_message:
        return "".join(traceback.format_exception(error)).rstrip()
    return f"{type(error).__name__}, raised at:\n{''.join(traceback.format_tb(error.__traceback__))}".rstrip()
