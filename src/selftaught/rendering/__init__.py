"""Synthetic scenes with depth, surface normals and instance contours, rendered by Mitsuba 3 (extra `synthetic`)."""
