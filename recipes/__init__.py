"""Experiments whose results are kept: see `experiment.py`."""
