"""What a checkpoint and this machine can do: comparison, checks, speed."""
