"""A run: the folder that a pretraining wrote, and what can be asked of it."""

import json
import re
from pathlib import Path

from selftaught.build import fresh_encoder, load_encoder
from selftaught.contracts import Encoder, Source
from selftaught.data import open_splits
from selftaught.downstream.layers import Protocol, probe_layers
from selftaught.downstream.table import ProbeTable
from selftaught.training.folder import RunFolder, write_text
from selftaught.training.machine import keep_freed_memory
from selftaught.training.plan import choose_device


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
        device: str = "auto",
    ) -> ProbeTable:
        """Ask every layer what it learned, beside random weights, raw pixels and chance.

        Args:
            data: labelled images: a name or path, or sources to teach and to judge the probe.
            seeds: how many probes the spread is over.
            protocol: "fast" (closed form) or "paper" (SGD with augmentation).
            size: side of the views in pixels; by default that of pretraining.
            limit: take only this many images of each part.
            labels: CSV file with path and label.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `probes/` in the run.
        """
        keep_freed_memory()
        encoder, description = self.encoder, json.loads(self.folder.encoder.read_text())
        size = size or description["size"]
        parts = data if isinstance(data, tuple) else open_splits(data, side=size, limit=limit, labels=labels)
        train_part, test_part = parts

        def fresh(seed: int) -> Encoder:
            made = fresh_encoder(description, seed)
            made.look.load_state_dict(encoder.look.state_dict())  # a palette is what it reads, not what it learned
            return made

        table = probe_layers(
            encoder,
            fresh,
            train_part,
            test_part,
            size=size,
            seeds=seeds,
            protocol=protocol,
            device=choose_device(device),
        )
        self.folder.probes.mkdir(exist_ok=True)
        name = re.sub(r"\W+", "-", Path(table.data).name).strip("-")
        found = {**table.to_json(), "step": self.folder.read_status()["step"]}
        write_text(self.folder.probes / f"{name or 'images'}-{protocol}.json", json.dumps(found, indent=1))
        return table

    def report(self, out: Path | None = None) -> Path:
        """Write the run as one self-contained page; returns where it is."""
        from selftaught.report import write_report

        return write_report([self.path], out or self.path / "report.html")
