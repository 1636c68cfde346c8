"""Ids of the official tokenizer with the released vocabulary. Runs in the reference environment.

usage: tokens.py VOCABULARY OUT.json        VOCABULARY holds vocab.json, merges.txt and tokenizer_config.json
"""

import json
import random
import sys
from pathlib import Path

from transformers import Qwen2TokenizerFast

TEXTS = [
    "Hello, this is a test.", "It's 11:26, isn't it? We'LL see; they'd've gone.", "MacBook iPhone eBay OpenAI McDonald's",
    "\n leading newline", "\n\n two", "\r\n windows", "  two spaces  and trailing  ", "tab\tbetween", "a\n\n\nb\r\n",
    "你好，世界。今天天气不错！", "東京タワーは高いです。ｱﾎﾞ", "안녕하세요, 반갑습니다.", "Привет, как дела?", "Привет!Как", "naïve café — “quotes”…",
    "e\u0301 and \u00e9; \ufb01 \u1e9b\u0323; n\u0303", "مرحبا بالعالم", "שלום", "नमस्ते दुनिया", "สวัสดี", "🙂👍🏽👨‍👩‍👧‍👦🏳️‍🌈", "1,234.50 €5 ½ ² Ⅷ №5 25°C",
    "x=y*2; // comment\n\tif (a<b) {", "http://example.com/a?b=c&d=%20", "A", " ", ".", "…", "\u200b\u00a0\u3000x", "ALLCAPS lower MiXeD",
    "don't DON'T don’t", "\u0000\u0001\x7f", "\U0001f600\ufe0f", "\ufeffbom", "ß ẞ ŉ ǆ", "100km/h 3.14e-10 0x1F", "a" * 300, "!?!?!?...",
]  # fmt: skip


def main() -> None:
    tokenizer = Qwen2TokenizerFast.from_pretrained(sys.argv[1])
    rng = random.Random(0)
    pool = "".join(TEXTS)
    texts = TEXTS + ["".join(rng.choices(pool, k=rng.randint(1, 40))) for _ in range(200)]
    ids = {}
    for text in texts:
        if "<|" in text:
            continue
        all_ids = tokenizer(f"<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
        assert all_ids[0] == 151644 and all_ids[-5] == 151645
        ids[text] = all_ids
    Path(sys.argv[2]).write_text(json.dumps(ids, separators=(",", ":")))


if __name__ == "__main__":
    main()
