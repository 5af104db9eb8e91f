"""One probe in the report: verdict, figure, table and notes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from selftaught import figures
from selftaught.evaluation.baselines import label
from selftaught.evaluation.table import digits
from selftaught.report.classes import ClassSection, make_classes
from selftaught.report.compare import count, fraction
from selftaught.report.embed import inline
from selftaught.report.probe_names import MISSING, probe_label
from selftaught.report.record import Record, is_number
from selftaught.report.verdict import Verdict, judge, metric_of, optional, overlap_note


@dataclass(frozen=True)
class ProbeSection:
    """One probe: verdict, figure and table."""

    verdict: Verdict
    data: str
    """Full name of the labeled source, with the kind of probe and number of labels."""
    figure: Markup
    rows: Sequence[Sequence[str]]
    """Layer, accuracy or mAP, the same on held-out images, random weights, gain, regularization."""
    best: int
    """Index of the best layer's row; -1 if none was chosen on held-out images."""
    classes: ClassSection | None
    """Results by class at the best layer; None for probes of earlier versions."""
    note: str
    """How the probe was evaluated, and what each standard deviation is over."""


def make_table(probe: Mapping[str, Any], salt: str, record: Record) -> ProbeSection:
    """Figure and table of one probe."""
    verdict = judge(probe, record.published, record.baseline)
    names = [str(layer["layer"]) for layer in probe["layers"]]
    return ProbeSection(
        verdict=verdict,
        data=f"{probe.get('data', MISSING)}{probe_label(probe)}",
        figure=inline(
            figures.layers({record.name: probe}, label(record.baseline) or "trained"),
            salt,
            f"probe {verdict.metric.short} of every layer on {verdict.data}",
        ),
        rows=[layer_cells(layer, metric_of(probe), verdict.test) for layer in probe["layers"]],
        best=names.index(verdict.best) if verdict.best in names else -1,
        classes=make_classes(probe, f"{salt}-classes"),
        note=probe_note(probe),
    )


def layer_cells(layer: Mapping[str, Any], metric: str, test: int | None) -> list[str]:
    """One layer as a row of `ProbeSection.rows`; `metric` is the key of its accuracy or mAP."""
    accuracy, random, penalty = (optional(layer, key) for key in (metric, "random", "lambda"))
    gain = MISSING if accuracy is None or random is None else f"{accuracy - random:+.{digits(test)}f}"
    return [
        str(layer["layer"]),
        with_std(layer, metric, "std", test),
        fraction(optional(layer, "held_out"), test),
        with_std(layer, "random", "random_std", test),
        gain,
        MISSING if penalty is None else f"{penalty:.3g}",
    ]


def probe_note(probe: Mapping[str, Any]) -> str:
    """How a probe was evaluated, what the standard deviations are over, and the overlap with pretraining."""
    facts = {
        "probe": "probe",
        "train": "training images",
        "test": "test images",
        "size": "view size",
        "dimensions": "dimensions",
    }
    settings = [
        f"{label} {count(int(value)) if is_number(value := probe[key]) else value}"
        for key, label in facts.items()
        if key in probe
    ]
    sentences = [
        f"Evaluated with: {', '.join(settings)}." if settings else "",
        str(probe.get("spread") or ""),
        str((probe.get("layer_choice") or {}).get("note") or ""),
        str(probe.get("note") or ""),
        overlap_note(probe),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def with_std(layer: Mapping[str, Any], mean: str, std: str, test: int | None) -> str:
    """A mean with its standard deviation, if there is one."""
    value, deviation = fraction(optional(layer, mean), test), optional(layer, std)
    return value if deviation is None else f"{value} ± {deviation:.{digits(test)}f}"
