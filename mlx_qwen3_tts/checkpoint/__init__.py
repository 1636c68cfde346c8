"""Checkpoints on disk: loading, weight names and layouts, quantized layers, shards."""
