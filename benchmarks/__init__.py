"""What BENCHMARKS.md and RELIABILITY.md report; run them from the project: `python -m benchmarks.NAME`."""
