"""The same seed gives the same samples: across processes and threads, after failed requests, with interleaved requests,
and while models are replaced.

THREADS=50 makes each thread of the mixed test speak 50 requests.
"""

import itertools
import os
import random
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS, RequestError, Sampling
from mlx_qwen3_tts.audio.formats import pcm16, wav_header
from mlx_qwen3_tts.generation import frames
from mlx_qwen3_tts.mlx_thread import MLX_THREAD
from tests.support import checkpoints, sounds
from tests.support.process import spawn

TEXT = "Hello world, this is a voice."


def test_across_processes(demo):
    """Another process writes byte for byte what this process generates."""
    command = spawn("say", TEXT, "--model", "demo-random", "--voice", "ben", "--seed", 5, "--max-frames", 5, "-o", "-")
    elsewhere = subprocess.run(command, capture_output=True).stdout
    here = demo.synthesize(TEXT, voice="ben", seed=5, max_frames=5)
    chunks = list(demo.stream(TEXT, voice="ben", seed=5, max_frames=5))
    assert elsewhere == wav_header(24000, None) + b"".join(pcm16(chunk.audio) for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), here.codes)


def test_after_failed_requests(demo):
    """Earlier requests were cancelled at the first chunk, refused, or failed halfway."""
    expected = demo.synthesize(TEXT, seed=6, max_frames=4)

    def broken():
        yield "Hello "
        raise OSError

    for _ in range(2):
        stream = demo.stream("this is it", seed=1)
        next(stream)
        stream.close()
        with pytest.raises(RequestError):
            demo.synthesize("Hello", voice="nobody")
        with pytest.raises(OSError):
            demo.synthesize(broken(), max_frames=10, seed=7)  # with other seeds it may end before its text
        again = demo.synthesize(TEXT, seed=6, max_frames=4)
        np.testing.assert_array_equal(again.codes, expected.codes)
        np.testing.assert_array_equal(again.audio, expected.audio)


def test_interleaved_requests(demo):
    """Four streams with different seeds, texts and options, read in turn, give the same results as each alone."""
    calls = [
        dict(text=TEXT, voice=voice, seed=n, max_frames=5) for n, voice in enumerate(["ada", "ben", "chuan", None])
    ]
    alone = [demo.synthesize(**call) for call in calls]
    streams = [demo.stream(**call, chunk_frames=(n + 1,)) for n, call in enumerate(calls)]
    chunks = [[] for _ in streams]
    for round_ in itertools.zip_longest(*streams):  # one chunk of each stream that has not ended
        for made, chunk in zip(chunks, round_, strict=True):
            if chunk is not None:
                made.append(chunk)
    for made, one in zip(chunks, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in made]), one.codes)


def test_any_result_can_be_reproduced(demo, run_cli, monkeypatch, tmp_path):
    """A randomly drawn seed is in the result and in each chunk, and the command line prints it."""
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)
    result = demo.synthesize(TEXT, max_frames=4)
    np.testing.assert_array_equal(demo.synthesize(TEXT, seed=result.seed, max_frames=4).codes, result.codes)
    argv = ("say", TEXT, "--model", "demo-random", "--max-frames", 4, "--stats")
    _, _, err = run_cli(*argv, "-o", tmp_path / "a.wav")
    seed = next(line for line in err.splitlines() if ", seed " in line).rpartition(" ")[2]
    run_cli(*argv, "--seed", seed, "-o", tmp_path / "b.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def seeds_of(directory, seeds, kind="custom_voice"):
    """Write checkpoints of one architecture with different weights."""
    return [checkpoints.write(directory / f"{kind}-{seed}", "projected", kind, seed) for seed in seeds]


@pytest.mark.slow
def test_options_in_two_threads(tmp_path, monkeypatch):
    """More option sets than cached traces give correct codes, each in a worker thread and then in this one.

    mx.compile's cache is per thread. If two threads have called a function, its trace stays in one of the caches after
    the function is dropped, and another function at the same address would use that trace.
    """
    monkeypatch.setattr(frames, "MAX_TRACES", 1)
    tts = Qwen3TTS.from_pretrained(*seeds_of(tmp_path, [1]))
    switches = [(None, None), (None, False), (False, None), (False, False)]
    options = [
        Sampling(do_sample=sample, subtalker_dosample=subtalker, **limits)
        for sample, subtalker in switches
        for limits in [{}, {"top_p": 0.7}, {"subtalker_top_k": 3}]
        if (sample is None or "top_p" not in limits) and (subtalker is None or "subtalker_top_k" not in limits)
    ]

    def speak(sampling, model=tts):
        return model.synthesize("Hello", seed=1, max_frames=4, sampling=sampling).codes

    alone = Qwen3TTS.from_pretrained(*seeds_of(tmp_path, [1]))
    expected = [speak(sampling, alone) for sampling in options]
    with ThreadPoolExecutor(1) as worker:
        for sampling, codes in zip(options, expected, strict=True):
            np.testing.assert_array_equal(worker.submit(speak, sampling).result(), codes)
            np.testing.assert_array_equal(speak(sampling), codes)


@pytest.mark.slow
def test_models_replaced_while_a_thread_lives(tmp_path):
    """Each model uses its own weights, in a worker thread and in this one, and its memory is freed."""
    directories = seeds_of(tmp_path, [1, 2, 3, 4])

    def speak(tts):
        return tts.synthesize("Hello", seed=1, max_frames=4)

    def active() -> int:
        MLX_THREAD.run(mx.synchronize)
        return mx.get_active_memory()

    expected = []
    for directory in directories:
        tts = Qwen3TTS.from_pretrained(directory)
        expected.append(speak(tts))
        tts.unload()
    begin = active()
    with ThreadPoolExecutor(1) as worker:
        for directory, one in zip(directories, expected, strict=True):
            tts = Qwen3TTS.from_pretrained(directory)
            weights = active() - begin
            for made in (worker.submit(speak, tts).result(), speak(tts)):
                np.testing.assert_array_equal(made.codes, one.codes)
                np.testing.assert_array_equal(made.audio, one.audio)
            tts.unload()
            del tts
            assert active() - begin < 0.01 * weights


def mixed_request(rng: random.Random, number: int) -> dict:
    """Return a request of a random kind; "text" is a list if the text is live."""
    words = rng.choices(["Hello", "world", "this", "is", "a", "voice", "and", "it", "in", "the", "你好"], k=6)
    limits = {"top_k": rng.choice([None, 5]), "top_p": rng.choice([None, 0.8])}
    drawn = rng.choice([True, True, False])
    return {
        "kind": rng.choice(["custom_voice", "base", "voice_design"]),
        "streamed": rng.choice([True, False]),
        "text": rng.choice([" ".join(words), [word + " " for word in words]]),
        "seed": number,
        "max_frames": rng.randint(3, 6),
        "sampling": Sampling(
            do_sample=drawn,
            subtalker_dosample=rng.choice([None, False]),
            repetition_penalty=rng.choice([None, 1.3]),
            **(limits if drawn else {}),
        ),
    }


def speak_mixed(tts, request: dict, voice) -> np.ndarray:
    """Return the codes of a mixed request."""
    call = {key: request[key] for key in ("seed", "max_frames", "sampling")}
    call["text"] = request["text"] if isinstance(request["text"], str) else iter(request["text"])
    if request["kind"] == "base":
        call["voice"] = voice
    if request["kind"] == "voice_design":
        call["instruct"] = "a calm voice"
    if not request["streamed"]:
        return tts.synthesize(**call).codes
    return np.concatenate([chunk.codes for chunk in tts.stream(**call, chunk_frames=(1, 2))])


@pytest.mark.slow
def test_mixed_requests_of_eight_threads(tmp_path):
    """They mix modes, options and live texts while the models are replaced repeatedly."""
    count = int(os.environ.get("THREADS", "3"))
    directories = {kind: seeds_of(tmp_path, [1], kind)[0] for kind in ("custom_voice", "base", "voice_design")}
    models = {kind: Qwen3TTS.from_pretrained(directory) for kind, directory in directories.items()}
    voice = models["base"].clone_voice(sounds.SOUNDS["speech"], "hello this voice")
    rng = random.Random(3)
    requests = [[mixed_request(rng, number) for number in range(count)] for _ in range(8)]
    expected = [[speak_mixed(models[call["kind"]], call, voice) for call in calls] for calls in requests]
    finished, swaps, again = threading.Event(), [], []

    def swap():
        while not finished.is_set():
            for kind, directory in directories.items():
                old, models[kind] = models[kind], Qwen3TTS.from_pretrained(directory)
                old.unload()
                swaps.append(kind)
            finished.wait(0.2)

    def speak(call: dict) -> np.ndarray:
        while True:
            try:
                return speak_mixed(models[call["kind"]], call, voice)
            except RequestError as error:
                assert "was unloaded" in str(error)
                again.append(call)

    with ThreadPoolExecutor(9) as pool:
        swapping = pool.submit(swap)
        made = list(pool.map(lambda calls: [speak(call) for call in calls], requests))
        finished.set()
        swapping.result()
    for calls, alone in zip(made, expected, strict=True):
        for codes, one in zip(calls, alone, strict=True):
            np.testing.assert_array_equal(codes, one)
    assert swaps
    print(f"{8 * count} requests, {len(swaps)} models replaced, {len(again)} requests begun again")
