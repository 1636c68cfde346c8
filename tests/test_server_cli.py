"""`serve` as a process: ready, signals, flags."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import httpx
import pytest

from mlx_qwen3_tts.cli.serve import KEY_VARIABLE, add_serve, wyoming_address
from mlx_qwen3_tts.server.run import GRACE
from tests.support.process import ROOT, heed_interrupts, spawn
from tests.support.server import LONG, SPEECH, TEXT


@contextmanager
def serving(*argv, command=(), **environment):
    """Run `serve` with demo models; yield the process and a client. command: that runs the command line otherwise."""
    process = subprocess.Popen(
        [*(command or spawn()), "serve", "--port", "0", *argv], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}, preexec_fn=heed_interrupts,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("ready: http://127.0.0.1:"), process.stderr.read()
        with httpx.Client(base_url=line.split()[1], timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


def end(process, number: int) -> tuple[int, str]:
    """Send a signal; return the exit code and what was written to standard error."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_request_under_way_ends_and_no_other_begins(number):
    with serving("--model", "demo-random") as (process, client):
        got = []

        def read():
            with httpx.Client(base_url=client.base_url, timeout=60) as other, suppress(httpx.RemoteProtocolError):
                got.append(other.post(SPEECH, json={**LONG, "max_frames": 60}))

        reader = threading.Thread(target=read)
        reader.start()
        while client.get("/health").json()["batch"] == 0:
            time.sleep(0.01)
        sent = time.monotonic()
        process.send_signal(number)
        while (response := client.get("/health")).status_code == 200:
            time.sleep(0.01)
        assert response.json()["status"] == "stopping"
        refused = client.post(SPEECH, json={"input": TEXT})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        reader.join()
        if got:
            assert len(got[0].content) == 60 * 3840
        else:
            assert time.monotonic() - sent > GRACE, "it was cut; a busy machine may take that long"
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors


@pytest.mark.slow
def test_a_request_that_takes_longer_is_cut():
    assert GRACE == 10
    hasty = (
        "import sys; from mlx_qwen3_tts import cli; from mlx_qwen3_tts.server import run;"
        "run.serve_until.__defaults__ = (2.0,); sys.exit(cli.main(sys.argv[1:]))"
    )
    with serving("--model", "demo-random", command=(sys.executable, "-c", hasty)) as (process, client):
        with client.stream("POST", SPEECH, json={**LONG, "max_frames": 8000}) as response:
            parts = response.iter_raw()
            next(parts)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in parts:
                    pass
        _, errors = process.communicate(timeout=30)
        assert 1.9 < time.monotonic() - began < 9
        assert process.returncode == 0, errors
        assert "Traceback" not in errors


def test_a_key_from_the_environment():
    with serving("--model", "demo", "--host", "127.0.0.1", **{KEY_VARIABLE: "abc"}) as (process, client):
        assert client.get("/v1/models").status_code == 401
        headers = {"Authorization": "Bearer abc"}
        assert client.get("/v1/models", headers=headers).json()["data"][0]["id"] == "demo"
        code, errors = end(process, signal.SIGTERM)
    assert code == 0
    assert errors.splitlines()[-1] == "stopped"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--host", "0.0.0.0"], "--api-key KEY"),
        (["--host", "mac.example.org"], "--api-key KEY"),
        (["--api-key", "a", "--no-key"], "exclude each other"),
        (["--api-key", "ä"], "ASCII"),
        (["--batch-size", "0"], "--batch"),
        (["--port", "-1"], "--port"),
        (["--port", "99999"], "from 0 to 65535"),
        (["--max-upload", "0"], "--max-upload"),
        (["--memory", "nan"], "--memory"),
        (["--voice-alias", "alloy"], "NAME=VOICE"),
        (["--wyoming", "x"], "HOST:PORT"),
        (["--wyoming", "127.0.0.1:99999"], "HOST:PORT"),
        (["--wyoming", "1", "--host", "0.0.0.0", "--api-key", "k"], "--wyoming 0.0.0.0:1"),
        (["--model", "demo", "--model", "demo"], "two models"),
        (["--model", "/nothing/here"], "/nothing/here"),
    ],
)
def test_refused(run_cli, argv, message):
    port = [] if "--port" in argv else ["--port", "0"]
    model = [] if "--model" in argv else ["--model", "demo"]
    code, out, err = run_cli("serve", *argv, *port, *model)
    assert code == 1
    assert not out
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize("flag, other", [("--port", []), ("--wyoming", ["--port", "0"])])
def test_a_port_that_is_taken(run_cli, flag, other):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run_cli("serve", "--model", "demo", flag, taken.getsockname()[1], *other)
    assert code == 1
    assert f"choose another {flag}" in err


@pytest.mark.parametrize(
    "argv, address",
    [
        ([], None),
        (["--wyoming", "10200"], ("127.0.0.1", 10200)),
        (["--wyoming", "10200", "--host", "0.0.0.0", "--no-key"], ("0.0.0.0", 10200)),
        (["--wyoming", "0.0.0.0:10200", "--api-key", "k"], ("0.0.0.0", 10200)),
        (["--wyoming", "[::1]:10200", "--host", "0.0.0.0", "--api-key", "k"], ("::1", 10200)),
    ],
)
def test_where_home_assistant_is_served(argv, address):
    """Only an address that was named, or a server that lets everybody in, is open to other machines without a key."""
    parser = argparse.ArgumentParser()
    add_serve(parser.add_subparsers())
    assert wyoming_address(parser.parse_args(["serve", *argv])) == address


def test_a_signal_ends_home_assistants_server_too():
    with serving("--model", "demo", "--wyoming", "127.0.0.1:0") as (process, _):
        line = process.stdout.readline()
        assert line.startswith("wyoming: tcp://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2]))) as connection:
            connection.sendall(b'{"type": "ping"}\n')
            assert b'"pong"' in connection.recv(1000)
            code, errors = end(process, signal.SIGINT)
            assert b'"pong"' not in connection.recv(1000)
    assert code == 0
    assert errors.splitlines()[-1] == "stopped"
    assert "Traceback" not in errors


def test_without_the_extra(run_cli, monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "starlette" or "server" in name:
            raise ModuleNotFoundError("No module named 'starlette'", name="starlette")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    code, _, err = run_cli("serve", "--model", "demo")
    assert code == 1
    assert "the server needs starlette: pip install 'mlx-qwen3-tts[server]'" in err
