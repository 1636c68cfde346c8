"""Runaways: speech with pauses passes whole; later silence or cycles are cut; the budget; the retry.

RUNAWAYS=300 tries 300 sequences of each kind; the default is 20.
"""

import itertools
import os

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import Qwen3TTS, Request, RequestError
from mlx_qwen3_tts.audio.read import resample
from mlx_qwen3_tts.generation import stream
from mlx_qwen3_tts.generation.runaway import (
    CYCLE_BUFFERED,
    SILENCE_BUFFERED,
    RunawayDetector,
    detector_for,
    frame_budget,
    frames_in_budget,
    retry_seed,
)
from tests.support import checkpoints
from tests.support.golden import SHARED

FRAME, RATE = 1920, 12.5
SEQUENCES = range(int(os.environ.get("RUNAWAYS", "20")))


def sound(rng, frames: int, level: float) -> np.ndarray:
    """Noise with loudness that rises and falls as in syllables, with a floor above silence."""
    time = np.arange(frames * FRAME) / 24000
    shape = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time)
    return (level * shape * rng.standard_normal(len(time))).astype(np.float32)


def recording(rng, parts: list[tuple[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and audio of speech and pauses: ("speech" | "pause" | "hum", seconds). A pause repeats one code."""
    codes, audio = [], []
    for kind, seconds in parts:
        frames = round(seconds * RATE)
        rows = rng.integers(0, 2048, (frames, 16))
        if kind != "speech":
            rows[:, 0] = 7 if kind == "pause" else np.resize([5, 9, 2], frames)
        codes.append(rows)
        audio.append(sound(rng, frames, 0.0004 if kind == "pause" else 0.08))
    return np.concatenate(codes).astype(np.int32), np.concatenate(audio)


def pass_through(codes, audio, sizes, over=None):
    """Push frames in chunks of these sizes; return the emitted codes and audio, and the finish reason."""
    detector, out, at = RunawayDetector(), [], 0
    sizes = itertools.chain(sizes, itertools.repeat(sizes[-1]))
    ran_away = False
    while at < len(codes) and not ran_away:
        size = min(next(sizes), len(codes) - at)
        chunk = slice(at, at + size)
        flags = [True] * size if over is None else over[chunk]
        at += size
        samples = audio[chunk.start * FRAME : at * FRAME]
        *emitted, ran_away = detector.push(codes[chunk], samples, flags, last=at == len(codes))
        out.append(emitted)
    reason = "runaway" if ran_away else "stop"
    return np.concatenate([c for c, _ in out]), np.concatenate([a for _, a in out]), reason


@pytest.mark.parametrize("seed", SEQUENCES)
def test_speech_with_pauses_passes_whole(seed):
    """Pauses of up to 3 s with a constant code, at both ends and inside, and quiet passages pass in any chunks."""
    rng = np.random.default_rng(seed)
    parts = [("pause", rng.uniform(0, 3))]
    for _ in range(8):
        parts += [("speech", rng.uniform(0.3, 6)), ("pause", rng.uniform(0.1, 3))]
    codes, audio = recording(rng, parts)
    audio *= rng.uniform(0.1, 1)
    for sizes in ([1], [1, 1, 2, 4, 8], [37]):
        passed, heard, reason = pass_through(codes, audio, sizes)
        assert reason == "stop"
        np.testing.assert_array_equal(passed, codes)
        np.testing.assert_array_equal(heard, audio)


@pytest.mark.parametrize("level", [0.08, 0.004, 0.002, 0.001])
def test_speech_that_is_quiet_throughout_passes_whole(level):
    codes, _ = recording(np.random.default_rng(0), [("speech", 20)])
    audio = sound(np.random.default_rng(1), len(codes), level)
    passed, _, reason = pass_through(codes, audio, [4])
    assert (len(passed), reason) == (len(codes), "stop")


@pytest.mark.parametrize("seed", SEQUENCES)
@pytest.mark.parametrize("kind, kept", [("pause", SILENCE_BUFFERED), ("hum", CYCLE_BUFFERED)])
def test_a_runaway_is_cut(seed, kind, kept):
    """Half a minute of near-silence or of one short cycle after the speech are cut soon after it."""
    rng = np.random.default_rng(seed)
    spoken, speech = recording(rng, [("speech", rng.uniform(1, 5)), ("pause", 2), ("speech", rng.uniform(1, 5))])
    endless, silence = recording(rng, [(kind, 30)])
    codes, audio = np.concatenate([spoken, endless]), np.concatenate([speech, silence])
    results = [pass_through(codes, audio, sizes) for sizes in ([1], [1, 1, 2, 4, 8], [37])]
    for passed, heard, reason in results:
        assert reason == "runaway"
        assert len(spoken) < len(passed) <= len(spoken) + kept + 2  # a cycle is detected after one period
        assert len(heard) == len(passed) * FRAME
        np.testing.assert_array_equal(passed, results[0][0])
        np.testing.assert_array_equal(passed, codes[: len(passed)])


@pytest.mark.parametrize("path", sorted((SHARED / "audio").glob("*.wav")) or [None])
def test_recorded_speech_passes_whole(path):
    """It passes unchanged, and also with 2.96 s of silence inserted in its middle."""
    if path is None:
        pytest.skip("there are no recordings here")
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = resample(audio.mean(axis=1), rate, 24000)
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)
    for pause in (0, 37):
        heard = np.insert(frames, [len(frames) // 2] * pause, 0, axis=0)
        codes = np.random.default_rng(0).integers(0, 2048, (len(heard), 16))
        passed, _, reason = pass_through(codes, heard.reshape(-1), [8])
        assert (len(passed), reason) == (len(heard), "stop")


def test_no_runaway_before_the_text_is_over():
    codes, audio = recording(np.random.default_rng(0), [("speech", 2), ("pause", 20), ("speech", 2)])
    over = [False] * (len(codes) - 30) + [True] * 30
    passed, _, reason = pass_through(codes, audio, [8], over)
    assert (len(passed), reason) == (len(codes), "stop")


def test_a_second_of_silence_is_not_held_back():
    """Playback does not wait during an ordinary pause."""
    codes, audio = recording(np.random.default_rng(0), [("speech", 2), ("pause", 0.96), ("speech", 1)])
    detector = RunawayDetector()
    for i in range(len(codes)):
        given, _, _ = detector.push(codes[i : i + 1], audio[i * FRAME : (i + 1) * FRAME], [True])
        assert len(given) == 1, i


def test_buffered_silence_is_emitted_if_the_speech_ends_by_itself():
    codes, audio = recording(np.random.default_rng(0), [("speech", 2), ("pause", 3.5)])
    passed, heard, reason = pass_through(codes, audio, [1])
    assert (len(passed), len(heard), reason) == (len(codes), len(audio), "stop")


def emitted_frames(levels: list[float], code0: list[int], detector: RunawayDetector | None = None) -> list[int]:
    """Push frames of steady loudness one by one; return how many each push emits, up to the end of the speech."""
    detector = detector or RunawayDetector()
    counts = []
    for level, code in zip(levels, code0, strict=True):
        row = np.arange(16)  # only codebook 0 may repeat
        row = np.where(row == 0, code, len(counts) + row)[None]
        codes, audio, ran_away = detector.push(row, np.full(4, level, np.float32), [True])
        assert len(audio) == 4 * len(codes)
        counts.append(len(codes))
        if ran_away:
            break
    return counts


def ids_without_cycles(count: int) -> list[int]:
    return list(range(count))


@pytest.mark.parametrize("loudest, level, is_silent", [
    (0.5, 0.0049, True), (0.5, 0.0051, False),  # 40 dB below the loudest frame
    (0.0, 0.00029, True), (0.0, 0.00031, False), (0.01, 0.00029, True), (0.01, 0.00031, False),  # -70 dB of full scale
])  # fmt: skip
def test_what_is_silent(loudest, level, is_silent):
    """The first second passes; 4 s end the speech. The loudest frame may be the first one."""
    counts = emitted_frames([loudest] + [level] * 99, ids_without_cycles(100))
    if is_silent:
        begin = int(loudest > 0)  # the first frame is silent, too, if there is no sound
        assert counts == [1] * (begin + 12) + [0] * 38
    else:
        assert counts[-90:] == [1] * 90


def test_silence_of_almost_four_seconds_is_a_pause():
    """It lasts 49 frames, and is emitted with the sound that follows."""
    assert emitted_frames([0.5] + [0.0] * 49 + [0.5] * 2, ids_without_cycles(52)) == [1] * 13 + [0] * 37 + [38, 1]


@pytest.mark.parametrize("beginning", [[], [100, 101, 102]])
@pytest.mark.parametrize("period", [1, 2, 8])
def test_what_is_a_cycle(period, beginning):
    """Ids that repeat up to eight frames later for 3 s are held back, and end the speech after 8 s."""
    ids = beginning + [number % period for number in range(200)]
    counts = emitted_frames([0.5] * len(ids), ids)
    assert counts == [1] * (len(beginning) + period + 37) + [0] * 63
    ids = ids[: len(counts) - 1] + [200, 201]
    assert emitted_frames([0.5] * len(ids), ids)[-3:] == [0, 63, 1], "the cycle ends in time: all of it is emitted"


def test_the_end_without_a_frame():
    """The model may end its speech right after a chunk: what is held back is a pause at the end."""
    detector = RunawayDetector()
    assert emitted_frames([0.0] * 20, ids_without_cycles(20), detector) == [1] * 12 + [0] * 8
    codes, audio, ran_away = detector.push(np.zeros((0, 16)), np.zeros(0, np.float32), [], last=True)
    assert (len(codes), len(audio), ran_away) == (8, 32, False)


def test_nine_frames_that_repeat_are_not_a_cycle():
    assert emitted_frames([0.5] * 200, [number % 9 for number in range(200)]) == [1] * 200


def test_the_detector_of_a_request():
    """max_silence is in seconds of 12.5 frames."""
    assert detector_for(Request("Hello", stop_runaway=False)) is None
    for seconds, frames in ((None, 50), (2, 25), (4.1, 51)):
        detector = detector_for(Request("Hello", max_silence=seconds))
        assert len(emitted_frames([0.0] * 100, ids_without_cycles(100), detector)) == frames


@pytest.fixture(scope="module")
def endless(tmp_path_factory) -> Qwen3TTS:
    """A checkpoint that never ends."""
    return Qwen3TTS.from_pretrained(checkpoints.write(tmp_path_factory.mktemp("endless") / "c", "projected"))


def silence(tts, monkeypatch, after: int, frames: int | None = None) -> None:
    """Silence the codec's output after `after` frames, for `frames` frames or forever."""
    decode, samples = type(tts.codec).decode_async, tts.codec.samples_per_frame

    def quiet(codec, codes, state=None):
        at, state = state or (0, None)
        audio, state = decode(codec, codes, state)
        numbers = at + np.arange(len(codes))
        gain = np.where((numbers >= after) & (numbers < after + (frames or 10**9)), 0.0, 1.0)
        return lambda: (audio() * np.repeat(gain, samples)).astype(np.float32), (at + len(codes), state)

    monkeypatch.setattr(type(tts.codec), "decode_async", quiet)


@pytest.mark.parametrize("layout", [True, False])
def test_a_model_without_end(endless, monkeypatch, layout):
    """A model without EOS that is silent after 12 frames ends with a second of silence, streamed and whole."""
    silence(endless, monkeypatch, 12)
    call = dict(seed=3, non_streaming_mode=layout, max_silence=2)
    whole = endless.synthesize("Hello world", **call)
    assert whole.finish_reason == "runaway"
    assert len(whole.codes) == 12 + SILENCE_BUFFERED - 1
    assert len(whole.audio) == len(whole.codes) * endless.codec.samples_per_frame
    chunks = list(endless.stream("Hello world", **call))
    assert chunks[-1].is_final
    assert chunks[-1].finish_reason == "runaway"
    assert {chunk.finish_reason for chunk in chunks[:-1]} == {None}
    np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), whole.codes)
    np.testing.assert_allclose(np.concatenate([chunk.audio for chunk in chunks]), whole.audio, atol=1e-5)


def test_live_text_runs_away_at_the_same_frame_as_the_whole_text(endless, monkeypatch):
    silence(endless, monkeypatch, 5)
    text = "Hello world, this is a voice. "
    whole = endless.synthesize(text, seed=3, non_streaming_mode=False, max_silence=2)
    pieces = (text[i : i + 5] for i in range(0, len(text), 5))
    live = endless.synthesize(pieces, seed=3, max_silence=2)
    assert live.finish_reason == whole.finish_reason == "runaway"
    np.testing.assert_array_equal(live.codes, whole.codes)


def test_a_pause_of_the_model_is_kept(endless, monkeypatch):
    silence(endless, monkeypatch, 5, 37)
    result = endless.synthesize("Hello", seed=3, max_frames=45)
    assert (result.finish_reason, len(result.codes)) == ("length", 45)


def test_max_silence(endless, monkeypatch):
    """A pause of 4.4 s is kept if max_silence is 5 s, and ends the speech by default."""
    silence(endless, monkeypatch, 5, 55)
    longer = endless.synthesize("Hello", seed=3, max_frames=62, max_silence=5)
    assert (longer.finish_reason, len(longer.codes)) == ("length", 62)
    default = endless.synthesize("Hello", seed=3, max_frames=62)
    assert (default.finish_reason, len(default.codes)) == ("runaway", 5 + SILENCE_BUFFERED - 1)


def test_switched_off(endless, monkeypatch):
    silence(endless, monkeypatch, 5)
    result = endless.synthesize("Hello", seed=3, max_frames=60, stop_runaway=False)
    assert (result.finish_reason, len(result.codes)) == ("length", 60)


@pytest.mark.slow
def test_one_retry_with_a_derived_seed(endless, monkeypatch, spy):
    """If no seed was given, the second attempt equals a request with its seed, which is in the result."""
    silence(endless, monkeypatch, 2)
    monkeypatch.setattr("secrets.randbits", lambda bits: 41)
    limit = {"max_silence": 2}
    calls = spy(stream, "stream_chunks")

    def seeds() -> list[int | None]:
        return [request.seed for _, (_, request, _) in calls]

    for text in ("Hello world", ["Hello", " world"], iter(["Hello", " world"])):
        calls.clear()
        result = endless.synthesize(text, **limit)
        assert seeds() == [None, retry_seed(41)], "one retry, not two"
        assert result.seed == retry_seed(41) != 41
        layout = isinstance(text, str)
        again = endless.synthesize("Hello world", seed=result.seed, non_streaming_mode=layout, **limit)
        np.testing.assert_array_equal(again.codes, result.codes)
    calls.clear()
    assert endless.synthesize("Hello", seed=41, **limit).finish_reason == "runaway"
    assert seeds() == [41]
    assert len({chunk.seed for chunk in endless.stream("Hello", **limit)}) == 1


def test_the_command_line_reports_a_runaway_and_retries(run_cli, checkpoint, tmp_path, monkeypatch):
    """It retries if it writes a file without a given seed; with a seed or into a pipe it only reports the runaway."""
    silence(Qwen3TTS.from_pretrained(checkpoint), monkeypatch, 2)
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)
    argv = ("say", "Hello", "--model", checkpoint, "--temperature", 0.9, "--max-silence", 2)
    monkeypatch.setattr("secrets.randbits", lambda bits: 41)
    code, _, err = run_cli(*argv, "-o", tmp_path / "a.wav")
    assert code == 0
    assert f"generating it once more, with seed {retry_seed(41)}" in err
    assert "it ran on after its text" in err.splitlines()[-1]
    assert err.rstrip().endswith(f"seed {retry_seed(41)}")
    assert soundfile.info(tmp_path / "a.wav").frames == (2 + SILENCE_BUFFERED - 1) * 64
    run_cli(*argv, "--seed", retry_seed(41), "-o", tmp_path / "b.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    code, _, err = run_cli(*argv, "--seed", 41, "-o", tmp_path / "c.wav")
    assert (code, "once more" in err, "it ran on" in err) == (0, False, True)
    code, _, err = run_cli(*argv, "--frames-per-token", 0.1, "--max-frames", 3, "-o", tmp_path / "d.wav")
    assert code == 1
    assert "no effect if --max-frames is given" in err


@pytest.mark.parametrize("text", ["Hello", "1234567890", "你好，世界。", "...!?", "a" * 20])
@pytest.mark.parametrize("layout", [True, False])
def test_budget(endless, monkeypatch, text, layout):
    """A text's tokens limit its frames, equally in both layouts."""
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 10)
    tokens = len(endless.engine.tokenizer.encode(text))
    result = endless.synthesize(text, seed=1, frames_per_token=0.5, non_streaming_mode=layout)
    assert result.finish_reason == "length"
    assert frame_budget(tokens, 0.5) <= len(result.codes) <= frame_budget(tokens + 2, 0.5)


def test_budget_of_live_text(endless, monkeypatch):
    """It equals that of the whole text, however the text is cut."""
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 10)
    text = "Hello world, this is a voice. "
    whole = endless.synthesize(text, seed=1, frames_per_token=1, non_streaming_mode=False)
    live = endless.synthesize((character for character in text), seed=1, frames_per_token=1)
    np.testing.assert_array_equal(live.codes, whole.codes)


def test_a_budget_below_the_length_of_live_text(endless, monkeypatch):
    """It applies once all of the text has been fed, for chunks of any size."""
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 5)
    call = dict(seed=1, frames_per_token=0.1, non_streaming_mode=False)
    text = "Hello world."
    whole = endless.synthesize(text, **call)
    assert whole.finish_reason == "length"
    assert len(whole.codes) == len(endless.engine.tokenizer.encode(text)) > frame_budget(8, 0.1)
    for sizes in ((1,), (3,), (50,)):
        chunks = list(endless.stream(text, chunk_frames=sizes, **call))
        np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), whole.codes)
        assert chunks[-1].finish_reason == "length"


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e308, "12", True])
def test_invalid_budgets(endless, value):
    with pytest.raises(RequestError, match="frames_per_token"):
        endless.synthesize("Hello", frames_per_token=value)


def test_conflicting_limits(endless):
    for options in ({"max_frames": 5}, {"stop_runaway": False}):
        with pytest.raises(RequestError, match="no effect"):
            endless.synthesize("Hello", frames_per_token=3, **options)
    with pytest.raises(RequestError, match="stop_runaway"):
        endless.synthesize("Hello", stop_runaway=1)


def test_the_budget_in_frames():
    """20 s and 12 frames a token, unless another number is asked for; it counts once all of the text was taken."""
    assert [frame_budget(0), frame_budget(10), frame_budget(3, 0.5)] == [250, 370, 252]
    request = Request("Hello")
    assert frames_in_budget(request, 10, 365, [True] * 10) == 5
    assert frames_in_budget(request, 10, 370, [True] * 3) == 0
    assert frames_in_budget(request, 10, 369, [False, False, True]) == 2
    assert frames_in_budget(Request("Hello", frames_per_token=2), 10, 265, [True] * 10) == 5
    for unlimited in (Request("Hello", max_frames=5), Request("Hello", stop_runaway=False)):
        assert frames_in_budget(unlimited, 10, 500, [True] * 3) == 3


def test_the_seed_of_the_second_attempt():
    """Another one, of 32 bits, which never changes, so that results can be repeated."""
    assert [retry_seed(0), retry_seed(2**32 - 1)] == [2654435769, 2654435768]


def test_speech_takes_far_fewer_frames_than_its_budget():
    """It takes less than half of what its tokens add to the budget, without the spare frames."""
    tts = Qwen3TTS.from_pretrained("demo")
    text = "It is twenty past seven."
    result = tts.synthesize(text, seed=1, stop_runaway=False, max_frames=200)
    assert result.finish_reason == "stop"
    assert 2 * len(result.codes) < frame_budget(len(tts.engine.tokenizer.encode(text))) - frame_budget(0)
