"""Benchmarks: each is a command that prints tables. What is compared is run interleaved, in one process, in one go."""
