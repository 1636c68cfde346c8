"""The same seed gives the same samples: in other processes, after requests that went wrong, with others between."""

import subprocess

import numpy as np
import pytest

from conftest import spawn
from mlx_qwen3_tts import RequestError
from mlx_qwen3_tts.audio.write import pcm16, wav_header

TEXT = "Hello world, this is a voice."


def test_across_processes(demo):
    """Two processes of their own write, byte for byte, what this one makes."""
    command = spawn("say", TEXT, "--model", "demo-random", "--voice", "ben", "--seed", 5, "--max-frames", 8, "-o", "-")
    runs = [subprocess.run(command, capture_output=True).stdout for _ in range(2)]
    here = demo.synthesize(TEXT, voice="ben", seed=5, max_frames=8)
    chunks = list(demo.stream(TEXT, voice="ben", seed=5, max_frames=8))
    assert runs[0] == runs[1] == wav_header(24000, None) + b"".join(pcm16(chunk.audio) for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), here.codes)


def test_after_requests_that_went_wrong(demo):
    """Cancelled at the first chunk, refused, and broken in the middle."""
    expected = demo.synthesize(TEXT, seed=6, max_frames=8)

    def broken():
        yield "Hello world, this "
        raise OSError

    for _ in range(3):
        stream = demo.stream("this is it", seed=1)
        next(stream)
        stream.close()
        with pytest.raises(RequestError):
            demo.synthesize("Hello", voice="nobody")
        with pytest.raises(OSError):
            demo.synthesize(broken(), max_frames=20)
        again = demo.synthesize(TEXT, seed=6, max_frames=8)
        np.testing.assert_array_equal(again.codes, expected.codes)
        np.testing.assert_array_equal(again.audio, expected.audio)


def test_requests_between_each_other(demo):
    """Four streams of other seeds, texts and options, chunk by chunk in turn, are what each is alone."""
    calls = [
        dict(text=TEXT, voice=voice, seed=n, max_frames=8) for n, voice in enumerate(["ada", "ben", "chuan", None])
    ]
    alone = [demo.synthesize(**call) for call in calls]
    streams = [demo.stream(**call, chunk_frames=(n + 1,)) for n, call in enumerate(calls)]
    chunks = [[] for _ in streams]
    while any(list(map(lambda s, c: c.append(next(s, None)) or c[-1], streams, chunks))):
        pass
    for made, one in zip(chunks, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in made if chunk]), one.codes)


def test_any_result_can_be_made_again(demo, run_cli, tmp_path):
    """The seed that was drawn is in the result, in each chunk, and told by the command line."""
    result = demo.synthesize(TEXT, max_frames=6)
    np.testing.assert_array_equal(demo.synthesize(TEXT, seed=result.seed, max_frames=6).codes, result.codes)
    argv = ("say", TEXT, "--model", "demo-random", "--max-frames", 6, "--stats")
    _, _, err = run_cli(*argv, "-o", tmp_path / "a.wav")
    seed = next(line for line in err.splitlines() if ", seed " in line).rpartition(" ")[2]
    run_cli(*argv, "--seed", seed, "-o", tmp_path / "b.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
