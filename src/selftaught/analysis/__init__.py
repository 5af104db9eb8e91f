"""Analyses of trained encoders beyond accuracy: shortcuts, invariance, feature quality, attention, neighbors, style."""
