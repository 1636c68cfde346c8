"""Benchmarks for BENCHMARKS.md and RELIABILITY.md; run them from the project root: `python -m benchmarks.NAME`."""
