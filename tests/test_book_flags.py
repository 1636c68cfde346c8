"""The flags of a book's options follow from their declaration."""

import argparse

import pytest

from mlx_qwen3_tts.cli.options import add_options, given_options
from mlx_qwen3_tts.longform.options import BookOptions
from mlx_qwen3_tts.option import options_of


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, BookOptions)
    return parser


def options(parser: argparse.ArgumentParser, *flags: str) -> BookOptions:
    return BookOptions(**given_options(parser.parse_args(flags), BookOptions))


def test_without_flags_the_options_are_the_defaults(parser):
    assert options(parser) == BookOptions()


def test_flags(parser):
    made = options(
        parser, "--voice", "Ryan", "--seed", "5", "--plain", "--paragraph-pause", "1", "--loudness", "-20",
        "--max-chars", "400", "--batch", "4", "--pronounce", "words.tsv", "--any-case", "--speed", "1.2",
    )  # fmt: skip
    assert made == BookOptions(
        voice="Ryan", seed=5, plain=True, paragraph_pause=1.0, loudness=-20.0, max_chars=400, batch_size=4,
        pronounce="words.tsv", any_case=True, speed=1.2,
    )  # fmt: skip


def test_loudness_can_be_left_alone(parser):
    assert options(parser, "--loudness", "off").loudness is None


def test_a_cast(parser):
    assert options(parser, "--cast", "anna=Serena, Uncle Ben=me").cast == {"anna": "Serena", "Uncle Ben": "me"}


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--cast", "anna"), ("--cast", "a=b,A=c"), ("--cast", "=x"), ("--speed", "fast"), ("--loudness", "loud"),
     ("--max-chars", "1.5"), ("--seed", "x")],
)  # fmt: skip
def test_wrong_flags(parser, flag, value):
    with pytest.raises(argparse.ArgumentError, match=f"argument {flag}: the value must be"):
        parser.parse_args([flag, value])


def test_every_option_with_a_default_names_it_in_its_help():
    for entry in BookOptions.__dataclass_fields__.values():
        is_number = isinstance(entry.default, int | float) and not isinstance(entry.default, bool)
        if is_number:
            assert f"(default: {entry.default:g})" in entry.metadata["option"].description
    assert len(list(options_of(BookOptions))) == len(BookOptions.__dataclass_fields__)


def test_help_names_no_kind_of_model_that_a_book_refuses(parser):
    text = parser.format_help()
    assert "how to speak" in text
    assert "VoiceDesign" not in text
