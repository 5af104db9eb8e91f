"""Analyses of a run on images without labels: invariance, feature quality and the shortcut audit."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from selftaught.analysis.audit import audit
from selftaught.analysis.audit_table import AuditTable, best_layers
from selftaught.analysis.invariance import InvarianceTable
from selftaught.analysis.quality import QualityTable
from selftaught.api.loaded import load_trained, stamp_of
from selftaught.config.build import load_pretraining, open_unseen, unseen_source
from selftaught.contracts import Source
from selftaught.errors import UserError, require_between
from selftaught.evaluation.results import file_stem
from selftaught.limits import NUM_IMAGES
from selftaught.runs.atomic import write_text
from selftaught.runs.folder import RunFolder
from selftaught.training.plan import choose_device

Analysis = TypeVar("Analysis", InvarianceTable, QualityTable)


def analyze_run(
    folder: RunFolder,
    measure: Callable[..., Analysis],
    figure: Callable[[Mapping[str, Any]], Any],
    results: Path,
    data: str | Path | Source,
    *,
    images: int,
    size: int | None,
    device: str,
    **more: object,
) -> Analysis:
    """Measure every layer on unlabeled images, and write the table and its figure.

    Args:
        folder: the run.
        measure: the analysis, called with the arguments of every evaluation, `source`, `images` and `more`.
        figure: draws the table from its JSON.
        results: subfolder of the run for table and figure.
        data: images, labeled or not: a name or path (its test part, where there is one), or a source.
        images: number of images.
        size: side of the views in pixels; that of pretraining where None.
        device: auto, cpu, cuda ...
        more: further arguments of the analysis.
    """
    loaded = load_trained(folder, size, device)
    side = loaded.arguments["size"]
    require_between("--images", images, 2, NUM_IMAGES.high)
    results = folder.prepare_results(results)
    source = data if isinstance(data, Source) else open_unseen(data, side, images)
    table = measure(**loaded.arguments, source=source, images=images, **more)
    setting = {"images": source.fingerprint, "count": images, "size": side, **more}
    _write(folder, results / f"{file_stem(table.data, '', setting)}.json", table.to_json(), loaded.stamp, figure)
    return table


def audit_run(
    folder: RunFolder, data: str | Path | Source | None, *, images: int, seeds: int, device: str
) -> AuditTable:
    """See `Run.audit`."""
    from selftaught import figures  # here, because importing matplotlib takes a second

    results = folder.prepare_results(folder.audits)
    run, step = load_pretraining(folder, data if isinstance(data, str | Path) else None)
    stamp = stamp_of(step, run.encoder)
    if run.task.index_based and data is not None:
        raise UserError(f"{type(run.task).__name__} can be audited only on its pretraining images: omit --data.")
    if run.task.index_based:
        source = run.source
    elif data is None:
        source = unseen_source(folder)
    else:
        source = data if isinstance(data, Source) else open_unseen(data, run.source.side, images)
    table = audit(
        run.task,
        run.encoder,
        run.heads,
        source,
        images=images,
        seeds=seeds,
        device=choose_device(device),
        pretraining_ids=folder.read_image_ids(),
    )
    table = replace(table, probes=best_layers(_probes_of(folder, stamp)))
    setting = {"images": source.fingerprint, "count": images, "seeds": seeds, "side": source.side}
    _write(folder, results / f"{file_stem(table.data, '', setting)}.json", table.to_json(), stamp, figures.audit)
    return table


def _write(
    folder: RunFolder,
    path: Path,
    table: dict[str, Any],
    stamp: Mapping[str, object],
    figure: Callable[[Mapping[str, Any]], Any],
) -> None:
    """Write a table and its figure."""
    from selftaught.figures import svg

    folder.write_result(path, {**table, **stamp})
    write_text(path.with_suffix(".svg"), svg(figure(table)), folder.path)


def _probes_of(folder: RunFolder, stamp: Mapping[str, object]) -> list[dict[str, Any]]:
    """Probe results of these weights; results of earlier versions have no digest and are matched by step."""
    return [
        result
        for result in folder.read_probes()
        if result.get("step") == stamp["step"] and result.get("weights") in (None, stamp["weights"])
    ]
