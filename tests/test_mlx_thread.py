"""The MLX thread: one model in several threads, whichever loaded it; errors, interrupts, memory, and unloading."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import GenerationError, Qwen3TTS, RequestError, mlx_thread
from mlx_qwen3_tts.generation.frames import FrameFunctions
from mlx_qwen3_tts.mlx_thread import MLX_THREAD, Job, MLXThread, Worker
from tests.support import checkpoints, sounds
from tests.support.engine import on_mlx_thread


def elsewhere(work):
    """Run `work` in a new thread, wait for the thread to end, and return or raise the result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def active_memory() -> int:
    """Return the active memory after all queued jobs have finished."""
    gc.collect()
    MLX_THREAD.run(mx.synchronize)
    return mx.get_active_memory()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("mlx_thread") / "base", "projected", "base")


def test_loaded_in_one_thread_used_in_others(directory):
    """This includes the encoders, which stay on disk until their first use, and the compiled frame."""
    tts = elsewhere(lambda: Qwen3TTS.from_pretrained(directory))
    voice = elsewhere(lambda: tts.clone_voice(sounds.SOUNDS["speech"], "hello this voice"))

    def speak():
        return tts.synthesize("Hello world", voice=voice, seed=3, max_frames=9)

    expected, others = speak(), [elsewhere(speak) for _ in range(2)]
    for other in others:
        np.testing.assert_array_equal(other.codes, expected.codes)
        np.testing.assert_array_equal(other.audio, expected.audio)
    codes = elsewhere(lambda: tts.codec.encode(expected.audio, 24000))
    np.testing.assert_array_equal(codes, tts.codec.encode(expected.audio, 24000))
    np.testing.assert_array_equal(elsewhere(lambda: tts.codec.decode(codes)), tts.codec.decode(codes))


def test_load_streams_of_metal(directory, monkeypatch):
    """On a Mac mx.load reads on a CPU stream of the calling thread; no other thread can read tensors still on disk."""
    load = mx.load
    monkeypatch.setattr(mx, "load", lambda path, **options: load(path, stream=mx.new_stream(mx.cpu), **options))
    clip = sounds.SOUNDS["speech"]
    uses = (
        lambda tts: tts.clone_voice(clip).speaker_embedding,
        lambda tts: tts.clone_voice(clip, "hello this voice").ref_codes,
        lambda tts: tts.codec.encode(*clip),
    )
    for use in uses:  # each is the first use of its parts
        here = use(Qwen3TTS.from_pretrained(directory))
        tts = Qwen3TTS.from_pretrained(directory)
        np.testing.assert_array_equal(elsewhere(lambda: use(tts)), here)  # noqa: B023
        tts = elsewhere(lambda: Qwen3TTS.from_pretrained(directory))
        np.testing.assert_array_equal(use(tts), here)


def test_a_stream_moves_between_threads(demo):
    expected = demo.synthesize("Hello world", seed=4, max_frames=5).codes
    stream = elsewhere(lambda: demo.stream("Hello world", seed=4, max_frames=5, chunk_frames=(1,)))
    chunks = [next(stream), elsewhere(lambda: next(stream)), *elsewhere(lambda: list(stream))]
    np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), expected)


def test_two_threads_at_once(demo):
    """Each gets the same result as alone, and none waits until another has ended: all have a chunk before the next."""
    texts = ["Hello world", "this is a voice", "it is in the world"]
    expected = [demo.synthesize(text, seed=5, max_frames=8) for text in texts]
    together = threading.Barrier(len(texts), timeout=60)

    def speak(number: int):
        together.wait()
        stream = demo.stream(texts[number], seed=5, max_frames=8, chunk_frames=(4,))
        first = next(stream)
        together.wait()
        return [first, *stream]

    with ThreadPoolExecutor(len(texts)) as pool:
        for chunks, alone in zip(pool.map(speak, range(len(texts))), expected, strict=True):
            np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), alone.codes)
            np.testing.assert_array_equal(np.concatenate([chunk.audio for chunk in chunks]), alone.audio)


def test_waiting_for_text_does_not_block_others(demo):
    """A text source may also use the model itself."""
    asked, answer = threading.Event(), threading.Event()
    text = "Hello, a voice. "
    expected = demo.synthesize(text, seed=6, max_frames=12, non_streaming_mode=False)

    def source():
        yield text[:5]
        demo.synthesize("this", seed=1, max_frames=2)
        asked.set()
        assert answer.wait(30)
        yield text[5:]

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: demo.synthesize(source(), seed=6, max_frames=12))
        assert asked.wait(30)
        assert len(demo.synthesize("Hello", seed=1, max_frames=3).codes) == 3
        assert not waiting.done()
        answer.set()
        np.testing.assert_array_equal(waiting.result().codes, expected.codes)


def test_the_callers_thread_stays_its_own(demo):
    """A text source runs in the caller's thread, whose default stream does not change."""
    before = mx.default_stream(mx.cpu)
    stream = demo.stream("Hello", seed=1, max_frames=9, chunk_frames=(1,))
    next(stream)
    assert mx.default_stream(mx.cpu) == before
    seen = []

    def source():
        for word in ["Hello ", "world"]:
            seen.append((threading.current_thread(), mx.default_stream(mx.cpu)))
            yield word

    demo.synthesize(source(), max_frames=3)
    assert seen == [(threading.current_thread(), before)] * 2
    assert MLX_THREAD.run(threading.current_thread) is not threading.current_thread()


def test_jobs_run_in_the_order_of_submission():
    """A thread that submits again at once does not overtake waiting threads. A job may submit another job."""
    asked, order, free = [0, 1, 2, 0, 0, 2, 1], [], threading.Event()

    def note(number: int):
        MLX_THREAD.run(order.append, number)

    MLX_THREAD.submit(free.wait, 30)
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second, ThreadPoolExecutor(1) as third:
        threads = [first, second, third]
        for number in asked:
            threads[number].submit(MLX_THREAD.submit, note, number).result()
    assert not order
    free.set()
    MLX_THREAD.run(len, "")
    assert order == asked


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_error_reaches_the_caller(kind):
    """This includes an error that would end a thread; the next job runs normally."""

    def fail():
        raise kind

    with pytest.raises(kind):
        MLX_THREAD.run(fail)
    with pytest.raises(kind):
        MLX_THREAD.run(MLX_THREAD.run, fail)
    with pytest.raises(kind):
        MLX_THREAD.submit(fail).result()
    assert elsewhere(lambda: MLX_THREAD.run(len, "abc")) == 3


def test_nothing_of_a_job_outlives_it(demo, monkeypatch):
    """Its arguments and the arrays in an error's frames are freed, also without the garbage collector."""
    begin = active_memory()

    def fail(_argument):
        local = mx.zeros(1 << 20)
        mx.eval(local)
        raise ZeroDivisionError

    def array():
        made = mx.zeros(1 << 20)
        mx.eval(made)
        return made

    def job_fails():
        with pytest.raises(ZeroDivisionError):
            MLX_THREAD.run(fail, MLX_THREAD.run(array))
        MLX_THREAD.submit(fail, MLX_THREAD.run(array))  # its result is never requested

    gc.disable()
    try:
        job_fails()
        MLX_THREAD.run(len, "")
        assert mx.get_active_memory() - begin < 1 << 20
    finally:
        gc.enable()


def test_the_arguments_of_a_job_are_freed_when_it_ends():
    """They are freed even if the caller keeps the job."""

    class Argument:
        pass

    argument = Argument()
    alive = weakref.ref(argument)
    job = MLX_THREAD.submit(id, argument)
    del argument
    job.wait()
    assert alive() is None


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupted_wait(monkeypatch, begun):
    """A job that has not begun is dropped, and one that has begun finishes; other callers are not affected."""
    free, running, done = threading.Event(), threading.Event(), []

    def work():
        running.set()
        assert free.wait(30)
        done.append(1)

    def interrupted(*_):
        assert not begun or running.wait(30)
        raise KeyboardInterrupt

    if not begun:
        MLX_THREAD.submit(free.wait, 30)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(Job, "wait", interrupted)
        MLX_THREAD.run(work)
    free.set()
    assert MLX_THREAD.run(len, "abc") == 3
    assert len(done) == begun


def test_a_thread_that_does_not_start(monkeypatch):
    """At interpreter shutdown (3.12) or with too many threads there is one error, and a later job may succeed."""
    thread = MLXThread()

    def refuse(_self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(GenerationError, match=r"cannot be started \(can't start new thread\): load the model"):
            thread.run(len, "abc")
    assert thread.run(len, "abc") == 3


@pytest.mark.parametrize("started", [False, True])
def test_an_interrupted_start(monkeypatch, started):
    """After Ctrl-C before or after the thread has begun, the next job does not hang, and one thread runs all jobs."""
    thread, start = MLXThread(), threading.Thread.start

    def interrupted(self):
        if started:
            start(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            thread.run(len, "abc")
    assert thread.run(threading.current_thread) is thread.run(threading.current_thread)


def test_first_jobs_of_many_threads_share_one_thread():
    thread, together = MLXThread(), threading.Barrier(8)

    def first(_):
        together.wait()
        return thread.run(threading.get_ident)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(first, range(8)))) == 1


def test_the_device_is_fixed_when_a_model_is_loaded(directory, monkeypatch):
    """A later default, or a default of another thread at that moment, does not change it."""
    tts = Qwen3TTS.from_pretrained(directory)
    voice = tts.clone_voice(sounds.SOUNDS["speech"])
    expected = tts.synthesize("Hello", voice=voice, seed=1, max_frames=3).codes
    devices, stream = [], mx.stream

    def noted(device):
        devices.append(device)
        return stream(mx.cpu)

    monkeypatch.setattr(mlx_thread.mx, "stream", noted)
    monkeypatch.setattr(mlx_thread.mx, "default_device", lambda: mx.Device(mx.gpu))
    np.testing.assert_array_equal(tts.synthesize("Hello", voice=voice, seed=1, max_frames=3).codes, expected)
    tts.clone_voice(sounds.SOUNDS["speech"], "hello this voice")
    assert set(map(str, devices)) == {"Device(cpu, 0)"}
    worker = Worker()
    assert str(worker.device) == "Device(gpu, 0)", "a model that is loaded now uses the new one"
    monkeypatch.setattr(mlx_thread.mx, "default_device", lambda: mx.Device(mx.cpu))
    worker.run(len, "")
    assert str(devices[-1]) == "Device(gpu, 0)"


def test_the_default_device_is_left_alone_if_it_is_the_models(monkeypatch):
    """A device context that overlaps another thread's would leave the wrong default for the whole process."""

    def refuse(device):
        raise AssertionError(device)

    worker = Worker()
    monkeypatch.setattr(mlx_thread.mx, "stream", refuse)
    assert worker.run(len, "abc") == 3


def test_from_pools_and_event_loops(demo):
    """This includes a running loop, as in Jupyter: the call blocks the loop but nothing else."""
    expected = demo.synthesize("Hello", seed=1, max_frames=3).codes

    def speak(_=None):
        return demo.synthesize("Hello", seed=1, max_frames=3).codes

    async def main():
        inside = speak()
        loop = asyncio.get_running_loop()
        return [inside, *await asyncio.gather(*(loop.run_in_executor(None, speak) for _ in range(3)))]

    with ThreadPoolExecutor(4) as pool:
        made = [*pool.map(speak, range(4)), *asyncio.run(main())]
    assert len(made) == 8
    for codes in made:
        np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize("place", ["here", "elsewhere", "on the MLX thread"])
def test_the_garbage_collector_closes_a_stream(demo, place):
    """In whichever thread it runs, closing does not block, and the request ends."""
    list(demo.stream("Hello", seed=1, max_frames=4, chunk_frames=(1,)))  # compiles
    begin = active_memory()
    stream = demo.stream("Hello", seed=1, chunk_frames=(1,))
    next(stream)
    assert mx.get_active_memory() > begin
    cycle = [stream]
    cycle.append(cycle)
    gc.disable()
    del stream, cycle
    collect = {"here": gc.collect, "elsewhere": lambda: elsewhere(gc.collect)}
    collect.get(place, lambda: on_mlx_thread(demo, gc.collect))()
    gc.enable()
    MLX_THREAD.run(mx.synchronize)
    assert mx.get_active_memory() == begin


def test_unload(directory):
    """It frees the memory; any further use raises an error that says what to do; a second call does nothing."""
    before = active_memory()
    tts = Qwen3TTS.from_pretrained(directory)
    voice = tts.clone_voice(sounds.SOUNDS["speech"], "hello this voice")
    tts.synthesize("Hello", voice=voice, seed=1, max_frames=4)
    stream = tts.stream("Hello", voice=voice, seed=1, chunk_frames=(1,))
    next(stream)
    codec = tts.codec
    loaded = active_memory() - before
    tts.unload()
    tts.unload()
    uses = (
        lambda: next(stream), lambda: tts.synthesize("Hello", voice=voice), lambda: tts.stream("Hello", voice=voice),
        lambda: tts.clone_voice(sounds.SOUNDS["speech"]), lambda: tts.codec.decode(np.zeros((1, 16), int)),
        lambda: tts.sample_rate, lambda: tts.talker,
    )  # fmt: skip
    for use in uses:
        with pytest.raises(RequestError, match=r"was unloaded: load it again"):
            use()
    with pytest.raises(AttributeError, match="nonsense"):
        tts.nonsense  # noqa: B018
    del codec
    assert active_memory() - before < 0.01 * loaded
    again = Qwen3TTS.from_pretrained(directory)
    again.synthesize("Hello", voice=voice, max_frames=2)
    again.unload()
    assert MLX_THREAD.run(mx.get_active_memory) - before < 0.01 * loaded, "freed at once, without a garbage collection"
    assert mx.get_cache_memory() == 0


@pytest.mark.parametrize("failing", [1, 3], ids=["in a chunk", "in a frame generated ahead"])
def test_an_error_in_a_request_frees_its_memory(directory, monkeypatch, failing):
    """It does so without the garbage collector, as soon as the caller has handled the error."""
    tts = Qwen3TTS.from_pretrained(directory)
    voice = tts.clone_voice(sounds.SOUNDS["speech"])
    step, calls = FrameFunctions.step, []

    def speak():
        return list(tts.stream("Hello", voice=voice, seed=1, max_frames=9, chunk_frames=(1,)))

    def fail(functions, embedding, *args):
        calls.append(embedding.shape)
        if len(calls) == failing:
            raise ZeroDivisionError
        return step(functions, embedding, *args)

    speak()
    monkeypatch.setattr(FrameFunctions, "step", fail)
    begin = active_memory()
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            speak()
        MLX_THREAD.run(mx.synchronize)
        assert mx.get_active_memory() - begin < 10000
    finally:
        gc.enable()
