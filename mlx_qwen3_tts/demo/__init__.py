"""The built-in checkpoints."""
