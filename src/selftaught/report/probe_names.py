"""How a probe is called: its kind, its number of labels, and the settings in which it differs from the others."""

from collections.abc import Mapping, Sequence
from typing import Any

from selftaught.report.record import is_number
from selftaught.report.verdict import metric_of

MISSING = "n.a."


def probe_labels(probes: Sequence[Mapping[str, Any]], more: Sequence[str] = ()) -> list[str]:
    """A label for each probe, " (knn, 5,000 labels)", with the settings in which it differs from others of its kind.

    Args:
        probes: the probes.
        more: further facts that are part of a label if they differ.
    """
    varying = [key for key in more if len({str(probe.get(key)) for probe in probes}) > 1]
    labels = []
    for probe in probes:
        others = [settings_of(other) for other in probes if other.get("probe") == probe.get("probe")]
        own = {
            key: value for key, value in settings_of(probe).items() if any(each.get(key) != value for each in others)
        }
        labels.append(probe_label(probe, {**{key: probe.get(key) for key in varying}, **own}))
    return labels


def probe_label(probe: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> str:
    """Kind of a probe and number of labels: " (knn, 5,000 labels)"; `more` are further settings, None left out."""
    parts = [str(probe.get("probe", MISSING))]
    if is_number(train := probe.get("train")):
        parts.append(f"{int(train):,} labels")
    if metric_of(probe) == "map":
        parts.append("mAP")
    for key, value in (more or {}).items():
        if value is not None:
            parts.append(_setting(key, value))
    return f" ({', '.join(parts)})"


def settings_of(probe: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a probe and of its features; those of earlier versions have no `settings`."""
    own = probe.get("settings")
    features = {key: probe[key] for key in ("pooling", "dimensions") if key in probe}
    return {**features, **(own if isinstance(own, Mapping) else {})}


def _setting(key: str, value: object) -> str:
    """A setting in words: "k 20", "costs 0.1 1.0", "recalibrated", "not recalibrated"."""
    name = "labels from" if key == "labels" else key.replace("_", " ")
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
