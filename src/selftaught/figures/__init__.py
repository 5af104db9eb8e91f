"""Figures, one per file: functions that return a matplotlib `Figure` and use no global state."""

from selftaught.figures.attention import attention
from selftaught.figures.audit import audit
from selftaught.figures.confusion import confusion
from selftaught.figures.curves import curves
from selftaught.figures.filters import filter_comparison, filters
from selftaught.figures.grid import grid, save_png
from selftaught.figures.image_table import image_table, padded, stretched
from selftaught.figures.invariance import invariance
from selftaught.figures.labels import label_curve
from selftaught.figures.layers import layers
from selftaught.figures.quality import quality
from selftaught.figures.style import svg
from selftaught.figures.trends import trends

__all__ = [
    "attention",
    "audit",
    "confusion",
    "curves",
    "filter_comparison",
    "filters",
    "grid",
    "image_table",
    "invariance",
    "label_curve",
    "layers",
    "padded",
    "quality",
    "save_png",
    "stretched",
    "svg",
    "trends",
]
