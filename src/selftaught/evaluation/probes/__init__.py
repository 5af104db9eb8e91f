"""The probes, one file each, by the name of their protocol."""

from collections.abc import Mapping
from types import MappingProxyType

from selftaught.errors import unknown
from selftaught.evaluation.probes.base import OnProgress, Probe, ProbeResult
from selftaught.evaluation.probes.fast import FastProbe
from selftaught.evaluation.probes.knn import KNNProbe
from selftaught.evaluation.probes.paper import PaperProbe

PROBES: Mapping[str, type[Probe]] = MappingProxyType({"fast": FastProbe, "paper": PaperProbe, "knn": KNNProbe})
"""Name of the protocol -> probe."""

__all__ = ["PROBES", "FastProbe", "KNNProbe", "OnProgress", "PaperProbe", "Probe", "ProbeResult", "make_probe"]


def make_probe(protocol: str) -> Probe:
    """The probe called so, with its default hyperparameters.

    Raises:
        UserError: there is no probe of that name.
    """
    if protocol not in PROBES:
        raise unknown("protocol", protocol, PROBES)
    return PROBES[protocol]()


def protocol_of(probe: Probe) -> str:
    """The name of a probe's protocol."""
    return next(name for name, kind in PROBES.items() if isinstance(probe, kind))
