"""One file for each source file; `support` has what they share, `reference` makes golden data."""
