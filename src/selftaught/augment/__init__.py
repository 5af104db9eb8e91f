"""Augmentation on the device: geometry is one matrix and one resampling, color is one matrix."""
