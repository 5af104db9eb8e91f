"""`Run`: the folder of a pretraining run, with methods to probe, audit and report it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selftaught.analysis.audit import audit
from selftaught.analysis.audit_table import AuditTable, best_layers
from selftaught.analysis.invariance import InvarianceTable, invariance
from selftaught.analysis.quality import QualityTable, measure_quality
from selftaught.config.build import fresh_encoder, load_encoder, load_pretraining, open_unseen, unseen_source
from selftaught.contracts import Encoder, Source
from selftaught.data import open_splits
from selftaught.data.cache import cache_folder
from selftaught.errors import UserError
from selftaught.evaluation.layers import Protocol, probe_layers
from selftaught.evaluation.probes import Probe, make_probe, protocol_of
from selftaught.evaluation.results import file_stem
from selftaught.evaluation.table import ProbeTable
from selftaught.modules.heads import require_input_size
from selftaught.runs.atomic import write_bytes, write_text
from selftaught.runs.folder import RunFolder
from selftaught.runs.weights import weights_digest
from selftaught.training.plan import choose_device

MOST_PIXELS = 4096
"""An upper bound on the side of views that catches typos, as for pretraining."""


@dataclass(frozen=True)
class _Loaded:
    """The encoder of a run and the stamp that identifies its weights."""

    encoder: Encoder
    description: Mapping[str, Any]
    """`encoder.json`."""
    stamp: Mapping[str, object]
    """`step` at which the weights were saved and a digest of the `weights`: part of every result."""


class Run:
    """A pretraining run.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(Path(path))
        self.folder.must_be_run()

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def finished(self) -> bool:
        """Whether training has completed all steps."""
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
        protocol: Protocol | Probe = "fast",
        size: int | None = None,
        limit: int | None = None,
        labels: str | Path | None = None,
        device: str = "auto",
    ) -> ProbeTable:
        """Probe every layer, compared with random weights, raw pixels and chance.

        Args:
            data: labeled images: a name or path, or a training and a test source.
            seeds: number of probe seeds; reported as mean ± standard deviation.
            protocol: "fast" (closed form), "paper" (SGD with augmentation) or "knn" (nearest neighbors), or a probe.
            size: side of the views in pixels; by default that of pretraining.
            limit: number of training images; all test images are used.
            labels: CSV file with path and label.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `probes/` in the run, with the correctness of every test image.
        """
        probe = make_probe(protocol) if isinstance(protocol, str) else protocol
        loaded, size = self._load(size)
        folder = self.folder.prepare_results(self.folder.probes)
        if isinstance(data, tuple):
            train, test = data
        else:
            listed = None if labels is None else Path(labels)
            train, test = open_splits(data, side=round(probe.zoom * size), limit=limit, labels=listed)
        table = probe_layers(
            loaded.encoder,
            _fresh(loaded),
            train,
            test,
            size=size,
            seeds=seeds,
            protocol=probe,
            device=choose_device(device),
            recalibrate=bool(loaded.description.get("uses_tiles")),
            pretraining_ids=self.folder.read_image_ids(),
            cache=cache_folder() / "baselines",
            encoder_setting={name: loaded.description[name] for name in ("name", "options", "size")},
        )
        details = "-".join([protocol_of(probe), *([str(limit)] if limit else [])])
        setting = {
            "images": [train.fingerprint, test.fingerprint],
            "probe": repr(probe),
            **{name: getattr(table, name) for name in ("size", "seeds", "initializations", "pooling", "dimensions")},
            "limit": limit,
        }
        path = folder / f"{file_stem(table.data, details, setting)}.json"
        assert table.correctness is not None
        write_bytes(path.with_suffix(".npz"), table.correctness.npz(), self.path)
        result = {**table.to_json(), "correctness": path.with_suffix(".npz").name}
        self.folder.write_result(path, {**result, **loaded.stamp})
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
        """Measure which transformations each layer is invariant to, compared with random weights.

        Args:
            data: images, labeled or not: a name or path (its test part, where there is one), or a source.
            images: number of images.
            seeds: number of seeds; each samples different transformations and random weights.
            size: side of the views in pixels; by default that of pretraining.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `invariance/` in the run, with its figure.
        """
        from selftaught.figures import invariance as drawn
        from selftaught.figures import svg

        loaded, size = self._load(size)
        if images < 2:
            raise UserError(f"--images must be at least 2, got {images}.")
        folder = self.folder.prepare_results(self.folder.invariances)
        source = data if isinstance(data, Source) else open_unseen(data, size, images)
        table = invariance(
            loaded.encoder,
            _fresh(loaded),
            source,
            size=size,
            images=images,
            seeds=seeds,
            device=choose_device(device),
            recalibrate=bool(loaded.description.get("uses_tiles")),
        )
        setting = {"images": source.fingerprint, "count": images, "seeds": seeds, "size": size}
        path = folder / f"{file_stem(table.data, '', setting)}.json"
        self.folder.write_result(path, {**table.to_json(), **loaded.stamp})
        write_text(path.with_suffix(".svg"), svg(drawn(table.to_json())), self.path)
        return table

    def quality(
        self,
        data: str | Path | Source,
        *,
        images: int = 2000,
        size: int | None = None,
        device: str = "auto",
    ) -> QualityTable:
        """Measure the feature quality of every layer without labels, compared with random weights.

        Args:
            data: images, labeled or not: a name or path (its test part, where there is one), or a source.
            images: number of images.
            size: side of the views in pixels; by default that of pretraining.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `quality/` in the run, with its figure.
        """
        from selftaught.figures import quality as drawn
        from selftaught.figures import svg

        loaded, size = self._load(size)
        if images < 2:
            raise UserError(f"--images must be at least 2, got {images}.")
        folder = self.folder.prepare_results(self.folder.qualities)
        source = data if isinstance(data, Source) else open_unseen(data, size, images)
        table = measure_quality(
            loaded.encoder,
            _fresh(loaded),
            source,
            size=size,
            images=images,
            device=choose_device(device),
            recalibrate=bool(loaded.description.get("uses_tiles")),
        )
        setting = {"images": source.fingerprint, "count": images, "size": size}
        path = folder / f"{file_stem(table.data, '', setting)}.json"
        self.folder.write_result(path, {**table.to_json(), **loaded.stamp})
        write_text(path.with_suffix(".svg"), svg(drawn(table.to_json())), self.path)
        return table

    def audit(
        self,
        data: str | Path | Source | None = None,
        *,
        images: int = 1000,
        seeds: int = 1,
        device: str = "auto",
    ) -> AuditTable:
        """Audit for shortcuts: measure the pretext accuracy with cues removed, planted and guarded against.

        Args:
            data: images, labeled or not: a name or path (its test part, where there is one), or a source; by default
                the test part of the pretraining images, or other crops of the pretraining photos.
            images: number of images.
            seeds: number of different random views of each image.
            device: auto, cpu, cuda ...

        Returns:
            The table, which is also written to `audit/` in the run, with its figure.
        """
        from selftaught.figures import audit as drawn
        from selftaught.figures import svg

        folder = self.folder.prepare_results(self.folder.audits)
        run, step = load_pretraining(self.folder, data if isinstance(data, str | Path) else None)
        stamp = _stamp(step, run.encoder)
        if run.task.index_based and data is not None:
            raise UserError(f"{type(run.task).__name__} can be audited only on its pretraining images: omit --data.")
        if run.task.index_based:
            source = run.source
        elif data is None:
            source = unseen_source(self.folder)
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
            pretraining_ids=self.folder.read_image_ids(),
        )
        table = replace(table, probes=best_layers(self._probes(stamp)))
        setting = {"images": source.fingerprint, "count": images, "seeds": seeds, "side": source.side}
        path = folder / f"{file_stem(table.data, '', setting)}.json"
        self.folder.write_result(path, {**table.to_json(), **stamp})
        write_text(path.with_suffix(".svg"), svg(drawn(table.to_json())), self.path)
        return table

    def report(self, out: str | Path | None = None) -> Path:
        """Write a self-contained HTML report of the run and return its path."""
        from selftaught.report import write_report

        return write_report([self.path], Path(out) if out is not None else self.folder.report)

    def _probes(self, stamp: Mapping[str, object]) -> list[dict[str, Any]]:
        """Probe results of these weights; results of earlier versions have no digest and are matched by step."""
        return [
            result
            for result in self.folder.read_probes()
            if result.get("step") == stamp["step"] and result.get("weights") in (None, stamp["weights"])
        ]

    def _load(self, size: int | None) -> tuple[_Loaded, int]:
        """The encoder with its stamp, and the side of the views; by default that of pretraining."""
        step = self._step()
        while True:  # a run being resumed may save new weights between two reads
            encoder, description = self.encoder, self.folder.read_description()
            step, before = self._step(), step
            if step == before:
                break
        side = int(description["size"]) if size is None else size
        if side > MOST_PIXELS:
            raise UserError(f"--size must be at most {MOST_PIXELS:,}, got {side:,}.")
        require_input_size(encoder, side, "view")
        return _Loaded(encoder, description, _stamp(step, encoder)), side

    def _step(self) -> object:
        return self.folder.read_status().get("step")


def _stamp(step: object, encoder: Encoder) -> dict[str, object]:
    """The step and digest that identify the weights of a result."""
    return {"step": step, "weights": weights_digest(encoder.state_dict())}


def _fresh(loaded: _Loaded) -> Callable[[int], Encoder]:
    """A function from a seed to the same encoder with random weights."""

    def fresh(seed: int) -> Encoder:
        made = fresh_encoder(dict(loaded.description), seed)
        made.preprocess.load_state_dict(
            loaded.encoder.preprocess.state_dict()
        )  # a palette is preprocessing, not learned features
        return made

    return fresh
