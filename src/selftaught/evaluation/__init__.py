"""Evaluation of pretrained encoders: probes on every layer, baselines, and confidence intervals."""

from selftaught.evaluation.layers import probe_layers
from selftaught.evaluation.probes import PROBES, FastProbe, KNNProbe, PaperProbe, Probe
from selftaught.evaluation.table import ProbeTable, render

__all__ = ["PROBES", "FastProbe", "KNNProbe", "PaperProbe", "Probe", "ProbeTable", "probe_layers", "render"]
