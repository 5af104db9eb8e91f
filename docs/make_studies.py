"""Generate docs/studies/: one page for each study that ships with the package, from its definition and its results.

    .venv/bin/python docs/make_studies.py     # part of `make docs`

Results are what `selftaught study` writes: README.md, outcome.json and the figures of its folder, copied to
results/studies/NAME/.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml
from make import DOCS, table, text

from selftaught.studies.definition import Changes, Comparison, Evaluation, Study
from selftaught.studies.library import load_study, names

PAGES = DOCS / "studies"
RESULTS = DOCS.parent / "results" / "studies"
NOT_RUN = "Not run yet."


def main() -> None:
    """Write every page and the list of pages."""
    PAGES.mkdir(exist_ok=True)
    rows = []
    for name in names():
        _, study = load_study(name)
        (PAGES / f"{name}.md").write_text(page(name, study))
        rows.append((f"[{name}]({name}.md)", text(study.question), verdict(name)))
    head = (
        "# The studies",
        "What each paper found, how it is tested here, and what came out. How studies work: [studies](../studies.md).",
        table(("study", "question", "verdict here"), rows),
        "*Generated from the studies and their results by `make docs`.*",
    )
    (PAGES / "README.md").write_text("\n\n".join(head) + "\n")


def page(name: str, study: Study) -> str:
    """The page of a study, as Markdown."""
    rows = [(f"**{variant}**", flow(changes)) for variant, changes in study.variants.items()]
    parts = [
        f"# {study.question}",
        f"**The paper:** {text(study.finding)} ({text(study.paper)})",
        "## How it is tested",
        table(("variant", "settings"), rows),
        f"All variants: {flow(study.settings)}, images: {images(study.source)}.",
        "\n".join(f"- {evaluation(each)}" for each in study.evaluations),
        f"The comparison that decides, of {study.seeds} seeds each:",
        f"- **{expectation(study, study.comparison)}**",
        *(
            ["Further comparisons:", "\n".join(f"- {expectation(study, each)}" for each in study.further)]
            if study.further
            else []
        ),
        *([text(study.note)] if study.note else []),
        "## Run it",
        f"    selftaught study {name} --plan\n    selftaught study {name}",
        f"`--scale small`: {changes_of(study.scales.small)}.",
        *([f"`--scale full`: {changes_of(study.scales.full)}."] if study.scales.full else []),
        "## Result",
        result(name),
        "*Generated from the study and its results by `make docs`.*",
    ]
    return "\n\n".join(parts) + "\n"


def flow(values: Mapping[str, Any]) -> str:
    """Settings in one line of YAML."""
    if not values:
        return "none"
    written = yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=10_000).strip()
    return f"`{written[1:-1]}`"


def images(source: Any) -> str:
    """The source of a study."""
    return ", ".join(source) if isinstance(source, list) else str(source)


def evaluation(each: Evaluation) -> str:
    """One evaluation: its kind and what was set."""
    given = each.model_dump(exclude_defaults=True)
    kind = given.pop(each.kind)
    shown = {**(kind if isinstance(kind, dict) else {}), **given}
    return f"{each.title}{f': {flow(shown)}' if shown else ''}"


def expectation(study: Study, one: Comparison) -> str:
    """A comparison and what is expected of it."""
    words = {"higher": "higher", "lower": "lower", "equal": f"equal within {one.margin}"}[one.expected]
    if study.evaluations[one.evaluation - 1].probe is None:
        where = "" if one.labels is None else f" ({one.labels})"
    else:
        layer = "best layer" if one.layer == "best" else one.layer
        where = f" ({layer})" if one.against_layer is None else f" ({layer} against {one.against_layer})"
    return f"{one.variant} against {one.against}{where}: {words}"


def changes_of(changes: Changes) -> str:
    """What a scale sets."""
    given = changes.model_dump(exclude_defaults=True, exclude={"evaluations"})
    parts = [flow(given.pop("settings"))] if given.get("settings") else []
    parts += [flow(given)] if given else []
    if changes.evaluations:
        parts.append("evaluated by " + " and ".join(map(evaluation, changes.evaluations)))
    return "; ".join(parts) or "as above"


def verdict(name: str) -> str:
    """The verdict of the result, with scale, seeds, and how many of the further comparisons had which verdict."""
    path = RESULTS / name / "outcome.json"
    if not path.exists():
        return NOT_RUN
    outcome = json.loads(path.read_text())
    seeds = f"{outcome['seeds']} seed{'s' if outcome['seeds'] != 1 else ''}"
    further = Counter(each["verdict"] if each else "undecided" for each in outcome["comparisons"][1:])
    counts = ", ".join(f"{count} {each}" for each, count in sorted(further.items()))
    more = f"; further comparisons: {counts}" if counts else ""
    so_far = f", {outcome['done']} of {outcome['runs']} runs so far" if outcome["done"] < outcome["runs"] else ""
    return f"**{outcome['verdict']}** ({outcome['scale']}, {seeds}{so_far}){more}"


def result(name: str) -> str:
    """The conclusion of the result's page, with a link to the rest."""
    path = RESULTS / name / "README.md"
    if not path.exists():
        return NOT_RUN
    conclusion = path.read_text().split("\n\n")[1]
    place = f"../../results/studies/{name}/README.md"
    return f"{conclusion}\n\n[Table, figure, further comparisons, command and cost]({place})"


if __name__ == "__main__":
    main()
