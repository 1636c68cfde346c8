"""Golden data of batches from the official package: lists of requests in one call. Runs in the reference environment.

usage: golden_batch.py CHECKPOINTS OUT SEED [--alone]

CHECKPOINTS holds <shape>-<model_type> directories. Writes OUT/<shape>-batch.safetensors. The official package pads the
prompts of a batch at the left, feeds padding to a row whose text has ended, lets rows that have ended go on, and cuts
their codes at the end of the speech. The layout of the text is an option of the call, not of a row.

--alone: run each request of the batches ALONE as well, and record how far the batch is from it. This takes minutes.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from qwen_tts import Qwen3TTSModel
from safetensors.numpy import save_file

from tests.reference.golden import CHINESE, DESIGN, FRAMES, MIXED, TEXT, Recorder, load, margins, run_rows
from tests.reference.golden_clone import LONG_TEXT, REF_TEXT
from tests.support import sounds

CUSTOM = [
    dict(text=TEXT, speaker="ada", language="English"),
    dict(text=CHINESE, speaker="Ben", language="Chinese"),
    dict(text=MIXED, speaker="chuan", language="Auto"),
    dict(text="a", speaker="ben", language="auto", instruct="Loud."),
    dict(text=LONG_TEXT, speaker="chuan", language="english"),
]
DESIGNED = [
    dict(text=LONG_TEXT, language="English", instruct="Loud."),
    dict(text=CHINESE, language="auto", instruct=DESIGN),
    dict(text=MIXED, language="Chinese", instruct=""),
]
CLONED = [  # with a ref_text: in-context mode
    dict(text=TEXT, language="English", clip="speech", ref_text=REF_TEXT),
    dict(text=MIXED, language="Auto", clip="speech"),
    dict(text="a", language="auto", clip="speech-16000", ref_text="hello"),
    dict(text=LONG_TEXT, language="English", clip="chirp"),
    dict(text=CHINESE, language="Chinese", clip="speech", ref_text=MIXED),
]
BATCHES = [
    dict(name="custom", model_type="custom_voice", non_streaming_mode=True, rows=CUSTOM),
    dict(name="custom-interleaved", model_type="custom_voice", non_streaming_mode=False, rows=CUSTOM[:4]),
    dict(name="custom-ends", model_type="custom_voice", non_streaming_mode=True, rows=CUSTOM, ends="custom"),
    dict(name="design", model_type="voice_design", non_streaming_mode=True, rows=DESIGNED),
    dict(name="design-interleaved", model_type="voice_design", non_streaming_mode=False, rows=DESIGNED),
    dict(name="clone", model_type="base", non_streaming_mode=True, rows=CLONED),
    dict(name="clone-interleaved", model_type="base", non_streaming_mode=False, rows=CLONED),
]


ALONE = ("custom", "design", "clone-interleaved")


def arguments(model: Qwen3TTSModel, rows: list[dict]) -> dict:
    """The lists of an official call."""
    call = {name: [row[name] for row in rows] for name in ("text", "language")}
    if model.model.tts_model_type == "base":
        items = []
        for row in rows:
            text = row.get("ref_text")
            items += model.create_voice_clone_prompt(sounds.SOUNDS[row["clip"]], text, x_vector_only_mode=text is None)
        return call | {"voice_clone_prompt": items}
    call["instruct"] = [row.get("instruct", "") for row in rows]
    if model.model.tts_model_type == "custom_voice":
        call["speaker"] = [row["speaker"] for row in rows]
    return call


def clips(model: Qwen3TTSModel, out: dict[str, np.ndarray]) -> None:
    """The speaker embedding and the codes of each reference sound."""
    for name in sorted({row["clip"] for row in CLONED}):
        item = model.create_voice_clone_prompt(sounds.SOUNDS[name], "x")[0]
        out[f"clip-{name}.embedding"] = item.ref_spk_embedding.numpy()
        out[f"clip-{name}.codes"] = item.ref_code.numpy().astype(np.int16)


def greedy(model: Qwen3TTSModel, rows: list[dict], layout: bool) -> tuple[list[np.ndarray], Recorder]:
    """The codes of each row, without those of a reference clip."""
    call = arguments(model, rows)
    codes, recorder = run_rows(model, call | {"non_streaming_mode": layout}, FRAMES)
    for i, item in enumerate(call.get("voice_clone_prompt", [])):
        if item.ref_code is not None:
            codes[i] = codes[i][len(item.ref_code) :]
    return codes, recorder


def end_of(codes: list[np.ndarray]) -> int:
    """A first code as the end of the speech: one that as many rows as possible meet, at different frames."""
    firsts = [row[:, 0] for row in codes]
    forced = {code for first in firsts for code in first[:3]}  # the speech may not end there, or would do at once

    def frames(code: int) -> list[int]:
        return [int(np.argmax(first == code)) for first in firsts if code in first]

    candidates = sorted({int(code) for first in firsts for code in first} - forced)
    return max(candidates, key=lambda code: (len(set(frames(code))), max(frames(code))))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def compare_alone(
    model: Qwen3TTSModel, batch: dict, codes: list[np.ndarray], recorder: Recorder
) -> tuple[list[int], list[float]]:
    """For each row: how many frames have the codes of the request alone, and how far apart their logits are.

    The difference of the logits is relative to the largest one.
    """
    same = []
    apart = []
    for i, row in enumerate(batch["rows"]):
        (alone,), solo = greedy(model, [row], batch["non_streaming_mode"])
        count = min(len(alone), len(codes[i]))
        differs = (alone[:count] != codes[i][:count]).any(axis=1)
        same.append(int(differs.argmax()) if differs.any() else count)
        until = same[-1]
        apart.append(
            max(
                relative(recorder.talker_logits(i)[:until], solo.talker_logits()[:until]),
                relative(recorder.predictor_logits(i)[:until], solo.predictor_logits()[:until]),
            )
        )
    return same, apart


def record(model: Qwen3TTSModel, batch: dict, alone: bool, out: dict[str, np.ndarray]) -> None:
    config = model.model.config.talker_config
    original = config.codec_eos_token_id
    name = batch["name"]
    count = len(batch["rows"])
    if "ends" in batch:
        config.codec_eos_token_id = end_of([out[f"{batch['ends']}.{i}.codes"] for i in range(count)])
    codes, recorder = greedy(model, batch["rows"], batch["non_streaming_mode"])
    out[f"{name}.eos"] = np.array([config.codec_eos_token_id], np.int32)
    out[f"{name}.lengths"] = recorder.prompt["attention_mask"].sum(dim=1).numpy().astype(np.int32)
    for i in range(count):
        out[f"{name}.{i}.codes"] = codes[i].astype(np.int16)
        # The smallest margin of each frame.
        found = margins(recorder, codes[i], config.codec_eos_token_id, row=i)
        out[f"{name}.{i}.margins"] = found.min(axis=1, keepdims=True)
    config.codec_eos_token_id = original
    print(f"  {name}: {[len(row) for row in codes]} frames", file=sys.stderr)
    if alone and name in ALONE:
        same, apart = compare_alone(model, batch, codes, recorder)
        out[f"{name}.same"] = np.array(same, np.int32)
        out[f"{name}.apart"] = np.array(apart, np.float32)
        print(f"  alone: {same} frames are equal, logits are {max(apart):.1e} apart", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--alone", action="store_true")
    args = parser.parse_args()
    for shape in ("equal", "projected"):
        out: dict[str, np.ndarray] = {}
        models = {kind: load(args.checkpoints / f"{shape}-{kind}") for kind in ("custom_voice", "voice_design", "base")}
        clips(models["base"], out)
        for batch in BATCHES:
            record(models[batch["model_type"]], batch, args.alone, out)
        arrays = {name: np.ascontiguousarray(array) for name, array in out.items()}
        asked = {"seed": args.seed, "batches": BATCHES}
        save_file(arrays, args.out / f"{shape}-batch.safetensors", {"asked": json.dumps(asked)})


if __name__ == "__main__":
    main()
