"""Everything that is done with a trained encoder: probes of its layers, beside honest baselines.

Knows encoders and sources, and no task.
"""

from selftaught.downstream.layers import probe_layers
from selftaught.downstream.paper import Recipe
from selftaught.downstream.table import ProbeTable, render

__all__ = ["ProbeTable", "Recipe", "probe_layers", "render"]
