"""The demo's configuration: every part of a released checkpoint at a small size, for two voices and thirty words."""

from mlx_qwen3_tts.demo.clock import NUMBERS, TENS
from mlx_qwen3_tts.demo.random_checkpoint import CODE_PREDICTOR, CODEC, GENERATION, MODEL, TALKER

CODES = 128  # in each codebook
HIDDEN = 128

_LOWER = [*NUMBERS, *TENS, "it", "is", "hello", "clock", "'clock", "o"]
# Longest first, "eleven" last: then no word's merges split another word ("hello" and "twelve" contain its "el").
_FORMS = sorted(
    {*_LOWER, *(word.capitalize() for word in _LOWER)}, key=lambda word: (word == "eleven", -len(word), word)
)
TOKENS = ["assistant", "user", *("Ġ" + word for word in _FORMS), *_FORMS]

ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "rope_theta": 10000}
PREDICTOR = CODE_PREDICTOR | {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": CODES, "head_dim": 16,
    "rope_theta": 10000,
}  # fmt: skip
VOICES = TALKER | ATTENTION | {
    "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": 4, "vocab_size": CODES + 1024,
    "text_vocab_size": 704, "text_hidden_size": 64,
    "rope_scaling": {"interleaved": True, "mrope_section": [8, 4, 4], "rope_type": "default", "type": "default"},
    "codec_pad_id": CODES + 100, "codec_bos_id": CODES + 101, "codec_eos_token_id": CODES + 102,
    "codec_think_id": CODES + 106, "codec_nothink_id": CODES + 107, "codec_think_bos_id": CODES + 108,
    "codec_think_eos_id": CODES + 109, "codec_language_id": {"english": CODES + 2},
    "spk_id": {"slt": CODES + 1000, "rms": CODES + 1001}, "spk_is_dialect": {"slt": False, "rms": False},
    "code_predictor_config": PREDICTOR,
}  # fmt: skip
CLOCK = MODEL | {"tts_model_size": "0b6", "talker_config": VOICES}
CLOCK_CODEC = CODEC | {
    "decoder_config": CODEC["decoder_config"] | {
        "latent_dim": 96, "codebook_dim": 128, "codebook_size": CODES, "decoder_dim": 64, "hidden_size": 96,
        "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16,
    },
    "encoder_config": CODEC["encoder_config"]
    | {"codebook_size": CODES, "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_filters": 2},
}  # fmt: skip
CLOCK_GENERATION = GENERATION | {"max_new_tokens": 256}  # about 20 s
