"""A request in a batch gives the codes that it gives alone, whatever the other rows do.

COMPOSITIONS=N runs N random batches of each model in place of 2. On this package's CPU back end equality is exact:
matrix products give each row the same bits, however many rows there are.
"""

import json
import os

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.generation import batch, state
from mlx_qwen3_tts.generation.batch import MAX_ROWS
from mlx_qwen3_tts.generation.frames import FrameFunctions
from mlx_qwen3_tts.generation.sampling import FrameOptions
from tests.support import checkpoints
from tests.support.batches import (
    RandomBatch,
    first_difference,
    frame_arguments,
    positions_of_the_first_row,
    requests_of,
    seen_by_any_row,
    solo_codes,
    text_of_the_first_row,
)  # fmt: skip
from tests.support.engine import on_mlx_thread

KINDS = ("custom_voice", "voice_design", "base", "ending")  # the last one is a CustomVoice model whose speech ends
COMPOSITIONS = int(os.environ.get("COMPOSITIONS", "2"))  # of each of the four models


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Qwen3TTS]:
    """All but the one whose speech ends."""
    directory = tmp_path_factory.mktemp("batch")
    return {
        kind: Qwen3TTS.from_pretrained(checkpoints.write(directory / kind, "projected", kind)) for kind in KINDS[:3]
    }


@pytest.fixture(scope="module")
def alone(models) -> dict[str, tuple[list, list[np.ndarray]]]:
    """As many requests of each of these models as a batch has rows, and their codes alone."""
    made = {}
    for kind, tts in models.items():
        requests = requests_of(tts, MAX_ROWS)
        made[kind] = requests, solo_codes(tts, requests)
    return made


@pytest.fixture(scope="module")
def ending(alone, tmp_path_factory) -> tuple[Qwen3TTS, list, list[np.ndarray]]:
    """The model whose speech ends, requests of it, and their codes alone."""
    ends = checkpoints.write(tmp_path_factory.mktemp("batch") / "ending", "projected", "custom_voice")
    path = ends / "config.json"
    config = json.loads(path.read_text())
    codes = [row[0] for one in alone["custom_voice"][1] for row in one]
    config["talker_config"]["codec_eos_token_id"] = int(np.bincount(codes).argmax())  # the most frequent code
    path.write_text(json.dumps(config))
    tts = Qwen3TTS.from_pretrained(ends)
    requests = requests_of(tts, MAX_ROWS)
    return tts, requests, solo_codes(tts, requests)


@pytest.mark.parametrize("kind", KINDS)
def test_random_compositions(models, alone, ending, kind):
    """Rows join, wait for text, wait for listeners, fail, are cancelled and end at random frames."""
    tts, requests, codes = ending if kind == "ending" else (models[kind], *alone[kind])
    for seed in range(COMPOSITIONS):
        assert first_difference(tts, requests, codes, seed) == ""


@pytest.mark.slow
def test_compositions_are_what_they_should_be(models, alone):
    """Among random batches are those of one row and of 16, and rows that fail, leave early and end by themselves."""
    requests, _ = alone["custom_voice"]
    tts = models["custom_voice"]
    sizes = set()
    kinds = set()
    for seed in (14, 0, 2, 6):
        random_batch = RandomBatch(tts.engine, requests, seed)
        members = on_mlx_thread(tts, random_batch.run)
        sizes.add(random_batch.largest)
        for member in members:
            kinds.add((type(member.outcome).__name__, member.cancelled_at is not None, bool(member.pieces)))
    assert min(sizes) == 1
    assert max(sizes) > 8
    assert {("GenerationError", False, False), ("str", False, True), ("str", True, False)} <= kinds


def one_position_too_many(monkeypatch):
    """A row that waits is written at the place of its last position."""
    step = FrameFunctions.step
    monkeypatch.setattr(
        FrameFunctions, "step",
        lambda self, embedding, text, buffers, positions: step(
            self, embedding, text, buffers, np.where(positions == positions.max(), positions, positions - 1)
        ),
    )  # fmt: skip


def options_of_the_first_row(monkeypatch):
    of = FrameOptions.of
    monkeypatch.setattr(FrameOptions, "of", lambda rows, config: of([rows[0]] * len(rows), config))


def penalty_of_the_first_row(monkeypatch):
    of = FrameOptions.of

    def mutated(rows, config):
        options = of(rows, config)
        return options._replace(repetition_penalty=mx.broadcast_to(options.repetition_penalty[:1], (len(rows), 1)))

    monkeypatch.setattr(FrameOptions, "of", mutated)


def keys_of_the_first_row(monkeypatch):
    def change(args):
        args[3] = mx.broadcast_to(args[3][:1], args[3].shape)
        return args

    frame_arguments(monkeypatch, change)


MERGED = {"step": ("hidden", "logits"), "frame": ("embedding", "seen", "keys")}  # what `merge` gets after each call


def lose(monkeypatch, *arrays):
    """Let a row that waits get these arrays of the frame or step that it had no part in."""
    merge = batch.merge
    coming: list[str] = []

    def mutated(kept, old, new):
        return new if coming.pop(0) in arrays else merge(kept, old, new)

    for name, merged in MERGED.items():
        original = getattr(FrameFunctions, name)

        def listed(self, *args, original=original, merged=merged):
            coming[:] = merged
            return original(self, *args)

        monkeypatch.setattr(FrameFunctions, name, listed)
    monkeypatch.setattr(batch, "merge", mutated)


def waiting_rows_lose_a_frame(monkeypatch):
    lose(monkeypatch, *MERGED["frame"])


def waiting_rows_lose_a_step(monkeypatch):
    lose(monkeypatch, *MERGED["step"])


def slots_are_not_cleared(monkeypatch):
    """A row that joins overwrites its own positions alone: what a failed row left behind them is not finite."""
    place = state.DecodeState.place

    def mutated(self, slot, row):
        old = [buffer[:, slot : slot + 1] for buffer in self.buffers]
        mx.eval(old)
        place(self, slot, row)
        for i, buffer in enumerate(self.buffers):
            used = (mx.abs(buffer[:, slot : slot + 1]).sum(axis=(0, 2, 4)) > 0)[None, :, None, :, None]
            buffer[:, slot : slot + 1] = mx.where(used, buffer[:, slot : slot + 1], old[i])
            self.buffers[i] = buffer

    monkeypatch.setattr(state.DecodeState, "place", mutated)


def slots_are_exchanged(monkeypatch):
    select = state.DecodeState.select
    monkeypatch.setattr(
        state.DecodeState, "select", lambda self, slots, capacity: select(self, list(slots)[::-1], capacity)
    )  # fmt: skip


def failures_spread(monkeypatch):
    """One row that is not finite makes all rows fail."""
    frame = FrameFunctions.frame

    def mutated(self, *args):
        codes, *rest = frame(self, *args)
        return mx.where((codes < 0).any(), -1, codes), *rest

    monkeypatch.setattr(FrameFunctions, "frame", mutated)


def any_row_may_end(monkeypatch):
    def change(args):
        args[4] = mx.broadcast_to(mx.any(args[4], axis=0, keepdims=True), args[4].shape)
        return args

    frame_arguments(monkeypatch, change)


MUTATIONS = [
    positions_of_the_first_row, one_position_too_many, text_of_the_first_row, options_of_the_first_row,
    penalty_of_the_first_row, keys_of_the_first_row, seen_by_any_row, waiting_rows_lose_a_frame,
    waiting_rows_lose_a_step, slots_are_not_cleared, slots_are_exchanged, failures_spread,
]  # fmt: skip


def test_a_mutation_of_the_end_is_found(ending, monkeypatch):
    """Rows would end in their first two frames."""
    tts, requests, codes = ending
    assert len({len(one) for one in codes}) > 3
    any_row_may_end(monkeypatch)
    assert any(first_difference(tts, requests, codes, seed) for seed in range(40))


@pytest.mark.slow
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_mutation_of_each_row_quantity_is_found(models, alone, monkeypatch, mutate):
    requests, codes = alone["custom_voice"]
    tts = models["custom_voice"]
    mutate(monkeypatch)
    assert any(first_difference(tts, requests, codes, seed) for seed in range(25))


@pytest.mark.parametrize("name", [name for names in MERGED.values() for name in names])
def test_each_array_of_a_waiting_row_is_kept(models, alone, monkeypatch, name):
    """`merge` is left out for one array at a time."""
    lose(monkeypatch, name)
    requests, codes = alone["custom_voice"]
    assert any(first_difference(models["custom_voice"], requests, codes, seed) for seed in range(25))
