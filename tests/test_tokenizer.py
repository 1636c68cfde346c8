"""Text ids equal those of the official tokenizer."""

import json
from pathlib import Path

import pytest

from mlx_qwen3_tts import CheckpointError
from mlx_qwen3_tts.checkpoint.load import load_directory
from mlx_qwen3_tts.config.model import ModelConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.generation.prompt import PromptBuilder
from mlx_qwen3_tts.text.tokenizer import TextTokenizer
from tests.support import released
from tests.support.golden import SHARED

TOKENS = Path(__file__).with_name("golden") / "tokens.json"  # made by reference/tokens.py


@pytest.fixture(scope="module")
def builder() -> PromptBuilder:
    if not (SHARED / "tokenizer" / "vocab.json").exists():
        pytest.skip("needs the released vocabulary (vocab.json, merges.txt), which is not part of the project")
    config = from_dict(ModelConfig, released.config("1.7B-VoiceDesign"), "config.json")
    return PromptBuilder(config, TextTokenizer.from_directory(SHARED / "tokenizer", config))


def test_ids_with_the_released_vocabulary(builder):
    for text, ids in json.loads(TOKENS.read_text()).items():
        assert builder.assistant_ids(text) == ids[1:-5], text


def test_known_ids(builder):
    assert builder.tokenizer.encode("Hello, this is a test\n") == [9707, 11, 419, 374, 264, 1273, 198]


def test_words_are_not_split_at_inner_capitals(builder):
    """transformers 4.57.3 splits them for a local directory, because of a fix intended for Mistral's models."""
    assert builder.tokenizer.encode("JavaScript iPhone") == [29475, 12167]


def test_text_survives_the_round_trip(demo):
    for text in ("Hello world", " a\n\n b ", "今天 25°C 🙂👍🏽", "\x00\x7f\u200b"):
        assert demo.engine.tokenizer.decode(demo.engine.tokenizer.encode(text)) == text


def damage(checkpoint: Path, name: str, change) -> None:
    path = checkpoint / name
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("vocab.json", lambda v: v.update(zz=512), "512 text embeddings"),
        ("vocab.json", lambda v: v.update(zz="1"), "text embeddings"),
        ("vocab.json", lambda v: v.pop("A"), "lacks 1 of the 256 byte tokens"),
        ("vocab.json", lambda v: v.pop("world"), "not a pair of tokens in vocab.json"),
        ("tokenizer_config.json", lambda c: c.pop("added_tokens_decoder"), "added_tokens_decoder"),
        ("tokenizer_config.json", lambda c: c.update(added_tokens_decoder={}), "im_start_token_id"),
        ("config.json", lambda c: c.update(tts_pad_token_id=3), "tts_pad_token_id"),
        ("config.json", lambda c: c.update(assistant_token_id=3), "assistant"),
    ],
)
def test_damaged_files(checkpoint, name, change, message):
    damage(checkpoint, name, change)
    with pytest.raises(CheckpointError, match=message):
        load_directory(checkpoint, None)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_missing_files(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_directory(checkpoint, None)


def test_non_utf8_merges(checkpoint):
    (checkpoint / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"merges\.txt"):
        load_directory(checkpoint, None)
