"""Experiments with results in results/, one per file; `experiment.py` is shared."""
