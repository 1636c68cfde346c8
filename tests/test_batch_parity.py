"""Batches: the codes of each request equal those of its row in one official call with lists of requests."""

import json
import shutil

import numpy as np
import pytest

from mlx_qwen3_tts import Qwen3TTS, SynthesisResult
from mlx_qwen3_tts.generation.batch import Batch
from tests.support import checkpoints
from tests.support.batches import positions_of_the_first_row, seen_by_any_row, text_of_the_first_row
from tests.support.golden import FRAMES, BatchGolden, read_golden, until_a_tie
from tests.support.tolerances import LOGITS, TIE

pytestmark = pytest.mark.parity

LAYOUTS = ("", "-interleaved")
NAMES = [f"{kind}{layout}" for kind in ("custom", "design", "clone") for layout in LAYOUTS]


@pytest.fixture(scope="module", params=[pytest.param("equal", marks=pytest.mark.slow), "projected"])
def batches(request, tmp_path_factory) -> BatchGolden:
    asked, data = read_golden(f"{request.param}-batch")
    models = {}
    for kind in ("custom_voice", "voice_design", "base"):
        directory = tmp_path_factory.mktemp(f"{request.param}-{kind}") / "checkpoint"
        models[kind] = Qwen3TTS.from_pretrained(checkpoints.write(directory, request.param, kind, asked["seed"]))
    return BatchGolden(request.param, asked, data, models)


def batch_of(batches: BatchGolden, name: str) -> dict:
    """Return the recorded batch of that name."""
    return next(batch for batch in batches.asked["batches"] if batch["name"] == name)


def synthesize(batches: BatchGolden, name: str) -> list[SynthesisResult]:
    """Return our results for a recorded batch, all of whose rows are under way together."""
    batch = batch_of(batches, name)
    requests = batches.requests(batch)
    return batches.models[batch["model_type"]].synthesize_batch(requests, batch_size=len(requests))


def different_rows(batches: BatchGolden, name: str, results: list[SynthesisResult]) -> list[int]:
    """Return the rows whose codes are not the official ones, up to a near-tie."""
    found = []
    for i, result in enumerate(results):
        expected = batches[f"{name}.{i}.codes"]
        frames = until_a_tie(batches, f"{name}.{i}")
        if not np.array_equal(result.codes[:frames], expected[:frames]):
            found.append(i)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_greedy_codes(batches, name, spy):
    calls = spy(Batch, "begin")
    results = synthesize(batches, name)
    assert max(len(rows) for _, (_, rows) in calls) == len(results), "all rows advance together"
    assert [len(result.codes) for result in results] == [FRAMES] * len(results)
    assert different_rows(batches, name, results) == []


def test_rows_end_at_different_frames(batches, tmp_path):
    """An ordinary code serves as EOS. Official rows that have ended go on, and their codes are cut."""
    batch = batch_of(batches, "custom-ends")
    expected = [batches[f"custom-ends.{i}.codes"] for i in range(len(batch["rows"]))]
    assert len({len(codes) for codes in expected}) > 1
    if any(until_a_tie(batches, f"custom-ends.{i}") < len(codes) for i, codes in enumerate(expected)):
        pytest.skip("this seed meets a near-tie before an end")
    shutil.copytree(batches.models["custom_voice"].name, tmp_path / "ends")
    path = tmp_path / "ends" / "config.json"
    config = json.loads(path.read_text())
    config["talker_config"]["codec_eos_token_id"] = int(batches["custom-ends.eos"][0])
    path.write_text(json.dumps(config))
    results = Qwen3TTS.from_pretrained(tmp_path / "ends").synthesize_batch(batches.requests(batch))
    for result, codes in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.codes, codes)
        assert result.finish_reason == ("stop" if len(codes) < FRAMES else "length")


def test_rows_have_prompts_of_different_lengths(batches):
    """The official call pads all prompts but the longest; ours have the lengths of its mask."""
    for batch in batches.asked["batches"]:
        prompts = batches.models[batch["model_type"]].engine.prompts
        lengths = [len(prompts.build(request)) for request in batches.requests(batch)]
        assert lengths == batches[f"{batch['name']}.lengths"].tolist()
        assert len(set(lengths)) > 1


def test_cases_cover_what_may_differ(batches):
    """Within a batch there are several voices, languages, instructions, and both modes of cloning."""
    custom = batch_of(batches, "custom")["rows"]
    design = batch_of(batches, "design")["rows"]
    clone = batch_of(batches, "clone")["rows"]
    assert len({row["speaker"].lower() for row in custom}) == 3
    assert len({row["instruct"] for row in design}) == len(design)
    assert {"ref_text" in row for row in clone} == {True, False}
    for rows in (custom, design, clone):
        assert len({row["language"].lower() for row in rows}) == 3


def test_committed_data_has_no_ties(batches):
    if batches.asked["seed"] != checkpoints.GOLDEN_SEED:
        pytest.skip("a fresh seed may meet one")
    for batch in batches.asked["batches"]:
        for i in range(len(batch["rows"])):
            name = f"{batch['name']}.{i}"
            assert until_a_tie(batches, name) == len(batches[f"{name}.codes"])


def test_official_batch_equals_the_official_request_alone(batches):
    """Padding changes the order of sums in the official code, but no code before a near-tie."""
    compared = [batch for batch in batches.asked["batches"] if f"{batch['name']}.same" in batches.data]
    if not compared:
        pytest.skip("recorded for the committed data only")
    for batch in compared:
        assert batches[f"{batch['name']}.apart"].max() < min(LOGITS, TIE)
        for i, same in enumerate(batches[f"{batch['name']}.same"]):
            assert same >= until_a_tie(batches, f"{batch['name']}.{i}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutate, name",
    [
        (positions_of_the_first_row, "custom"),
        (positions_of_the_first_row, "clone-interleaved"),
        (text_of_the_first_row, "custom-interleaved"),
        (text_of_the_first_row, "design-interleaved"),
        (seen_by_any_row, "custom"),
    ],
)
def test_a_mixture_of_rows_is_found(batches, monkeypatch, mutate, name):
    """What belongs to a row, taken from another row, changes codes."""
    mutate(monkeypatch)
    assert different_rows(batches, name, synthesize(batches, name)) != []
