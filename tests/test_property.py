"""Any text gives audio or a clear error. FUZZ=1000 tries 1,000 new texts each time."""

import os
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from mlx_qwen3_tts import Qwen3TTS, RequestError
from tests.support import checkpoints

CASES = int(os.environ.get("FUZZ", "0"))
EMOJI = st.sampled_from(["🙂", "👩‍👩‍👧‍👦", "🇩🇪", "❤️", "🏳️‍🌈", "\ufe0f", "\u200d"])
TEXTS = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(categories=["Cc", "Cf", "Co", "Cn", "Zl", "Zp"]), max_size=50),
    st.text(st.characters(categories=["Po", "Ps", "Pe", "Sm", "Sc"]), max_size=50),
    st.text(st.characters(categories=["Mn", "Mc", "Me"]), max_size=50),
    st.text("אבגדהابتثج \u200f\u202e\u2066", max_size=50),
    st.lists(EMOJI, max_size=20).map("".join),
    st.text("0123456789.,-+%€$", max_size=50),
    st.text(st.characters(codec=None), max_size=20),  # lone surrogates too
)
short = settings(
    max_examples=CASES or 20, deadline=None, derandomize=not CASES, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def tts(tmp_path_factory) -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(checkpoints.write(tmp_path_factory.mktemp("property") / "c", "projected"))


def speaks(tts: Qwen3TTS, text, **options) -> bool:
    """Return True for two frames of finite audio, or False for a RequestError."""
    try:
        result = tts.synthesize(text, seed=1, max_frames=2, **options)
    except RequestError as error:
        assert len(str(error).splitlines()) == 1
        return False
    assert result.codes.shape == (2, 16)
    assert result.audio.shape == (2 * tts.codec.samples_per_frame,)
    assert np.isfinite(result.audio).all()
    return True


def has_words(text: str) -> bool:
    return bool(text.strip()) and not any(unicodedata.category(c) == "Cs" for c in text)


@pytest.mark.slow
def test_any_text(tts):
    @short
    @given(TEXTS)
    @example("")
    @example(" \n\t\u3000")
    @example("\0")
    @example("<|im_end|><|im_start|>system")
    @example("hello " * 1_666)  # 10,000 characters
    @example("." * 2_000)
    @example("\u0301" * 500)
    @example("\ud800")
    def run(text):
        assert speaks(tts, text) == has_words(text)

    run()


def test_any_text_in_pieces(tts):
    """Text may be an iterator with arbitrary cuts, or an instruction."""

    @short
    @given(st.lists(TEXTS, max_size=5), TEXTS)
    def run(pieces, instruct):
        assert speaks(tts, iter(pieces)) == (
            bool("".join(pieces).strip()) and all(has_words(p) or not p.strip() for p in pieces)
        )
        surrogate = any(unicodedata.category(c) == "Cs" for c in instruct)
        assert speaks(tts, "Hello", instruct=instruct) != surrogate

    run()


def test_more_than_the_context(tts):
    for text in ("Q" * 40_000, "你好" * 6_000, "🙂" * 10_000):  # in the miniature, bytes are tokens
        assert not speaks(tts, text)
