"""A run: the folder that a pretraining wrote, and what can be asked of it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftaught.build import fresh_encoder, load_encoder, load_pretraining, open_unseen, unseen_source
from selftaught.contracts import Encoder, Source
from selftaught.data import open_splits
from selftaught.data.crops import Crops
from selftaught.downstream.answers import AuditTable, best_layers
from selftaught.downstream.audit import audit
from selftaught.downstream.invariance import InvarianceTable, invariance
from selftaught.downstream.layers import Protocol, probe_layers
from selftaught.downstream.table import ProbeTable
from selftaught.errors import UserError
from selftaught.parts.heads import require_readable
from selftaught.training.folder import RunFolder
from selftaught.training.plan import choose_device
from selftaught.training.whole import write_text


class Run:
    """A folder that a pretraining wrote.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(Path(path))
        self.folder.must_be_run()

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder.path

    @property
    def finished(self) -> bool:
        """Whether all its steps are done."""
        return bool(self.folder.read_status().get("status") == "finished")

    @property
    def encoder(self) -> Encoder:
        """The trained encoder, in eval mode on the CPU."""
        return load_encoder(self.folder)

    def probe(
        self,
        data: str | Path | tuple[Source, Source],
        *,
        seeds: int = 1,
        protocol: Protocol = "fast",
        size: int | None = None,
        limit: int | None = None,
        labels: Path | None = None,
        baselines: ProbeTable | None = None,
        device: str = "auto",
    ) -> ProbeTable:
        """Ask every layer what it learned, beside random weights, raw pixels and chance.

        Args:
            data: labelled images: a name or path, or sources to teach and to judge the probe.
            seeds: how many probes the spread is over.
            protocol: "fast" (closed form), "paper" (SGD with augmentation) or "knn" (nearest neighbours).
            size: side of the views in pixels; by default that of pretraining.
            limit: take only this many images of each part.
            labels: CSV file with path and label.
            baselines: an earlier table of the same encoder and images, see `probe_layers`.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `probes/` in the run.
        """
        encoder, description, size = self._ready(size)
        parts = data if isinstance(data, tuple) else open_splits(data, side=size, limit=limit, labels=labels)
        train_part, test_part = parts
        table = probe_layers(
            encoder,
            _fresh(encoder, description),
            train_part,
            test_part,
            size=size,
            seeds=seeds,
            protocol=protocol,
            device=choose_device(device),
            recalibrate=bool(description.get("tiled")),
            baselines=baselines,
        )
        # Where pretraining had labels, or parts that come apart, its own part is in the name of its source.
        table = replace(table, seen=_place(test_part.name) == _place(str(self.folder.read_status().get("source"))))
        fewer = f"-{limit}" if limit else ""  # a table of its own: what do few labels do?
        self._keep(self.folder.probes / f"{_stem(table.data)}-{protocol}{fewer}.json", table.to_json())
        return table

    def invariance(
        self,
        data: str | Path | Source,
        *,
        images: int = 1000,
        seeds: int = 1,
        size: int | None = None,
        device: str = "auto",
    ) -> InvarianceTable:
        """Ask every layer which changes of an image it sees past, beside random weights.

        Args:
            data: images, labelled or not: a name or path (the test part is taken, where there is one), or a source.
            images: how many are asked.
            seeds: each draws other changes and other random weights.
            size: side of the views in pixels; by default that of pretraining.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `invariance/` in the run, with its figure.
        """
        from selftaught.figures import invariance as drawn
        from selftaught.figures import svg

        encoder, description, size = self._ready(size)
        if images < 2:
            raise UserError(f"--images must be at least 2, found {images}: give a larger one.")
        table = invariance(
            encoder,
            _fresh(encoder, description),
            data if isinstance(data, Source) else open_unseen(data, size, images),
            size=size,
            images=images,
            seeds=seeds,
            device=choose_device(device),
            recalibrate=bool(description.get("tiled")),
        )
        path = self.folder.path / "invariance" / f"{_stem(table.data)}.json"
        self._keep(path, table.to_json())
        write_text(path.with_suffix(".svg"), svg(drawn(table.to_json())))
        return table

    def audit(
        self,
        data: str | Path | Source | None = None,
        *,
        images: int = 1000,
        seeds: int = 1,
        device: str = "auto",
    ) -> AuditTable:
        """Ask the pretext task again with cues removed, planted and guarded against: is it solved by shortcuts?

        Args:
            data: images, labelled or not: a name or path (the test part is taken, where there is one), or a source; by
                default the test part of the run's own, or other crops of its photos.
            images: how many are asked.
            seeds: how often each is asked, every time in other views.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `audit/` in the run, with its figure.
        """
        from selftaught.figures import audit as drawn
        from selftaught.figures import svg

        run = load_pretraining(self.folder)
        if run.task.remembers and data is not None:
            raise UserError(
                f"{type(run.task).__name__} knows the images of its pretraining and no others, found other --data: "
                "leave it out."
            )
        if run.task.remembers:
            source = run.source
        elif data is None:
            source = unseen_source(self.folder)
        else:
            source = data if isinstance(data, Source) else open_unseen(data, run.source.side, images)
        table = audit(
            run.task, run.encoder, run.heads, source, images=images, seeds=seeds, device=choose_device(device)
        )
        # By name too: a part of the images, or those of another size, have a fingerprint of their own. Crops of photos
        # are others with every seed, whatever their name.
        same = not isinstance(source, Crops) and _place(source.name) == _place(run.source.name)
        seen = same or source.fingerprint == run.source.fingerprint
        table = replace(table, seen=seen, probes=best_layers(self._probes()))
        path = self.folder.path / "audit" / f"{_stem(table.data)}.json"
        self._keep(path, table.to_json())
        write_text(path.with_suffix(".svg"), svg(drawn(table.to_json())))
        return table

    def _probes(self) -> list[dict[str, Any]]:
        """The probes of the encoder as it stands."""
        step = self.folder.read_status()["step"]
        found = [json.loads(path.read_text()) for path in sorted(self.folder.probes.glob("*.json"))]
        return [probe for probe in found if probe.get("step") == step]

    def _ready(self, size: int | None) -> tuple[Encoder, dict[str, Any], int]:
        """The encoder, what it is, and the side of the views it is asked about: that of pretraining unless given."""
        encoder, description = self.encoder, json.loads(self.folder.encoder.read_text())
        side = int(description["size"]) if size is None else size
        require_readable(encoder, side, "view")
        return encoder, description, side

    def _keep(self, path: Path, found: dict[str, object]) -> None:
        """Write what was found, with the step at which the encoder stood."""
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps({**found, "step": self.folder.read_status()["step"]}, indent=1))

    def report(self, out: Path | None = None) -> Path:
        """Write the run as one self-contained page; returns where it is."""
        from selftaught.report import write_report

        return write_report([self.path], out or self.path / "report.html")


def _fresh(encoder: Encoder, description: dict[str, Any]) -> Callable[[int], Encoder]:
    """Seed -> the same encoder with random weights."""

    def fresh(seed: int) -> Encoder:
        made = fresh_encoder(description, seed)
        made.look.load_state_dict(encoder.look.state_dict())  # a palette is what it reads, not what it learned
        return made

    return fresh


def _place(name: str) -> str:
    """Where images come from, by the name of their source, be it that of the test part.

    The part that pretraining had stays in the name, so that two names are alike where it had everything.
    """
    return str(Path(re.sub(r" \(test[^()]*\)$", "", name)).absolute())


def _stem(data: str) -> str:
    """What files about some images are called."""
    return re.sub(r"\W+", "-", Path(data).name).strip("-") or "images"
