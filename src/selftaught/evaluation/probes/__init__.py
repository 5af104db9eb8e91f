"""The probes by name, one file each."""

from collections.abc import Mapping
from types import MappingProxyType

from selftaught.errors import unknown
from selftaught.evaluation.probes.base import OnProgress, Probe, ProbeResult
from selftaught.evaluation.probes.conv import ConvProbe
from selftaught.evaluation.probes.knn import KNNProbe
from selftaught.evaluation.probes.logistic import LogisticProbe
from selftaught.evaluation.probes.mlp import MLPProbe
from selftaught.evaluation.probes.ridge import RidgeProbe
from selftaught.evaluation.probes.sgd import SGDProbe
from selftaught.evaluation.probes.svm import SVMProbe

PROBES: Mapping[str, type[Probe]] = MappingProxyType(
    {
        "ridge": RidgeProbe,
        "logistic": LogisticProbe,
        "sgd": SGDProbe,
        "knn": KNNProbe,
        "svm": SVMProbe,
        "mlp": MLPProbe,
        "conv": ConvProbe,
    }
)
"""Name -> probe class."""

__all__ = [
    "PROBES",
    "ConvProbe",
    "KNNProbe",
    "LogisticProbe",
    "MLPProbe",
    "OnProgress",
    "Probe",
    "ProbeResult",
    "RidgeProbe",
    "SGDProbe",
    "SVMProbe",
    "make_probe",
    "name_of",
    "probe_class",
]


def probe_class(name: str) -> type[Probe]:
    """The class of a probe.

    Raises:
        UserError: there is no such probe.
    """
    if name not in PROBES:
        raise unknown("probe", name, PROBES)
    return PROBES[name]


def make_probe(name: str) -> Probe:
    """A probe with default hyperparameters."""
    return probe_class(name)()


def name_of(probe: Probe) -> str:
    """The name of a probe, as in `--probe`; that of its class if it is not in the table."""
    return next((name for name, kind in PROBES.items() if isinstance(probe, kind)), type(probe).__name__)
