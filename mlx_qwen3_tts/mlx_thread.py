"""The MLX thread: one thread that executes all MLX work of the process, in the order of the calls.

    any thread ── run(function) ── queue ── the MLX thread ── result or exception ──► that thread

MLX keeps streams, the default stream and the cache of compiled functions per thread. An array that one thread leaves
unevaluated fails in every other. A compiled function that two threads have called stays in the cache of both when it
is dropped: its weights are not freed, and the next function that gets its address is answered with its graph. A
thread that used MLX and ends may abort the process at exit. With a single thread that never ends, none of this
happens, and a model's state needs no lock.

Callers wait on a Python lock, so Ctrl-C is heard at once. Code that is not ours (the source of a live text, the
consumer of a stream, the audio callback) never runs on the MLX thread. A job lasts for one frame of a batch at most, so
that other work comes between.
"""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

import mlx.core as mx

from .errors import GenerationError

P = ParamSpec("P")
R = TypeVar("R")

EXIT_SECONDS = 30.0  # maximum wait at exit for unfinished work


class Job(Generic[R]):
    """A call that the MLX thread makes, and its result.

    A plain lock signals completion. A Future has a lock of its own: if a signal handler interrupts its owner and asks
    for another job, the MLX thread waits for the lock, and the handler for the MLX thread.
    """

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._result: R
        self._error: BaseException | None = None
        self._unfinished = threading.Lock()
        self._unfinished.acquire()
        self.dropped = False  # set by the caller: nobody waits for the result

    def execute(self) -> None:
        """Make the call, unless it was dropped. On the MLX thread."""
        try:
            if not self.dropped:
                self._result = self._call()
        except BaseException as error:  # noqa: BLE001  (the caller raises it)
            self._error = error
        del self._call  # and its arrays, before the caller goes on
        self._unfinished.release()
        del self  # this frame is part of the error's traceback: no cycle that keeps the arrays of its other frames

    def wait(self, seconds: float = -1) -> None:
        """Wait for the end of the call; at most this long, if not negative."""
        self._unfinished.acquire(timeout=seconds)

    def result(self) -> R:
        """Wait, and return what the call returned or raise what it raised. To be called once."""
        self.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        return self._result


class MLXThread:
    """A daemon thread that starts with the first job.

    No lock is held while a job is queued: a signal handler or the garbage collector, which may call anything, would
    hold it for as long as they wait for the MLX thread.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job[Any]] = SimpleQueue()
        self._late_jobs: SimpleQueue[Job[Any]] = SimpleQueue()  # the jobs of the main thread at exit
        self._thread: threading.Thread | None = None
        self._claim = threading.Lock()  # the thread that takes it is the MLX thread; it never gives it back
        self._exiting = False
        self._closed = False  # the last of `_jobs` was executed
        self._forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Execute a function on the MLX thread and return what it returns, or raise what it raises.

        On the MLX thread itself the function is called directly. If the wait is interrupted (Ctrl-C), a function that
        has not begun is dropped, and one that has runs to its end.
        Raises GenerationError in a forked child of a process that has used MLX, and if the interpreter shuts down.
        """
        if self.is_current:
            return function(*args, **kwargs)
        job = Job(lambda: function(*args, **kwargs))
        try:
            self._put(job)
            return job.result()
        finally:
            job.dropped = True
            self._settle()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Queue a function for the MLX thread, without waiting for it. Raises as `run`.

        Do not ask for the result on the MLX thread, which would wait for itself.
        """
        job = Job(lambda: function(*args, **kwargs))
        self._put(job)
        self._settle()
        return job

    @property
    def is_current(self) -> bool:
        """True on the MLX thread."""
        return threading.current_thread() is self._thread

    @property
    def is_closed(self) -> bool:
        """True if the interpreter is shutting down and the MLX thread serves the main thread alone."""
        return self._closed

    def _put(self, job: Job) -> None:
        if self._forked:
            raise GenerationError(
                "MLX cannot be used in a forked child of a process that has used it: start processes with the 'spawn' "
                "method (multiprocessing.set_start_method('spawn'))"
            )
        is_main = threading.current_thread() is threading.main_thread()
        if sys.is_finalizing() or (self._exiting and not is_main):
            raise GenerationError("the interpreter is shutting down: no more speech can be made")
        if self._thread is None:
            self._start()
        queue = self._late_jobs if self._exiting else self._jobs
        queue.put(job)

    def _start(self) -> None:
        """Start a thread. Several callers may do so at once, or one that was interrupted once more."""
        try:
            threading.Thread(target=self._loop, name="mlx", daemon=True).start()
        except RuntimeError as error:
            raise GenerationError(
                f"the MLX thread cannot be started ({error}): load the model earlier, and with fewer threads alive"
            ) from None

    def _loop(self) -> None:
        if not self._claim.acquire(blocking=False):
            return  # another thread was first
        self._thread = threading.current_thread()
        atexit.register(self._at_exit)
        # No names for the jobs, which would live until the next one.
        while not self._closed:
            self._jobs.get().execute()
        while True:
            self._late_jobs.get().execute()

    def _at_exit(self) -> None:
        """Let the work under way end, and leave the thread asleep.

        It must not run, or only wake up, while the interpreter is torn down: its end would abort the process. From now
        on it serves the main thread alone, which waits for it: the handlers that were registered before this one.
        """
        self._exiting = True
        if not self._forked:
            last = Job(self._close)
            self._jobs.put(last)
            last.wait(EXIT_SECONDS)

    def _close(self) -> None:
        self._closed = True
        synchronize()

    def _settle(self) -> None:
        """At exit: wait for the main thread's jobs, and for what they left to the device."""
        if self._exiting and not self._forked and threading.current_thread() is threading.main_thread():
            last = Job(synchronize)
            self._late_jobs.put(last)
            last.wait(EXIT_SECONDS)

    def _after_fork(self) -> None:
        """The child of a fork has no MLX thread, and MLX's own threads are gone as well."""
        self._jobs = SimpleQueue()
        self._forked = self._claim.locked()


def synchronize() -> None:
    """Wait for everything that the MLX thread has queued, on all devices."""
    for device in (mx.cpu, mx.gpu):
        if mx.is_available(device):
            mx.synchronize(device)


MLX_THREAD = MLXThread()


class Worker:
    """The MLX thread with a device of its own: what a model computes on, whatever becomes the default elsewhere.

    MLX's default device belongs to the process, and `mx.stream` sets it for all threads. Each job sets it again for its
    own time, unless it is right: if contexts of two threads overlap, the last to end leaves the wrong device behind.
    """

    def __init__(self, device: mx.Device | None = None) -> None:
        """device: None takes the present default."""
        self.device = mx.default_device() if device is None else device

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Execute a function on the MLX thread, on this device; see MLXThread.run."""
        return MLX_THREAD.run(lambda: self._on_device(function, *args, **kwargs))

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Queue a function for the MLX thread and this device; see MLXThread.submit."""
        return MLX_THREAD.submit(lambda: self._on_device(function, *args, **kwargs))

    @property
    def is_current(self) -> bool:
        """True on the MLX thread."""
        return MLX_THREAD.is_current

    @property
    def is_closed(self) -> bool:
        """True if the interpreter is shutting down; see MLXThread.is_closed."""
        return MLX_THREAD.is_closed

    def _on_device(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if mx.default_device() == self.device:
            return function(*args, **kwargs)
        with mx.stream(self.device):
            return function(*args, **kwargs)
