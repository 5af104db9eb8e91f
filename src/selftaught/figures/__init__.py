"""Figures, one per file: functions that return a matplotlib `Figure` and use no global state."""

from selftaught.figures.audit import audit
from selftaught.figures.confusion import confusion
from selftaught.figures.curves import curves
from selftaught.figures.filters import filters
from selftaught.figures.grid import grid, save_png
from selftaught.figures.invariance import invariance
from selftaught.figures.labels import label_curve
from selftaught.figures.layers import layers
from selftaught.figures.quality import quality
from selftaught.figures.style import svg

__all__ = [
    "audit",
    "confusion",
    "curves",
    "filters",
    "grid",
    "invariance",
    "label_curve",
    "layers",
    "quality",
    "save_png",
    "svg",
]
