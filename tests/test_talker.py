"""Talker and code predictor, teacher-forced on the official package's codes: the logits are the same."""

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.generation.engine import PREFILL_STEP, finish
from mlx_qwen3_tts.generation.prompt import Prompt, embed
from mlx_qwen3_tts.models.cache import MIN_CAPACITY, KVCache
from mlx_qwen3_tts.request import Request
from mlx_qwen3_tts.text.feed import TextFeed
from tests.support.engine import forced_logits, on_mlx_thread
from tests.support.golden import arguments
from tests.support.tolerances import LOGITS, relative


def test_teacher_forced_logits(golden):
    tts, case = golden.models["custom_voice"], golden.asked["custom_voice"][1]
    codes, frames = golden["forced.codes"], golden["forced.frames"]
    assert len(codes) == 120
    codes = codes[: frames[-1] + 1]  # nothing is recorded of later ones
    talker, predictor = forced_logits(tts, tts.engine.prompts.build(Request(**arguments(case))), codes)
    for i, frame in enumerate(frames):
        assert relative(talker[frame], golden["forced.talker"][i]) < LOGITS, frame
        for g in range(15):
            assert relative(predictor[frame, g], golden["forced.predictor"][i, g]) < LOGITS, (frame, g)


def test_prefill_equals_single_steps(golden):
    """One pass over the prompt equals single positions in turn, also when the cache grows."""
    tts = golden.models["custom_voice"]
    x = mx.random.normal((1, MIN_CAPACITY + 20, tts.config.talker_config.hidden_size), key=mx.random.key(0))
    whole, steps = ([KVCache() for _ in tts.talker.model.layers] for _ in range(2))
    hidden, logits = tts.talker(x, whole)
    for position in range(x.shape[1]):
        step_hidden, step_logits = tts.talker(x[:, position : position + 1], steps)
        mx.eval(step_hidden, step_logits)
    assert whole[0].offset == steps[0].offset == x.shape[1]
    assert relative(np.array(step_hidden), np.array(hidden)) < LOGITS
    assert relative(np.array(step_logits), np.array(logits)) < LOGITS


def test_bfloat16_embeddings_are_rounded_once(checkpoint):
    """Both sums of 16 bfloat16 rows are computed in float32 and rounded once, as in PyTorch."""
    talker = Qwen3TTS.from_pretrained(checkpoint, dtype="bfloat16").talker
    codes = mx.array(np.random.RandomState(0).randint(0, 256, (1, 50, 16)))
    tables = [talker.model.codec_embedding, *talker.code_predictor.model.codec_embedding]
    rows = sum(np.array(table.weight.astype(mx.float32))[np.array(codes)[..., i]] for i, table in enumerate(tables))
    expected = mx.array(rows).astype(mx.bfloat16)
    assert (talker.embed_frames(codes) == expected).all()
    for frame in range(3):
        row = codes[0, frame]
        code0 = talker.model.codec_embedding(row[:1])
        _, total = talker.code_predictor(code0, code0, lambda g, logits, row=row: row[g + 1 : g + 2])
        assert (total[0] == expected[0, frame]).all()


def test_prefill_in_steps_equals_one_pass(golden):
    """This holds across the boundary of a step, and memory is bounded."""
    tts = golden.models["custom_voice"]
    length, rng = PREFILL_STEP + 70, np.random.RandomState(0)
    codes = rng.randint(0, 256, (length, 16)).astype(np.int32)
    prompt = Prompt(rng.randint(0, 256, length).astype(np.int32), codes, TextFeed([], 0, 0), prefix=0)

    def whole():
        caches = [KVCache() for _ in tts.talker.model.layers]
        return tts.talker(embed(tts.talker, prompt, 0, length), caches)

    hidden, logits = on_mlx_thread(tts, lambda: [np.array(array) for array in whole()])
    state = on_mlx_thread(tts, lambda: finish(tts.engine.prefill(prompt, 1)))
    assert length <= state.capacity
    assert relative(np.array(state.hidden), hidden) < LOGITS
    assert relative(np.array(state.logits), logits) < LOGITS


def test_projection_exists_only_between_different_widths(golden):
    predictor = golden.models["custom_voice"].talker.code_predictor
    assert ("small_to_mtp_projection" in predictor) == (golden.shape == "projected")
