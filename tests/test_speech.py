"""One speech by itself: frames to chunks, with a codec that only counts."""

import weakref
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest

from mlx_qwen3_tts import GenerationError, Request, VoiceClonePrompt
from mlx_qwen3_tts.generation.prompt import Prompt
from mlx_qwen3_tts.generation.speech import NeedsText, ResolvedRequest, Speech
from mlx_qwen3_tts.generation.timer import Clock
from mlx_qwen3_tts.result import AudioChunk
from mlx_qwen3_tts.text.feed import TextFeed

PROMPT = 5  # positions


class CountingCodec:
    """Its samples are the numbers of the frames, ten a frame; its state is the number of frames so far."""

    num_quantizers = 16
    samples_per_frame = 10
    sample_rate = 125

    def __init__(self):
        self.primed = []

    def decode_async(self, codes, state):
        start = state or 0
        numbers = np.arange(start + 1, start + 1 + len(codes))
        return lambda: np.repeat(numbers, 10).astype(np.float32), start + len(codes)

    def prime(self, codes, state):
        self.primed.append((len(codes), state))
        return (state or 0) + len(codes)


class Trial:
    """A speech that is pushed frames."""

    def __init__(self, *, sizes=(1, 2), batches=((1, 2, 3),), max_new_tokens=100, context=1000, **options):
        self.codec = CountingCodec()
        engine = SimpleNamespace(
            codec=self.codec,
            generation_config=SimpleNamespace(max_new_tokens=max_new_tokens),
            config=SimpleNamespace(talker_config=SimpleNamespace(max_position_embeddings=context)),
            prefill=self.prefill,
        )
        request = Request("Hello", **{"stop_runaway": False, **options})
        self.feed = TextFeed(iter(map(list, batches)), end=8, pad=9)
        prompt = Prompt(np.zeros(PROMPT, np.int32), np.zeros((PROMPT, 16), np.int32), self.feed, 0)
        self.outbox: SimpleQueue = SimpleQueue()
        resolved = ResolvedRequest(request, None, 7, prompt)
        self.speech = Speech(engine, resolved, prompt, sizes, self.outbox, Clock())

    def prefill(self, prompt, seed):
        yield
        return (prompt, seed)

    def begin(self) -> "Trial":
        self.feed.require_all()
        self.feed.begin_speech()
        self.speech.new_row()
        return self

    def frame(self, outcome="frame") -> bool:
        """Push a frame, as the scheduler does; return whether a chunk is complete."""
        row = self.speech.row
        if isinstance(outcome, str):
            row.frames += 1
            row.stepped = False
            outcome = np.full(16, row.frames, np.int32)
            self.feed.take(int(self.feed.ready))
        return self.speech.push(outcome)

    def chunk(self) -> AudioChunk:
        """Decode the chunk that is complete, and take it from the outbox."""
        self.speech.finish_chunk(self.speech.begin_chunk())
        owner, message = self.outbox.get_nowait()
        assert owner is self.speech
        return message


def test_frames_become_chunks():
    """Of the sizes asked for, the last of which repeats; each has the sums so far."""
    trial = Trial().begin()
    for size, so_far in ((1, 1), (2, 3), (2, 5)):
        assert [trial.frame() for _ in range(size)] == [False] * (size - 1) + [True]
        chunk = trial.chunk()
        numbers = np.arange(so_far - size + 1, so_far + 1)
        np.testing.assert_array_equal(chunk.codes, np.repeat(numbers[:, None], 16, axis=1))
        np.testing.assert_array_equal(chunk.audio, np.repeat(numbers, 10))
        assert (chunk.timing.frames, chunk.timing.audio_seconds) == (so_far, so_far * 0.08)
        assert (chunk.is_final, chunk.finish_reason, chunk.text_ran_dry) == (False, None, False)
        assert (chunk.sample_rate, chunk.seed) == (125, 7)
        assert 0 < chunk.timing.first_audio <= chunk.timing.total
    assert not trial.speech.is_complete
    assert not trial.speech.ended


def test_the_model_ends_the_speech():
    """The last chunk has the frames that were collected, if any."""
    for frames in (0, 1):
        trial = Trial(sizes=(2,)).begin()
        for _ in range(frames):
            assert not trial.frame()
        assert trial.frame(None)
        chunk = trial.chunk()
        assert (len(chunk.codes), chunk.is_final, chunk.finish_reason) == (frames, True, "stop")
        assert trial.speech.is_complete
        assert trial.speech.ended


@pytest.mark.parametrize(
    "options", [{"max_frames": 3}, {"max_new_tokens": 4}, {"context": PROMPT + 3}, {"max_frames": 9, "context": 8}]
)
def test_limits(options):
    """max_frames, or what the checkpoint allows: one less than the official number; the context bounds both."""
    trial = Trial(sizes=(9,), **options).begin()
    assert [trial.frame() for _ in range(3)] == [False, False, True]
    chunk = trial.chunk()
    assert (len(chunk.codes), chunk.finish_reason) == (3, "length")
    assert trial.speech.ended


def test_an_error_comes_after_the_audio_before_it():
    trial = Trial(sizes=(9,)).begin()
    trial.frame()
    error = GenerationError("not finite")
    assert trial.frame(error)
    assert trial.speech.is_complete
    chunk = trial.chunk()
    assert (len(chunk.codes), chunk.is_final) == (1, False)
    assert trial.outbox.get_nowait() == (trial.speech, error)
    assert trial.speech.ended


def test_an_error_without_audio_before_it():
    trial = Trial().begin()
    error = GenerationError("not finite")
    assert trial.frame(error)
    assert trial.chunk() is error
    assert trial.outbox.empty()


def test_an_error_is_not_kept():
    """Its traceback holds arrays."""
    trial = Trial().begin()
    error = GenerationError("not finite")
    kept = weakref.ref(error)
    trial.frame(error)
    del error
    trial.chunk()
    assert kept() is None


def test_one_chunk_is_made_ahead():
    trial = Trial(sizes=(1,)).begin()
    for asked in (False, True):
        assert trial.speech.is_wanted
        assert trial.speech.is_busy
        trial.frame()
        trial.chunk()
        assert not trial.speech.is_wanted
        assert not trial.speech.is_busy
        trial.speech.ask()
        assert trial.speech.is_wanted, asked
    trial.speech.cancel()
    assert not trial.speech.is_wanted


def test_a_text_that_runs_dry():
    """The frames so far become a chunk; the listener is told once, until it has resumed the speech."""
    trial = Trial(sizes=(9,), batches=((1,), (2, 3)))
    trial.feed.pull()
    trial.speech.new_row()
    trial.feed.begin_speech()
    assert trial.speech.is_busy
    assert trial.frame(), "of 9"
    chunk = trial.chunk()
    assert (len(chunk.codes), chunk.text_ran_dry) == (1, True)
    trial.speech.ask()
    assert not trial.speech.is_busy
    for _ in range(2):
        trial.speech.tell_needs_text()
    assert isinstance(trial.outbox.get_nowait()[1], NeedsText)
    assert trial.outbox.empty()
    trial.feed.pull()
    assert not trial.speech.is_busy, "the listener has not said so"
    trial.speech.resume()
    assert trial.speech.is_busy
    trial.speech.tell_needs_text()
    assert not trial.outbox.empty()


def test_the_last_chunk_did_not_run_dry():
    trial = Trial(sizes=(9,), batches=((1,), (2,)), max_frames=1)
    trial.feed.pull()
    trial.speech.new_row()
    assert trial.frame()
    chunk = trial.chunk()
    assert (chunk.finish_reason, chunk.text_ran_dry) == ("length", False)


def test_the_frame_budget_cuts_a_chunk(monkeypatch):
    """Two frames a token, and four more: ten for three ids; the text and its end take four."""
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 4)
    trial = Trial(sizes=(4,), stop_runaway=True, frames_per_token=2).begin()
    assert trial.speech.most_frames == 10
    lengths = []
    while not trial.speech.ended:
        while not trial.frame():
            pass
        chunk = trial.chunk()
        lengths.append(len(chunk.codes))
    assert (lengths, chunk.finish_reason) == ([4, 4, 2], "length")


def test_most_frames(monkeypatch):
    """The frame budget, if the length of the text is known and nothing else limits the frames."""
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 4)
    trial = Trial(stop_runaway=True)
    assert trial.speech.most_frames == 99, "the text is not known"
    trial.begin()
    assert trial.speech.most_frames == 4 + 3 * 12
    assert Trial(stop_runaway=True, max_new_tokens=21).begin().speech.most_frames == 20
    assert Trial(stop_runaway=True, max_frames=50).begin().speech.most_frames == 50
    assert Trial().begin().speech.most_frames == 99


def test_a_runaway_ends_the_speech():
    """After the text, of 50 silent frames 12 are emitted; a chunk of which nothing is left is not delivered."""
    trial = Trial(sizes=(10,), stop_runaway=True, batches=((),)).begin()
    trial.codec.decode_async = lambda codes, state: (lambda: np.zeros(10 * len(codes), np.float32), state)
    lengths = []
    while not trial.speech.ended:
        while not trial.frame():
            pass
        trial.speech.finish_chunk(trial.speech.begin_chunk())
        while not trial.outbox.empty():
            chunk = trial.outbox.get_nowait()[1]
            lengths.append(len(chunk.codes))
    assert (lengths, chunk.finish_reason, chunk.timing.frames) == ([10, 3, 0], "runaway", 13)
    assert trial.speech.frames == 60


def test_only_the_first_frames_are_waited_for():
    trial = Trial(sizes=(2,)).begin()
    firsts = []
    for _ in range(2):
        while not trial.frame():
            pass
        pending = trial.speech.begin_chunk()
        assert trial.speech.has_pending
        firsts.append(pending.is_first)
        trial.speech.finish_chunk(pending)
        assert not trial.speech.has_pending
    assert firsts == [True, False]


def test_preparation_comes_in_pieces():
    """The prompt's, then 64 frames of a reference at a time, whose state the speech continues."""
    voice = VoiceClonePrompt(np.zeros(8, np.float32), np.zeros((130, 16), np.int32), "Hello")
    trial = Trial(voice=voice)
    steps = trial.speech.prepare()
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert end.value == (trial.speech.prompt, 7)
            break
        count += 1
    assert count == 1 + 3
    assert trial.codec.primed == [(64, None), (64, 64), (2, 128)]
    trial.begin()
    trial.frame()
    assert trial.chunk().audio[0] == 131


@pytest.mark.parametrize("voice", [None, "ben", VoiceClonePrompt(np.zeros(8, np.float32))])
def test_preparation_without_a_reference(voice):
    trial = Trial(voice=voice)
    assert list(trial.speech.prepare()) == [None]
    assert trial.codec.primed == []


def test_what_is_freed():
    trial = Trial(sizes=(1,)).begin()
    trial.speech.parked = "state"
    trial.speech.free()
    assert trial.speech.ended
    assert trial.speech.parked is None
