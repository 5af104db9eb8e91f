"""Baselines of a probe: random weights, raw pixels, and the cache of their results."""
