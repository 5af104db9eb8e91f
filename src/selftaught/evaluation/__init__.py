"""Evaluation of pretrained encoders: probes on every layer, baselines, metrics, and confidence intervals."""

from selftaught.evaluation.layers import probe_layers
from selftaught.evaluation.probes import (
    PROBES,
    ConvProbe,
    KNNProbe,
    LogisticProbe,
    MLPProbe,
    Probe,
    RidgeProbe,
    SGDProbe,
    SVMProbe,
)
from selftaught.evaluation.table import ProbeTable, render

__all__ = [
    "PROBES",
    "ConvProbe",
    "KNNProbe",
    "LogisticProbe",
    "MLPProbe",
    "Probe",
    "ProbeTable",
    "RidgeProbe",
    "SGDProbe",
    "SVMProbe",
    "probe_layers",
    "render",
]
