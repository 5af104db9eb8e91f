"""The probes by protocol name, one file each."""

from collections.abc import Mapping
from types import MappingProxyType

from selftaught.errors import unknown
from selftaught.evaluation.probes.base import OnProgress, Probe, ProbeResult
from selftaught.evaluation.probes.fast import FastProbe
from selftaught.evaluation.probes.knn import KNNProbe
from selftaught.evaluation.probes.paper import PaperProbe

PROBES: Mapping[str, type[Probe]] = MappingProxyType({"fast": FastProbe, "paper": PaperProbe, "knn": KNNProbe})
"""Protocol name -> probe class."""

__all__ = ["PROBES", "FastProbe", "KNNProbe", "OnProgress", "PaperProbe", "Probe", "ProbeResult", "make_probe"]


def make_probe(protocol: str) -> Probe:
    """The probe of a protocol, with default hyperparameters.

    Raises:
        UserError: the protocol does not exist.
    """
    if protocol not in PROBES:
        raise unknown("protocol", protocol, PROBES)
    return PROBES[protocol]()


def protocol_of(probe: Probe) -> str:
    """The protocol name of a probe."""
    return next(name for name, kind in PROBES.items() if isinstance(probe, kind))
