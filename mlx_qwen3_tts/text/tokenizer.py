"""Text to ids: byte-level BPE from the checkpoint's vocab.json and merges.txt.

    text ─ NFC ─ split by the Qwen2 pattern ─ bytes ─ merges ─ ids

Control tokens are never parsed out of text: they enter a prompt by their ids alone (prompt.py), so that a user's
"<|im_end|>" is read as the ten characters it is and cannot end the prompt.
Source: Qwen2TokenizerFast of transformers 4.57.3, as the official package runs it on a hub id. On a local directory
that names transformers 4.57.3 or later, that version replaces the pattern by Mistral's (a check for damaged Mistral
tokenizers that takes every local model for one), which splits words at inner capitals ("iPhone"): other ids than the
hub's and, presumably, than the training's. This port keeps Qwen's pattern everywhere.
"""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..config.model import ModelConfig
from ..config.schema import read_json, read_text
from ..errors import CheckpointError
from .unicode import is_unicode

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CONTROL_TOKENS = {
    "<|im_start|>": "im_start_token_id",
    "<|im_end|>": "im_end_token_id",
    "<tts_pad>": "tts_pad_token_id",
    "<tts_text_bos>": "tts_bos_token_id",
    "<tts_text_eod>": "tts_eos_token_id",
}


def _read_merges(path: Path, vocab: dict[str, int]) -> list[tuple[str, str]]:
    lines = read_text(path).split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    for pair in pairs:
        if len(pair) != 2 or any(token not in vocab for token in (*pair, "".join(pair))):
            raise CheckpointError(f"{path} has the line {' '.join(pair)[:60]!r}, which vocab.json does not know")
    return pairs


class TextTokenizer:
    """Byte-level BPE."""

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self._tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        self._tokenizer.normalizer = normalizers.NFC()
        self._split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [self._split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        self._tokenizer.decoder = decoders.ByteLevel()

    @classmethod
    def from_directory(cls, directory: Path, config: ModelConfig) -> "TextTokenizer":
        """Read vocab.json and merges.txt, and check them and tokenizer_config.json against the model's config.

        Raises CheckpointError for a missing or damaged file, or ids that do not belong to the model.
        """
        vocab, rows = read_json(directory / "vocab.json"), config.talker_config.text_vocab_size
        if not all(type(id_) is int and 0 <= id_ < rows for id_ in vocab.values()):
            raise CheckpointError(f"{directory / 'vocab.json'} has ids outside the model's {rows} text embeddings")
        if not is_unicode("\n".join(vocab)):
            raise CheckpointError(f"{directory / 'vocab.json'} has tokens that are no Unicode text")
        missing = [token for token in pre_tokenizers.ByteLevel.alphabet() if token not in vocab]
        if missing:
            raise CheckpointError(f"{directory / 'vocab.json'} lacks {len(missing)} of the 256 byte tokens")
        tokenizer = cls(vocab, _read_merges(directory / "merges.txt", vocab))
        tokenizer._check_control_tokens(directory / "tokenizer_config.json", config)
        return tokenizer

    def _check_control_tokens(self, path: Path, config: ModelConfig) -> None:
        """The prompt is built from the ids in config.json: they must be those of the tokens they are named after."""
        added = read_json(path).get("added_tokens_decoder")
        tokens = list(added.values()) if isinstance(added, dict) else [None]
        if not all(isinstance(token, dict) and isinstance(token.get("content"), str) for token in tokens):
            raise CheckpointError(f"{path} has no usable added_tokens_decoder")
        ids = {token.get("content"): id_ for id_, token in added.items()}
        for content, key in CONTROL_TOKENS.items():
            if ids.get(content) != str(getattr(config, key)):
                raise CheckpointError(
                    f"{path} gives {content} the id {ids.get(content)}, config.json says {key} {getattr(config, key)}"
                )
        if self.encode("assistant") != [config.assistant_token_id]:
            raise CheckpointError(f"{path.parent}: 'assistant' is not the one token {config.assistant_token_id}")

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, every character of it taken literally."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def before_last_word(self, text: str) -> int:
        """Where the last word of `text` begins, or the white space before it.

        Up to there the ids of `text`, which must be normalized, are those of that part alone, and stay so whatever
        comes: the merges cross none of the pattern's pieces, and the pattern looks ahead to the end of white space.
        """
        pieces = [(piece.isspace(), start) for piece, (start, _) in self._split.pre_tokenize_str(text)]
        while pieces and pieces[-1][0]:
            pieces.pop()
        cut = pieces.pop()[1] if pieces else 0
        while pieces and pieces[-1][0]:
            cut = pieces.pop()[1]
        return cut

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`."""
        return self._tokenizer.decode(ids)
