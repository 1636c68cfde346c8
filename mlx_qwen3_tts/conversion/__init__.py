"""A checkpoint to a smaller or differently typed one."""
