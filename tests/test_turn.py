"""Threads: one model in several of them, whoever loaded it; and a model that is let go."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

import checkpoints
import sounds
from mlx_qwen3_tts import Qwen3TTS, RequestError
from mlx_qwen3_tts.turn import Turn


def elsewhere(work):
    """What `work` returns or raises in a thread of its own, which has ended then."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    kinds = ("custom_voice", "base")
    return {kind: checkpoints.write(tmp_path_factory.mktemp("turn") / kind, "projected", kind) for kind in kinds}


def test_loaded_in_one_thread_used_in_others(directories):
    """Also what waits on disk for its first use (the encoders), and the compiled frame."""
    tts = elsewhere(lambda: Qwen3TTS.from_pretrained(directories["base"]))
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


def test_an_interrupted_wait_takes_nothing_from_the_other(monkeypatch):
    """Ctrl-C while the turn that was given away is waited for again: it is still the other thread's."""
    turn, taken, release = Turn(), threading.Event(), threading.Event()

    def hold():
        with turn:
            taken.set()
            release.wait()
            assert turn._owner == threading.get_ident()

    def interrupted(*_):
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch, turn, turn.paused():
            held = pool.submit(hold)
            taken.wait()
            patch.setattr(turn._changed, "wait_for", interrupted)
        release.set()
        held.result()
    with turn:
        assert turn._depth == 1
    assert (turn._owner, turn._depth) == (None, 0)


def test_a_stream_changes_hands(demo):
    expected = demo.synthesize("Hello world", seed=4, max_frames=12).codes
    stream = elsewhere(lambda: demo.stream("Hello world", seed=4, max_frames=12, chunk_frames=(1,)))
    chunks = [next(stream), elsewhere(lambda: next(stream)), *elsewhere(lambda: list(stream))]
    np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), expected)


def test_two_threads_at_once(demo):
    """Each gets what it would get alone, and neither waits for the other's end."""
    texts = ["Hello world", "this is a voice", "it is in the world"]
    expected = [demo.synthesize(text, seed=5, max_frames=24) for text in texts]
    order, together = [], threading.Barrier(len(texts))

    def speak(number: int):
        together.wait()
        chunks = []
        for chunk in demo.stream(texts[number], seed=5, max_frames=24, chunk_frames=(8,)):
            order.append(number)
            chunks.append(chunk)
        return chunks

    with ThreadPoolExecutor(len(texts)) as pool:
        for chunks, alone in zip(pool.map(speak, range(len(texts))), expected, strict=True):
            np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), alone.codes)
            np.testing.assert_array_equal(np.concatenate([chunk.audio for chunk in chunks]), alone.audio)
    assert {0, 1, 2} == set(order[:7]), "they advance side by side"


def test_a_text_that_is_waited_for_holds_nobody_up(demo):
    """And the source of a text may use the model itself."""
    asked, answer = threading.Event(), threading.Event()
    text = "Hello world, this is a voice. "
    expected = demo.synthesize(text, seed=6, max_frames=20, non_streaming_mode=False)

    def source():
        yield text[:14]
        demo.synthesize("this", seed=1, max_frames=2)
        asked.set()
        assert answer.wait(30)
        yield text[14:]

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: demo.synthesize(source(), seed=6, max_frames=20))
        assert asked.wait(30)
        assert len(demo.synthesize("Hello", seed=1, max_frames=3).codes) == 3
        assert not waiting.done()
        answer.set()
        np.testing.assert_array_equal(waiting.result().codes, expected.codes)


def test_turns_come_in_the_order_of_asking():
    """A thread that asks again at once does not overtake those that wait."""
    turn, order = Turn(), []

    def work(number: int):
        for _ in range(5):
            with turn, turn:  # its holder may take it again
                order.append(number)
                time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    middle = order[3:12]
    assert all(len(set(middle[i : i + 3])) == 3 for i in range(len(middle) - 2)), order


def test_an_error_gives_the_turn_back():
    turn = Turn()
    with pytest.raises(ZeroDivisionError), turn:
        1 / 0  # noqa: B018
    with pytest.raises(ZeroDivisionError), turn, turn.paused():
        1 / 0  # noqa: B018
    assert elsewhere(lambda: turn.__enter__() is None)


def test_the_thread_keeps_its_own_stream(demo):
    before = mx.default_stream(mx.cpu)
    stream = demo.stream("Hello", seed=1, max_frames=9, chunk_frames=(1,))
    next(stream)
    assert mx.default_stream(mx.cpu) == before
    seen = []
    demo.synthesize((seen.append(mx.default_stream(mx.cpu)) or word for word in ["Hello ", "world"]), max_frames=3)
    assert seen == [before, before]


def test_unload(directories):
    """The memory is free again; each further use says what to do; to unload again does nothing."""
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    tts = Qwen3TTS.from_pretrained(directories["base"])
    voice = tts.clone_voice(sounds.SOUNDS["speech"], "hello this voice")
    tts.synthesize("Hello", voice=voice, seed=1, max_frames=4)
    stream = tts.stream("Hello", voice=voice, seed=1, chunk_frames=(1,))
    next(stream)
    loaded = mx.get_active_memory() - before
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
    gc.collect()
    assert mx.get_active_memory() - before < 0.01 * loaded
    again = Qwen3TTS.from_pretrained(directories["base"])
    again.synthesize("Hello", voice=voice, max_frames=2)
    again.unload()
    assert mx.get_active_memory() - before < 0.01 * loaded, "at once, without a garbage collection"
    assert mx.get_cache_memory() == 0
