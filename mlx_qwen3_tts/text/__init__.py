"""Text to ids: tokenizer, incremental encoding, segments."""
