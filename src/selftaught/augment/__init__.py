"""Augmentation on the device: all geometry is one matrix and one resample, all colour is one matrix."""
