"""Baselines of a probe: encoders that were not pretrained, and a cache of their results."""

from selftaught.evaluation.baselines.prepare import BASELINES, FIXED, label, own_encoder, prepare, title

__all__ = ["BASELINES", "FIXED", "label", "own_encoder", "prepare", "title"]
