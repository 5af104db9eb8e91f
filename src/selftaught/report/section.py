"""The content of one run's section of the report: text, tables, charts and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import yaml
from markupsafe import Markup

from selftaught import figures
from selftaught.report.analyses import Analysis, gather_analyses
from selftaught.report.commands import probe_command, repeat_command, resume_command
from selftaught.report.compare import count
from selftaught.report.embed import Picture, inline, png_of
from selftaught.report.images import MAX_CHARTS, DrawnPicture, ShownImages, gather_pictures, gather_shown
from selftaught.report.probe_names import MISSING
from selftaught.report.probe_section import ProbeSection, make_table
from selftaught.report.record import Record, is_number, last_part
from selftaught.report.transfers import TransferSection, make_transfers
from selftaught.runs.sections import nest

PLAIN = ("step", "seconds", "images_per_second", "learning_rate")
"""Logged numbers that are not plotted."""


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
    transfers: Sequence[TransferSection]
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
        transfers=make_transfers(record, limit),
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
