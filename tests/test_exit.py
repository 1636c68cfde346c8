"""Exit of processes that use threads: exit codes, exit handlers, forks, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mlx_qwen3_tts import GenerationError
from mlx_qwen3_tts.mlx_thread import MLXThread
from tests.support import checkpoints
from tests.support.process import heed_interrupts, without_coverage

BEGIN = """
import atexit, os, signal, sys, threading, time
from mlx_qwen3_tts import GenerationError, Qwen3TTS

def speak(frames=3):
    return len(tts.synthesize("Hello", seed=1, max_frames=frames).codes)
"""
LOAD = "tts = Qwen3TTS.from_pretrained(sys.argv[1])\n"
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


@pytest.fixture(scope="module")
def end_of(tmp_path_factory):
    """Run code in a process, with a checkpoint as its argument: exit code, standard output and standard error."""
    checkpoint = checkpoints.write(tmp_path_factory.mktemp("exit") / "checkpoint", "projected")

    def end(code: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        command = [sys.executable, "-c", BEGIN + code, checkpoint]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)  # it must not hang
        return done.returncode, done.stdout, done.stderr

    return end


def test_after_a_worker_thread_has_spoken(end_of):
    """The thread ends just before the interpreter does."""
    code = LOAD + "thread = threading.Thread(target=speak)\nthread.start()\nthread.join()"
    assert [end_of(code) for _ in range(2)] == [(0, "", "")] * 2


def test_during_a_daemon_threads_request(end_of):
    code = """
def stream():
    for chunk in tts.stream("Hello", seed=1, max_frames=1000, chunk_frames=(1,)):
        begun.set()
begun = threading.Event()
threading.Thread(target=stream, daemon=True).start()
begun.wait()
"""
    for _ in range(2):
        returned, _, err = end_of(LOAD + code)
        assert returned == 0, err
        assert "terminate" not in err


def test_sys_exit_while_a_thread_streams(end_of):
    """A non-daemon thread finishes its speech, and the exit code is that of sys.exit."""
    code = """
def stream():
    for chunk in tts.stream("Hello", seed=1, max_frames=6, chunk_frames=(1,)):
        begun.set()
    print(chunk.is_final)
begun = threading.Event()
threading.Thread(target=stream).start()
begun.wait()
sys.exit(3)
"""
    assert end_of(LOAD + code) == (3, "True\n", "")


@pytest.mark.parametrize("before", [True, False], ids=["registered before the first use", "registered after it"])
def test_an_exit_handler_may_speak(end_of, before):
    register = "atexit.register(lambda: print(speak()))\n"
    load = LOAD + "speak()\n"
    assert end_of(register + load if before else load + register) == (0, "3\n", "")


def test_a_daemon_thread_that_speaks_during_an_exit_handler(end_of):
    """It gets an error, because its job could still be running when the interpreter is torn down."""
    code = """
def ask():
    ended.wait()
    try:
        speak()
    except GenerationError as error:
        print(error)
ended = threading.Event()
thread = threading.Thread(target=ask, daemon=True)
thread.start()
def at_exit():
    ended.set()
    thread.join()
    print(speak())
atexit.register(at_exit)  # before the first use: runs after the handler of the MLX thread
"""
    returned, out, err = end_of(code + LOAD)
    assert (returned, err) == (0, "")
    assert out == "the interpreter is shutting down: no more speech can be made\n3\n"


OPEN = """
tts = Qwen3TTS.from_pretrained(sys.argv[1])
stream = tts.stream("Hello", seed=1, max_frames=50, chunk_frames=(1,))
next(stream)
"""


@pytest.mark.parametrize("when", ["with the interpreter", "in a late handler"])
def test_a_stream_that_is_open_at_exit(end_of, when):
    """Closing it must not wake the MLX thread, because the end of that thread would abort the process."""
    late = "atexit.register(lambda: stream.close())\n" if when == "in a late handler" else ""
    assert [end_of(late + OPEN) for _ in range(2)] == [(0, "", "")] * 2


def test_a_finalizer_at_interpreter_shutdown(monkeypatch):
    """It gets an error and does not wait for a thread that no longer runs."""
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    with pytest.raises(GenerationError, match="shutting down"):
        MLXThread().run(int)


def test_a_signal_handler_may_speak(end_of):
    """It may interrupt any code; frequent signals hit the code that queues a job or waits for it."""
    code = """
from mlx_qwen3_tts.mlx_thread import MLX_THREAD
import faulthandler
faulthandler.dump_traceback_later(20, exit=True)
inside, handled = False, 0
def job():
    MLX_THREAD.submit(int)  # as a stream does that the garbage collector closes on the MLX thread
def handle(*_):
    global inside, handled
    if not inside:
        inside = True
        MLX_THREAD.run(job)
        handled += 1
        inside = False
MLX_THREAD.run(int)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
end = time.monotonic() + 0.7
while time.monotonic() < end:
    MLX_THREAD.run(int)
signal.setitimer(signal.ITIMER_REAL, 0)
print(handled > 100)
"""
    # Coverage's tracer takes a lock, on which the handler and the MLX thread would deadlock.
    assert end_of(code, env=without_coverage()) == (0, "True\n", "")


FORK = """
child = os.fork()
if child == 0:
    try:
        if "tts" not in globals():
            tts = Qwen3TTS.from_pretrained(sys.argv[1])
        print(speak())
    except GenerationError as error:
        print(error)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@forking
def test_fork_before_the_first_use(end_of):
    assert end_of(FORK) == (0, "3\n7\n", "")


@forking
def test_fork_after_use(end_of):
    """MLX's threads do not exist in the child, which gets an error at once that says what to do."""
    returned, out, err = end_of(LOAD + "speak()\n" + FORK)
    assert returned == 0, err
    error, code = out.splitlines()
    assert error.startswith("MLX cannot be used in a forked child")
    assert "'spawn'" in error
    assert code == "7"


@forking
def test_fork_while_the_first_job_waits_for_its_thread(end_of):
    """Only the parent runs the job, and the child starts its own thread."""
    code = """
from mlx_qwen3_tts.mlx_thread import MLX_THREAD
start = threading.Thread.start
threading.Thread.start = lambda thread: None  # it is on its way
MLX_THREAD.submit(os.write, 1, b"parent\\n")
threading.Thread.start = start
child = os.fork()
if child == 0:
    os.write(1, b"%d\\n" % MLX_THREAD.run(len, "abc"))
    os._exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
MLX_THREAD.run(print, code)
"""
    assert end_of(code) == (0, "3\nparent\n7\n", "")


def test_interrupt_is_handled_during_a_long_computation():
    """The caller gets KeyboardInterrupt at once; the process ends when the computation ends."""
    code = """
import mlx.core as mx
from mlx_qwen3_tts.mlx_thread import MLX_THREAD
def compute(products, ready=False):
    x = mx.full((400, 400), 1 / 400)
    for _ in range(products):
        x = x @ x
    if ready:
        print("ready", flush=True)
    mx.eval(x)
MLX_THREAD.run(compute, 1)
began = time.monotonic()
MLX_THREAD.run(compute, 10)
products = int(10 * 1.5 / (time.monotonic() - began))  # 1.5 s
try:
    MLX_THREAD.run(compute, products, ready=True)
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
    MLX_THREAD.run(len, "")  # behind the computation
    print(time.monotonic(), flush=True)
"""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", BEGIN + code]
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, preexec_fn=heed_interrupts)
    assert process.stdout.readline() == b"ready\n", process.stderr.read()
    time.sleep(0.1)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    heard, done = map(float, out.split())
    assert heard - sent < 0.3
    assert done - heard > 0.3, "the computation was not long enough to prove anything"


def test_ctrl_c_while_the_interpreter_ends():
    """It ends the process at once and shows nothing, as a second Ctrl-C does that follows closely."""
    code = """
from mlx_qwen3_tts.__main__ import main
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.argv = ["mlx-qwen3-tts", "voices", "--model", "demo"]
sys.exit(main())
"""
    command = [sys.executable, "-c", BEGIN + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=heed_interrupts)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert "slt" in done.stdout
