"""`serve`: the speech endpoint that OpenAI's clients call, over HTTP and WebSocket."""

import argparse
import ipaddress
import os
import socket
import sys
from contextlib import nullcontext

from ..checkpoint.load import DTYPES
from ..demo import registry as demo
from ..errors import RequestError
from ..generation.batch import MAX_ROWS
from ..generation.listen import check_batch_size
from ..option import invalid
from ..server.settings import DEFAULT_PORT, MEGABYTE, Settings
from .console import emit, note, warnings_as_notes
from .options import DEFAULT_MODEL, add_adapter
from .parser import Commands

KEY_VARIABLE = "MLX_QWEN3_TTS_API_KEY"
GIGABYTE = 10**9
DEFAULTS = Settings()


def add_serve(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "serve",
        help="speak for other programs, over HTTP",
        description="Serve the speech endpoint that OpenAI's clients call (POST /v1/audio/speech), and a page at /.",
    )
    parser.add_argument(
        "--model", action="append",
        help=f"checkpoint directory, hub id, or 'demo' (default: {DEFAULT_MODEL}); repeat it to offer several",
    )  # fmt: skip
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model (default: main)")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: the checkpoint's on a GPU, float32 on the CPU")
    add_adapter(parser)
    _add_access(parser)
    _add_limits(parser)
    parser.set_defaults(run=serve)
    return parser


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("access")
    group.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    group.add_argument("--port", type=int, default=DEFAULT_PORT, metavar="N", help=f"default: {DEFAULT_PORT}")
    group.add_argument(
        "--api-key", metavar="KEY",
        help=f"what clients must send as 'Authorization: Bearer KEY' (default: ${KEY_VARIABLE}, which other users of "
        "this machine do not see)",
    )  # fmt: skip
    group.add_argument("--no-key", action="store_true", help="let everybody in who can reach --host")
    group.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name of this server, as clients write it"
    )
    group.add_argument(
        "--wyoming", metavar="[HOST:]PORT",
        help="speak Home Assistant's protocol as well, which has no key: at an address, or where --host says (10200 is "
        "its usual port)",
    )  # fmt: skip
    group.add_argument(
        "--voice-alias", action="append", default=[], metavar="NAME=VOICE",
        help="a name that stands for a voice, for clients whose voices cannot be changed: alloy=Ryan",
    )  # fmt: skip
    group.add_argument("--log-text", action="store_true", help="log what is spoken (default: its size and times)")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--batch-size", "--batch", type=int, default=DEFAULTS.batch_size, metavar="N",
        help=f"requests that are spoken side by side, 1 to {MAX_ROWS} (default: {DEFAULTS.batch_size})",
    )  # fmt: skip
    group.add_argument(
        "--queue-size", type=int, default=DEFAULTS.queue_size, metavar="N",
        help=f"requests that may wait for a place; more are refused (default: {DEFAULTS.queue_size})",
    )  # fmt: skip
    group.add_argument(
        "--time-limit", type=float, default=DEFAULTS.time_limit, metavar="SECONDS",
        help=f"that a request may take (default: {DEFAULTS.time_limit:g})",
    )  # fmt: skip
    group.add_argument(
        "--max-text", type=int, default=DEFAULTS.max_text, metavar="N",
        help=f"characters of a request's text (default: {DEFAULTS.max_text}, as OpenAI)",
    )  # fmt: skip
    group.add_argument(
        "--max-upload", type=float, default=DEFAULTS.max_upload / MEGABYTE, metavar="MB",
        help=f"size of a clip to clone (default: {DEFAULTS.max_upload / MEGABYTE:g})",
    )  # fmt: skip
    group.add_argument(
        "--max-ref-seconds", type=float, default=DEFAULTS.max_ref_seconds, metavar="SECONDS",
        help=f"length of a clip to clone (default: {DEFAULTS.max_ref_seconds:g})",
    )  # fmt: skip
    group.add_argument(
        "--memory", type=float, metavar="GB",
        help="for the weights of all models: those that are not used are unloaded (default: no limit)",
    )  # fmt: skip


def serve(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    settings = settings_from(args)
    beside_at = wyoming_address(args)
    try:  # the packages of the extra are imported here, and not by any other command
        from ..server.models import LoadOptions, Models
        from ..server.run import listen, run_server
        from ..server.service import Service
        from ..server.workers import Workers
        from ..server.wyoming import WyomingServer
    except ImportError as error:
        if (error.name or "").split(".")[0] == __package__.split(".")[0]:
            raise
        raise RequestError(f"the server needs {error.name}: pip install 'mlx-qwen3-tts[server]'") from None
    bound = listen(args.host, args.port)
    beside_bound = None if beside_at is None else listen(*beside_at, "wyoming")
    options = LoadOptions(args.dtype, args.revision, args.adapter, args.batch_size)
    workers = Workers()
    with bound, beside_bound or nullcontext(), warnings_as_notes():
        models = Models(args.model or [DEFAULT_MODEL], options, workers, settings.memory, note)
        service = Service(settings, models, workers, note)
        for source in args.model or ():
            if source in demo.NOTES:
                note(demo.NOTES[source])
        lines = [f"ready: http://{address_of(bound)}"]
        beside = None
        if beside_bound is not None:
            beside = WyomingServer(service, beside_bound)
            lines.append(f"wyoming: tcp://{address_of(beside_bound)}")
        run_server(service, bound, lambda: emit_now("\n".join(lines)), beside)
    note("stopped")


def address_of(bound: socket.socket) -> str:
    """Return where a socket listens, as a URL has it."""
    host, port = bound.getsockname()[:2]
    if ":" in host:
        return f"[{host}]:{port}"
    return f"{host}:{port}"


def emit_now(line: str) -> None:
    """Print a line, even into a pipe at once."""
    emit(line)
    sys.stdout.flush()


def settings_from(args: argparse.Namespace) -> Settings:
    """Return the settings of a command line. Raises RequestError."""
    check_batch_size(args.batch_size)
    for name, least, most in (("port", 0, 65535), ("queue_size", 0, 10_000), ("max_text", 1, 10**6)):
        value = getattr(args, name)
        if not least <= value <= most:
            raise invalid(name, f"a whole number from {least} to {most}", value)
    for name in ("time_limit", "max_upload", "max_ref_seconds", "memory"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise invalid(name, "a number above 0", value)
    memory = args.memory
    if memory is not None:
        memory = round(memory * GIGABYTE)
    return Settings(
        api_key=key_from(args),
        hosts=frozenset(args.allow_host),
        voice_aliases=dict(map(alias, args.voice_alias)),
        batch_size=args.batch_size,
        queue_size=args.queue_size,
        time_limit=args.time_limit,
        max_text=args.max_text,
        max_upload=round(args.max_upload * MEGABYTE),
        max_ref_seconds=args.max_ref_seconds,
        memory=memory,
        log_text=args.log_text,
    )


def key_from(args: argparse.Namespace) -> str | None:
    """Return the key that clients need. Raises RequestError if one is missing or cannot be sent in a header."""
    key = args.api_key or os.environ.get(KEY_VARIABLE) or None
    if args.no_key:
        if args.api_key:
            raise RequestError("--api-key and --no-key exclude each other; leave one out")
        return None
    if key is None and not is_loopback(args.host):
        raise RequestError(
            f"--host {args.host} lets other machines in: give --api-key KEY (or {KEY_VARIABLE}), or --no-key"
        )
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key):
        raise RequestError("the API key must be printable ASCII without spaces around it")
    return key


def wyoming_address(args: argparse.Namespace) -> tuple[str, int] | None:
    """Return the address at which Home Assistant's protocol is spoken, if it is. Raises RequestError.

    The protocol has no key: an address that other machines reach must be named, unless everybody is let in anyway.
    """
    if args.wyoming is None:
        return None
    host, _, port = args.wyoming.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 2**16):
        raise RequestError(f"--wyoming takes PORT or HOST:PORT, not {args.wyoming!r}")
    if not host and not is_loopback(args.host) and not args.no_key:
        raise RequestError(
            f"Home Assistant's protocol has no key: to let other machines in without one, give --wyoming "
            f"{args.host}:{port}; for this machine only, --wyoming 127.0.0.1:{port}"
        )
    return host.strip("[]") or args.host, int(port)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens at `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def alias(text: str) -> tuple[str, str]:
    """Return the two names of NAME=VOICE, the first in lower case. Raises RequestError."""
    name, separator, voice = text.partition("=")
    if not (separator and name.strip() and voice.strip()):
        raise RequestError(f"--voice-alias takes NAME=VOICE, not {text!r}")
    return name.strip().lower(), voice.strip()
