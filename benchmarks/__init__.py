"""Benchmarks against common implementations: each file is a command that times both in one run and prints ratios."""
