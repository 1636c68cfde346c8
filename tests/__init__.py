"""One test file per subject; `support` has shared helpers, and `reference` generates golden data."""
