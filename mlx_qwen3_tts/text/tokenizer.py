"""Text to ids: byte-level BPE from the checkpoint's vocab.json and merges.txt.

    text ─ NFC ─ split by the Qwen2 pattern ─ bytes ─ merges ─ ids

Control tokens are never parsed out of a text. They enter a prompt by their ids alone (see generation/prompt.py), so a
user's "<|im_end|>" is read as ten characters and cannot end the prompt.
Source: Qwen2TokenizerFast of transformers 4.57.3, as the official package runs it on a hub id. On a local directory
that names transformers 4.57.3 or later, that version replaces the pattern with Mistral's: its check for damaged Mistral
tokenizers takes every local model for one. Mistral's pattern splits words at inner capitals ("iPhone"), so the ids
differ from the hub's and presumably from those of the training. This port always uses Qwen's pattern.
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
    pairs = []
    for line in read_text(path).split("\n"):
        if not line or line.startswith("#version"):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or any(token not in vocab for token in (*parts, "".join(parts))):
            raise CheckpointError(f"{path} has the line {line[:60]!r}, which is not a pair of tokens in vocab.json")
        pairs.append((parts[0], parts[1]))
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
        vocab = read_json(directory / "vocab.json")
        num_rows = config.talker_config.text_vocab_size
        if not all(type(id_) is int and 0 <= id_ < num_rows for id_ in vocab.values()):
            raise CheckpointError(f"{directory / 'vocab.json'} has ids outside the model's {num_rows} text embeddings")
        if not is_unicode("\n".join(vocab)):
            raise CheckpointError(f"{directory / 'vocab.json'} has tokens that are not valid Unicode text")
        missing = [token for token in pre_tokenizers.ByteLevel.alphabet() if token not in vocab]
        if missing:
            raise CheckpointError(f"{directory / 'vocab.json'} lacks {len(missing)} of the 256 byte tokens")
        tokenizer = cls(vocab, _read_merges(directory / "merges.txt", vocab))
        tokenizer._check_control_tokens(directory / "tokenizer_config.json", config)
        return tokenizer

    def _check_control_tokens(self, path: Path, config: ModelConfig) -> None:
        """Raise CheckpointError unless the ids in config.json, which prompts use, are those of their tokens."""
        ids = _read_added_tokens(path)
        for content, key in CONTROL_TOKENS.items():
            expected = getattr(config, key)
            if ids.get(content) != str(expected):
                raise CheckpointError(
                    f"{path} gives {content} the id {ids.get(content)}, but {key} in config.json is {expected}"
                )
        if self.encode("assistant") != [config.assistant_token_id]:
            raise CheckpointError(
                f"{path.parent}: 'assistant' is not encoded as the single token {config.assistant_token_id}"
            )

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; every character is taken literally."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def last_word_start(self, text: str) -> int:
        """Return the index at which the last word of `text`, with the white space before it, begins.

        The ids of normalized `text` up to there are final, whatever follows: no merge crosses the pattern's pieces, and
        the pattern looks ahead at most to the end of white space.
        """
        pieces = [(piece.isspace(), start) for piece, (start, _) in self._split.pre_tokenize_str(text)]
        while pieces and pieces[-1][0]:
            pieces.pop()
        word_start = pieces.pop()[1] if pieces else 0
        while pieces and pieces[-1][0]:
            word_start = pieces.pop()[1]
        return word_start

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids`."""
        return self._tokenizer.decode(ids)


def _read_added_tokens(path: Path) -> dict[str, str]:
    """Return the ids, as the file writes them, of the tokens that a tokenizer_config.json adds to the vocabulary."""
    added = read_json(path).get("added_tokens_decoder")
    if not isinstance(added, dict):
        raise CheckpointError(f"{path} has no usable added_tokens_decoder")
    ids = {}
    for id_, token in added.items():
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str):
            raise CheckpointError(f"{path} has no usable added_tokens_decoder")
        ids[content] = id_
    return ids
