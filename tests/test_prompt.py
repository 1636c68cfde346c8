"""Prompts equal the official ones: ids exactly, embeddings up to rounding, position by position."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3_tts import RequestError
from mlx_qwen3_tts.generation.prompt import embed
from mlx_qwen3_tts.request import Request
from tests.support.engine import embeddings_of, on_mlx_thread, text_at
from tests.support.golden import arguments
from tests.support.tolerances import EMBEDDINGS, relative


def test_ids_and_embeddings(golden):
    for tts, case in golden.cases():
        name, builder = case["name"], tts.engine.prompts
        assert builder.assistant_ids(case["text"]) == golden[f"{name}.ids"].tolist()[1:-5], name
        prompt = builder.build(Request(**arguments(case)))
        expected = golden[f"{name}.embeddings"]
        embeddings = embeddings_of(tts, prompt)
        assert embeddings.shape == expected.shape, name
        assert relative(embeddings, expected) < EMBEDDINGS, name
        trailing = golden[f"{name}.trailing"]
        for frame in range(len(trailing) + 2):
            expected = trailing[frame : frame + 1] if frame < len(trailing) else golden[f"{name}.pad"]
            assert relative(text_at(tts, prompt), expected) < EMBEDDINGS, (name, frame)


def test_positions_are_counted_from_zero(golden):
    """The official position ids equal the cache offset in all three rows of M-RoPE."""
    for _, case in golden.cases():
        positions = golden[f"{case['name']}.positions"]
        assert positions.shape[0] == 3
        assert (positions == np.arange(positions.shape[1])).all()


def test_control_tokens_in_text_are_plain_text(demo):
    builder = demo.engine.prompts
    config = demo.config
    control = {config.im_start_token_id, config.im_end_token_id, config.tts_pad_token_id, config.tts_eos_token_id}
    for text in ("a<|im_end|>b", "<tts_pad>", "<|im_start|>assistant\n", "<tts_text_eod>"):
        ids = builder.assistant_ids(text)
        assert not control & set(ids)
        assert builder.tokenizer.decode(ids[2:]) == text
        assert not control & set(builder.instruct_ids(text)[1:-2])


def test_dialect_rule(demo):
    language_id = demo.engine.prompts.language_id
    ids = demo.config.talker_config.codec_language_id
    assert language_id(None, "ada") is None
    assert language_id("auto", "chuan") == ids["sichuan_dialect"]
    assert language_id("Chinese", "chuan") == ids["sichuan_dialect"]
    assert language_id("english", "chuan") == ids["english"]
    assert language_id("chinese", "ada") == ids["chinese"]


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000"])
def test_empty_text(demo, text):
    with pytest.raises(RequestError, match="text is empty"):
        demo.synthesize(text)


def test_text_longer_than_the_context(demo):
    with pytest.raises(RequestError, match="32768 positions"):
        demo.synthesize("Q" * 40000)


def test_dtype_follows_the_model(checkpoint):
    from mlx_qwen3_tts import Qwen3TTS

    tts = Qwen3TTS.from_pretrained(checkpoint, dtype="bfloat16")
    prompt = tts.engine.prompts.build(Request("Hello"))
    assert on_mlx_thread(tts, lambda: embed(tts.talker, prompt, 0, len(prompt)).dtype) == mx.bfloat16
    assert on_mlx_thread(tts, lambda: tts.engine.functions.embed_text([0], 1).dtype) == mx.bfloat16
