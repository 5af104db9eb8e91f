"""The content of one run's section of the report: text, tables, charts and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import yaml
from markupsafe import Markup

from selftaught import figures
from selftaught.errors import readable
from selftaught.evaluation.baselines import label
from selftaught.report.classes import ClassSection, make_classes
from selftaught.report.commands import probe_command, repeat_command, resume_command
from selftaught.report.compare import MISSING, count, fraction, probe_details
from selftaught.report.embed import Picture, inline, picture, png_of
from selftaught.report.record import Record, is_number, last_part
from selftaught.report.verdict import Verdict, digits, integer, judge, optional
from selftaught.runs.sections import nest

PLAIN = ("step", "seconds", "images_per_second", "learning_rate")
"""Logged numbers that are not plotted."""
NO_SHORTCUT = "No shortcut detected."
QUALITY_NOTE = (
    "Effective rank: RankMe. Relative std: standard deviation of unit features over that of isotropic features; 0 if "
    "all images have the same feature. Alignment: mean squared distance between two augmented views of an image. "
    "Uniformity: lower if features of different images spread more. Dead channels have the same activation for all "
    "images."
)
MAX_CHARTS = 16
"""Limit on the number of curves and on the number of image grids, so that the page stays small."""


@dataclass(frozen=True)
class ProbeSection:
    """One probe: verdict, figure and table."""

    verdict: Verdict
    data: str
    """Full name of the labeled source, with the kind of probe and number of labels."""
    figure: Markup
    rows: Sequence[Sequence[str]]
    """Layer, accuracy, held-out accuracy, random weights, gain, regularization."""
    best: int
    """Index of the best layer's row; -1 if none was chosen on held-out images."""
    classes: ClassSection | None
    """Results by class at the best layer; None for probes of earlier versions."""
    note: str
    """How the probe was evaluated, and what each standard deviation is over."""


@dataclass(frozen=True)
class Analysis:
    """A shortcut audit, an evaluation with few labels, or an analysis of invariance or feature quality."""

    title: str
    figure: Markup
    verdicts: Sequence[str]


@dataclass(frozen=True)
class ShownImages:
    """Images that the task saved under one name."""

    name: str
    picture: Picture
    earlier: Sequence[tuple[str, Picture]]
    """Step and first row of each version saved during training."""


@dataclass(frozen=True)
class DrawnPicture:
    """Attention maps, nearest neighbors, filters or a style transfer."""

    title: str
    picture: Picture
    note: str


@dataclass(frozen=True)
class Section:
    """The content of one run's section."""

    record: Record
    title: str
    state: str
    """Status and step of an unfinished run; empty for a finished one."""
    resume: str
    """The command that resumes a stopped run, or empty."""
    facts: Sequence[tuple[str, str]]
    probes: Sequence[ProbeSection]
    analyses: Sequence[Analysis]
    """Evaluations with labels, shortcut audits, then analyses of invariance and of feature quality."""
    drawn: Sequence[DrawnPicture]
    curves: Sequence[Markup]
    more_curves: Sequence[Markup]
    broken: str
    """Warning about a loss that was infinite or NaN, or empty."""
    shown: Sequence[ShownImages]
    filters: Picture | None
    repeat: str
    probe_command: str
    config: str


def make_section(record: Record, number: int, limit: int) -> Section:
    """Build the section of one run.

    Args:
        record: the run.
        number: position on the page; makes element identifiers inside its charts unique.
        limit: maximum bytes per image.
    """
    weight = record.filters
    charts = draw_curves(record, f"run{number}")
    main_curves = max(2, len([name for name in charts if name == "loss" or name in chances(record)]))
    return Section(
        record=record,
        title=f"{record.pretext} from {last_part(record.source)}",
        state=unfinished(record),
        resume=resume_command(record),
        facts=gather_facts(record),
        probes=[make_table(probe, f"run{number}-probe{index}", record) for index, probe in enumerate(record.probes)],
        analyses=gather_analyses(record, f"run{number}"),
        drawn=gather_pictures(record, limit),
        curves=list(charts.values())[:main_curves],
        more_curves=list(charts.values())[main_curves:],
        broken=broken_loss(record),
        shown=[shown for name in list(record.shown)[:MAX_CHARTS] if (shown := gather_shown(record, name, limit))],
        filters=png_of(figures.filters(weight)) if weight is not None else None,
        repeat=repeat_command(record),
        probe_command=probe_command(record),
        config=yaml.safe_dump(nest(record.config), sort_keys=False, allow_unicode=True),
    )


def gather_analyses(record: Record, salt: str) -> list[Analysis]:
    """Evaluations with labels, shortcut audits, and analyses of invariance and feature quality of a run."""
    analyses = [label_analysis(table, f"{salt}-labels{index}") for index, table in enumerate(record.finetunes)]
    for index, table in enumerate(record.audits):
        figure = inline(figures.audit(table), f"{salt}-audit{index}", "pretext accuracy with each cue removed or added")
        verdicts = [str(row["verdict"]) for row in table["rows"] if row.get("uses_cue")]
        analyses.append(Analysis(f"Shortcut audit on {table['data']}", figure, verdicts or [NO_SHORTCUT]))
    for index, table in enumerate(record.invariances):
        figure = inline(figures.invariance(table), f"{salt}-invariance{index}", "invariance of every layer")
        analyses.append(Analysis(f"Invariance of every layer on {table['data']}", figure, []))
    for index, table in enumerate(record.qualities):
        figure = inline(figures.quality(table), f"{salt}-quality{index}", "feature quality of every layer")
        title = f"Feature quality of every layer on {count(table['images'])} images of {table['data']}"
        analyses.append(Analysis(title, figure, [QUALITY_NOTE]))
    return analyses


def gather_pictures(record: Record, limit: int) -> list[DrawnPicture]:
    """Pictures of a run; files that are not PNG images are left out."""
    pictures = [(facts, picture(path, record.path, limit)) for facts, path in record.pictures[:MAX_CHARTS]]
    return [
        DrawnPicture(readable(str(facts["title"])), image, readable(str(facts.get("note", ""))))
        for facts, image in pictures
        if image
    ]


def label_analysis(table: Mapping[str, Any], salt: str) -> Analysis:
    """Fine-tuning, or a probe with few labels: accuracy by number of labels."""
    first, test = table["results"][0]["rows"][0]["name"], integer(table, "test")
    title = f"{'Fine-tuning' if first == 'fine-tuned' else 'Probe with few labels'} on {table['data']}"
    figure = inline(figures.label_curve(table), salt, "accuracy by number of labeled images")
    notes = []
    for result in table["results"]:
        rows = [f"{row['name']} {with_std(row, 'accuracy', 'std', test)}" for row in result["rows"]]
        compared = [f"{first} minus {each['over']} {difference(each, test)}" for each in result["differences"]]
        images = f"{result['name']} ({count(int(result['images']))} images)"
        notes.append(f"{images}: {', '.join(rows)}{''.join(f'; {each}' for each in compared)}.")
    spread = f"Mean ± standard deviation over {table['repeated']}; bars are 95 % intervals. "
    return Analysis(title, figure, [*notes, spread + overlap_note(table)])


def difference(compared: Mapping[str, Any], test: int | None) -> str:
    """A difference of two accuracies with its 95 % interval."""
    value, low, high = (f"{compared[key]:+.{digits(test)}f}" for key in ("value", "low", "high"))
    return f"{value} (95 % interval {low} to {high})"


def gather_shown(record: Record, name: str, limit: int) -> ShownImages | None:
    """Images saved under one name, or None if they cannot be read."""
    last = picture(record.shown[name], record.path, limit)
    if last is None:
        return None
    before = [(step, picture(path, record.path, limit, first_row=True)) for step, path in record.earlier[name]]
    earlier = [(f"step {count(step)}", image) for step, image in before if image]
    return ShownImages(name.replace("_", " "), last, earlier)


def unfinished(record: Record) -> str:
    """Status and step of an unfinished run; empty for a finished one."""
    if record.status == "finished":
        return ""
    total = record.state.get("steps", record.config.get("steps"))
    steps = f"step {count(record.step)} of {count(int(total))}" if is_number(total) else f"step {count(record.step)}"
    return {"interrupted": "Interrupted at", "failed": "Failed at", "running": "Running, at"}.get(
        record.status, "Status unknown; last logged at"
    ) + f" {steps}."


def broken_loss(record: Record) -> str:
    """Warning about a loss that was infinite or NaN; empty if there is none."""
    steps = [int(line["step"]) for line in record.log if "loss" in line and not is_number(line["loss"])]
    return (
        f"The loss was infinite or NaN at {count(len(steps))} logged steps, first at step {count(steps[0])}."
        if steps
        else ""
    )


def chances(record: Record) -> Mapping[str, float]:
    """Chance level of each logged number that has one."""
    levels = record.state.get("chance")
    return (
        {str(name): float(level) for name, level in levels.items() if is_number(level)}
        if isinstance(levels, dict)
        else {}
    )


def gather_facts(record: Record) -> list[tuple[str, str]]:
    """Names and values of the run's summary."""
    config, state = record.config, record.state
    rates = [line["images_per_second"] for line in record.log if is_number(line.get("images_per_second"))]
    images, minutes = state.get("images"), record.minutes
    logged = [
        (name, [line[name] for line in record.log if is_number(line.get(name))]) for name in ("loss", *chances(record))
    ]
    levels = {name: f", chance {level:.3f}" for name, level in chances(record).items()}
    facts = [
        ("source", record.source),
        ("images", count(int(images)) if is_number(images) else MISSING),
        ("images processed", count(record.images_processed)),
        ("steps", count(record.step)),
        ("batch size", text_of(config.get("batch_size"))),
        ("view size", f"{config['size']} px" if "size" in config else MISSING),
        ("minutes of training", MISSING if minutes is None else f"{minutes:,.1f}"),
        ("images per second", f"{median(rates):,.0f}" if rates else MISSING),
        *(
            (
                f"last {'pretext ' if name == 'accuracy' else ''}{name}".replace("_", " "),
                f"{values[-1]:.3f}{levels.get(name, '')}",
            )
            for name, values in logged
            if values
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


def make_table(probe: Mapping[str, Any], salt: str, record: Record) -> ProbeSection:
    """Figure and table of one probe."""
    verdict = judge(probe, record.published, record.baseline)
    names = [str(layer["layer"]) for layer in probe["layers"]]
    return ProbeSection(
        verdict=verdict,
        data=f"{probe.get('data', MISSING)}{probe_details(probe)}",
        figure=inline(
            figures.layers({record.name: probe}, label(record.baseline) or "trained"),
            salt,
            f"probe accuracy of every layer on {verdict.data}",
        ),
        rows=[layer_cells(layer, verdict.test) for layer in probe["layers"]],
        best=names.index(verdict.best) if verdict.best in names else -1,
        classes=make_classes(probe, f"{salt}-classes"),
        note=probe_note(probe),
    )


def layer_cells(layer: Mapping[str, Any], test: int | None) -> list[str]:
    """One layer as a row of `ProbeSection.rows`."""
    accuracy, random, penalty = (optional(layer, key) for key in ("accuracy", "random", "lambda"))
    gain = MISSING if accuracy is None or random is None else f"{accuracy - random:+.{digits(test)}f}"
    return [
        str(layer["layer"]),
        with_std(layer, "accuracy", "std", test),
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


def overlap_note(probe: Mapping[str, Any]) -> str:
    """How many test images were in pretraining; unknown for earlier versions, which compared names only."""
    overlap, test = probe.get("overlap"), integer(probe, "test")
    if not is_number(overlap):
        return "It is unknown whether the test images were part of the (unlabeled) pretraining set."
    if not overlap:
        return ""
    return f"Warning: {count(int(overlap))} of {count(test)} test images were part of the (unlabeled) pretraining set."


def with_std(layer: Mapping[str, Any], mean: str, std: str, test: int | None) -> str:
    """A mean with its standard deviation, if there is one."""
    value, deviation = fraction(optional(layer, mean), test), optional(layer, std)
    return value if deviation is None else f"{value} ± {deviation:.{digits(test)}f}"


def draw_curves(record: Record, salt: str) -> dict[str, Markup]:
    """A chart of every logged number: the loss first, then numbers with a chance level, then the others."""
    logged = {
        name: None for line in record.log for name, value in line.items() if name not in PLAIN and is_number(value)
    }
    ordered = sorted(logged, key=lambda name: (name != "loss", name not in chances(record)))[:MAX_CHARTS]
    return {
        name: inline(
            figures.curves({record.name: record.log}, name, chance=chances(record).get(name)),
            f"{salt}-{name}",
            f"{name} over training steps",
        )
        for name in ordered
    }
