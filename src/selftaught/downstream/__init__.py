"""Everything that is done with a trained encoder: probes of its layers, with baselines; invariance; shortcut audits.

Knows encoders and sources, and no task.
"""

from selftaught.downstream.layers import probe_layers
from selftaught.downstream.probes import PROBES, FastProbe, KNNProbe, PaperProbe, Probe
from selftaught.downstream.table import ProbeTable, render

__all__ = ["PROBES", "FastProbe", "KNNProbe", "PaperProbe", "Probe", "ProbeTable", "probe_layers", "render"]
