"""Convert checkpoints: other types, or quantized."""
