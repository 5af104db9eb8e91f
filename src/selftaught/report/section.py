"""What the page says of one run, gathered: words, tables, charts and pictures."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import yaml
from markupsafe import Markup

from selftaught import figures
from selftaught.errors import readable
from selftaught.report.compare import MISSING, count, fraction, probe_details
from selftaught.report.embed import Picture, inline, picture, png_of
from selftaught.report.record import Record, is_number, last_part
from selftaught.report.verdict import Verdict, digits, judge, optional, whole
from selftaught.runs.sections import nest

PLAIN = ("step", "seconds", "images_per_second", "learning_rate")
"""Logged numbers that are no curve of their own."""
NOTHING_READ = "None of the cues that were offered is read."
MOST = 16
"""Curves beyond loss and accuracy, and pictures, at most so many: a page, not an archive."""


@dataclass(frozen=True)
class ProbeSection:
    """One probe: its verdict, figure and numbers."""

    verdict: Verdict
    data: str
    """What was probed on, in full."""
    figure: Markup
    rows: Sequence[Sequence[str]]
    """Layer, accuracy, held-out accuracy, random weights, gain, regularization."""
    best: int
    """Which row is the best layer; -1 where none was chosen on held-out images."""
    note: str
    """How it was measured and what each standard deviation is over."""


@dataclass(frozen=True)
class Analysis:
    """A question asked of the run beside what its layers learned: a figure, and what follows."""

    title: str
    figure: Markup
    verdicts: Sequence[str]


@dataclass(frozen=True)
class Shown:
    """Pictures of one name."""

    name: str
    picture: Picture
    earlier: Sequence[tuple[str, Picture]]
    """From during training, their first row each: when, and what it was."""


@dataclass(frozen=True)
class Section:
    """Everything the page shows of one run."""

    record: Record
    title: str
    state: str
    """What must be said of an unfinished run, or nothing."""
    resume: str
    """The command that goes on with a run that was stopped, or nothing."""
    facts: Sequence[tuple[str, str]]
    probes: Sequence[ProbeSection]
    analyses: Sequence[Analysis]
    """Audits of the pretext task, then what every layer sees past."""
    curves: Sequence[Markup]
    more_curves: Sequence[Markup]
    broken: str
    """What must be said of a loss that was no number, or nothing."""
    shown: Sequence[Shown]
    filters: Picture | None
    repeat: str
    probe_command: str
    config: str


def make_section(record: Record, number: int, limit: int) -> Section:
    """Gather what the page says of one run.

    Args:
        record: the run.
        number: its place on the page; makes what is inside its charts unique.
        limit: bytes that each of its pictures may take.
    """
    weight = record.filters
    charts = draw_curves(record, f"run{number}")
    early = len([name for name in charts if name == "loss" or name in chances(record)])
    path, config_path = (shlex.quote(readable(str(place))) for place in (record.path, record.path / "config.yaml"))
    return Section(
        record=record,
        title=f"{record.pretext} from {last_part(record.source)}",
        state=unfinished(record),
        resume=f"selftaught pretrain --resume --out {path}" if record.status in ("interrupted", "failed") else "",
        facts=gather_facts(record),
        probes=[
            make_table(probe, f"run{number}-probe{place}", record.published)
            for place, probe in enumerate(record.probes)
        ],
        analyses=gather_analyses(record, f"run{number}"),
        curves=list(charts.values())[: max(early, 2)],
        more_curves=list(charts.values())[max(early, 2) :],
        broken=broken_loss(record),
        shown=[shown for name in list(record.shown)[:MOST] if (shown := gather_shown(record, name, limit))],
        filters=png_of(figures.filters(weight)) if weight is not None else None,
        repeat=f"selftaught pretrain --config {config_path} --out {path}-again",
        probe_command=f"selftaught probe {path} --data LABELLED_IMAGES",
        config=yaml.safe_dump(nest(record.config), sort_keys=False, allow_unicode=True),
    )


def gather_analyses(record: Record, salt: str) -> list[Analysis]:
    """The audits and the invariances that were measured."""
    analyses: list[Analysis] = []
    for place, found in enumerate(record.audits):
        drawn = inline(figures.audit(found), f"{salt}-audit{place}", "pretext accuracy under every change of a cue")
        read = [str(answer["verdict"]) for answer in found["answers"] if answer.get("uses_cue")]
        analyses.append(
            Analysis(f"Is its task solved by shortcuts? Asked of {found['data']}", drawn, read or [NOTHING_READ])
        )
    for place, found in enumerate(record.invariances):
        drawn = inline(figures.invariance(found), f"{salt}-invariance{place}", "what every layer sees past")
        analyses.append(Analysis(f"What every layer sees past, on {found['data']}", drawn, []))
    return analyses


def gather_shown(record: Record, name: str, limit: int) -> Shown | None:
    """Pictures of one name, or None where they cannot be read."""
    last = picture(record.shown[name], record.path, limit)
    if last is None:
        return None
    before = [(step, picture(path, record.path, limit, first_row=True)) for step, path in record.earlier[name]]
    earlier = [(f"step {count(step)}", image) for step, image in before if image]
    return Shown(name.replace("_", " "), last, earlier)


def unfinished(record: Record) -> str:
    """What must be said of a run that is not finished."""
    if record.status == "finished":
        return ""
    total = record.state.get("steps", record.config.get("steps"))
    steps = f"step {count(record.step)} of {count(int(total))}" if is_number(total) else f"step {count(record.step)}"
    return {"interrupted": "Interrupted at", "failed": "Failed at", "running": "Still running, at"}.get(
        record.status, "Not known to have finished; last seen at"
    ) + f" {steps}."


def broken_loss(record: Record) -> str:
    """What must be said of a loss that was infinite or no number."""
    steps = [int(line["step"]) for line in record.log if "loss" in line and not is_number(line["loss"])]
    return (
        f"The loss was no finite number in {count(len(steps))} logged steps, first at step {count(steps[0])}."
        if steps
        else ""
    )


def chances(record: Record) -> Mapping[str, float]:
    """Chance level of each logged number that has one."""
    found = record.state.get("chance")
    return (
        {str(name): float(level) for name, level in found.items() if is_number(level)}
        if isinstance(found, dict)
        else {}
    )


def gather_facts(record: Record) -> list[tuple[str, str]]:
    """The numbers by which one run is told from another."""
    config, state = record.config, record.state
    rates = [line["images_per_second"] for line in record.log if is_number(line.get("images_per_second"))]
    images, minutes = state.get("images"), record.minutes
    ends = [
        (name, [line[name] for line in record.log if is_number(line.get(name))]) for name in ("loss", *chances(record))
    ]
    levels = {name: f", chance {level:.3f}" for name, level in chances(record).items()}
    facts = [
        ("source", record.source),
        ("images", count(int(images)) if is_number(images) else MISSING),
        ("images seen", count(record.images_seen)),
        ("steps", count(record.step)),
        ("batch size", text_of(config.get("batch_size"))),
        ("view size", f"{config['size']} px" if "size" in config else MISSING),
        ("minutes of training", MISSING if minutes is None else f"{minutes:,.1f}"),
        ("images per second", f"{median(rates):,.0f}" if rates else MISSING),
        *(
            (
                f"last {'pretext ' if name == 'accuracy' else ''}{name}".replace("_", " "),
                f"{seen[-1]:.3f}{levels.get(name, '')}",
            )
            for name, seen in ends
            if seen
        ),
        ("seed", text_of(config.get("seed"))),
        ("precision", text_of(config.get("precision"))),
        ("hardware", text_of(state.get("hardware", config.get("device")))),
        ("versions", f"selftaught {text_of(state.get('version'))}, torch {text_of(state.get('torch'))}"),
    ]
    return facts


def text_of(value: object) -> str:
    """A setting as text."""
    return MISSING if value is None else str(value)


def make_table(probe: Mapping[str, Any], salt: str, published: bool) -> ProbeSection:
    """One probe as figure and numbers."""
    verdict = judge(probe, published)
    names = [str(layer["layer"]) for layer in probe["layers"]]
    return ProbeSection(
        verdict=verdict,
        data=f"{probe.get('data', MISSING)}{probe_details(probe)}",
        figure=inline(figures.layers({"trained": probe}), salt, f"probe accuracy of every layer on {verdict.data}"),
        rows=[layer_cells(layer, verdict.test) for layer in probe["layers"]],
        best=names.index(verdict.best) if verdict.best in names else -1,
        note=probe_note(probe),
    )


def layer_cells(layer: Mapping[str, Any], test: int | None) -> list[str]:
    """One layer as a row of `ProbeSection.rows`."""
    accuracy, random, strength = (optional(layer, key) for key in ("accuracy", "random", "lambda"))
    gain = MISSING if accuracy is None or random is None else f"{accuracy - random:+.{digits(test)}f}"
    return [
        str(layer["layer"]),
        with_std(layer, "accuracy", "std", test),
        fraction(optional(layer, "held_out"), test),
        with_std(layer, "random", "random_std", test),
        gain,
        MISSING if strength is None else f"{strength:.3g}",
    ]


def probe_note(probe: Mapping[str, Any]) -> str:
    """How a probe was measured, what each standard deviation is over, and which test images were in pretraining."""
    facts = {
        "protocol": "protocol",
        "train": "training images",
        "test": "test images",
        "size": "view size",
        "dimensions": "dimensions",
    }
    measured = [
        f"{words} {count(int(value)) if is_number(value := probe[key]) else value}"
        for key, words in facts.items()
        if key in probe
    ]
    sentences = [
        f"Measured with: {', '.join(measured)}." if measured else "",
        str(probe.get("spread") or ""),
        str(probe.get("note") or ""),
        overlap_note(probe),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def overlap_note(probe: Mapping[str, Any]) -> str:
    """How many test images were in pretraining. Earlier versions guessed it from names: that counts as unknown."""
    seen, test = probe.get("seen"), whole(probe, "test")
    if not is_number(seen):
        return "It is unknown whether the test images were part of the (unlabeled) pretraining set."
    if not seen:
        return ""
    return f"Warning: {count(int(seen))} of {count(test)} test images were part of the (unlabeled) pretraining set."


def with_std(layer: Mapping[str, Any], mean: str, std: str, test: int | None) -> str:
    """A mean with its standard deviation, where it has one."""
    around = optional(layer, std)
    return fraction(optional(layer, mean), test) + (f" ± {around:.{digits(test)}f}" if around is not None else "")


def draw_curves(record: Record, salt: str) -> dict[str, Markup]:
    """A chart of every logged number: loss first, then what has a chance level, then the others."""
    logged = {
        name: None for line in record.log for name, value in line.items() if name not in PLAIN and is_number(value)
    }
    ordered = sorted(logged, key=lambda name: (name != "loss", name not in chances(record)))[:MOST]
    return {
        name: inline(
            figures.curves({record.name: record.log}, name, chance=chances(record).get(name)),
            f"{salt}-{name}",
            f"{name} over training steps",
        )
        for name in ordered
    }
