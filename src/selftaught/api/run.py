"""`Run`: the folder of a pretraining run, with methods to probe, audit and report it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch

from selftaught.analysis.audit import audit
from selftaught.analysis.audit_table import AuditTable, best_layers
from selftaught.analysis.invariance import InvarianceTable, invariance
from selftaught.analysis.quality import QualityTable, measure_quality
from selftaught.analysis.style import StyleTransfer
from selftaught.api import pictures
from selftaught.api.pictures import Picture
from selftaught.config.build import STORE, fresh_encoder, load_encoder, load_pretraining, open_unseen, unseen_source
from selftaught.contracts import Encoder, Source
from selftaught.data import open_splits
from selftaught.data.annotated import Parts, open_boxes, open_masks
from selftaught.data.cache import cache_folder
from selftaught.data.storage import Storage
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import UserError, require_between
from selftaught.evaluation.features import Pooling
from selftaught.evaluation.finetune_table import FineTuneTable
from selftaught.evaluation.finetuning import FineTuning
from selftaught.evaluation.layers import probe_layers
from selftaught.evaluation.probes import Probe, make_probe, name_of
from selftaught.evaluation.results import file_stem
from selftaught.evaluation.table import ProbeTable
from selftaught.evaluation.transfer.contract import Transfer
from selftaught.evaluation.transfer.detection import DetectionTransfer
from selftaught.evaluation.transfer.segmentation import SegmentationTransfer
from selftaught.evaluation.transfer.settings import TransferSettings
from selftaught.evaluation.transfer.table import TransferTable
from selftaught.limits import NUM_IMAGES, SIZE
from selftaught.runs.atomic import write_bytes, write_text
from selftaught.runs.folder import RunFolder
from selftaught.runs.weights import weights_digest
from selftaught.training.interruption import Stop
from selftaught.training.plan import choose_device

Analysis = TypeVar("Analysis", InvarianceTable, QualityTable)


class _Arguments(TypedDict):
    """Arguments of every evaluation of an encoder."""

    encoder: Encoder
    fresh: Callable[[int], Encoder]
    """Seed -> the same encoder with random weights."""
    size: int
    """Side of the views in pixels."""
    device: torch.device
    recalibrate: bool


@dataclass(frozen=True)
class _Loaded:
    """The encoder of a run, ready to be evaluated."""

    arguments: _Arguments
    setting: Mapping[str, object]
    """The settings from which the encoder was built."""
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
        probe: str | Probe = "ridge",
        pooling: Pooling = "average",
        dimensions: int | None = None,
        baselines: Sequence[str] = (),
        size: int | None = None,
        limit: int | None = None,
        labels: str | Path | None = None,
        device: str = "auto",
        storage: Storage = "auto",
    ) -> ProbeTable:
        """Probe every layer, compared with random weights, raw pixels and chance.

        Args:
            data: labeled images: a name or path, or a training and a test source.
            seeds: number of probe seeds; reported as mean ± standard deviation.
            probe: ridge, logistic, sgd, knn, svm, mlp or conv, or a probe with other hyperparameters, such as
                `KNNProbe(k=20)`.
            pooling: how feature maps are pooled: average, max or bilinear.
            dimensions: maximum number of pooled features of a layer; by default that of the probe.
            baselines: further baselines, each one more pass over the images: kmeans, pca, scattering.
            size: side of the views in pixels; by default that of pretraining.
            limit: number of training images; all test images are used.
            labels: CSV file with path and label.
            device: auto, cpu, cuda ...
            storage: how the images are stored, see `open_source`; for the same result.

        Returns:
            The table, which is also written to `probes/` in the run, with the correctness of every test image.
        """
        probe = make_probe(probe) if isinstance(probe, str) else probe
        loaded = self._load(size, device)
        size = loaded.arguments["size"]
        folder = self.folder.prepare_results(self.folder.probes)
        if isinstance(data, tuple):
            train, test = data
        else:
            side = round(probe.zoom * size)
            train, test = open_splits(data, side=side, limit=limit, labels=labels, storage=storage)
        table = probe_layers(
            **loaded.arguments,
            train=train,
            test=test,
            seeds=seeds,
            probe=probe,
            pooling=pooling,
            dimensions=dimensions,
            baselines=baselines,
            pretraining_ids=self.folder.read_image_ids(),
            cache=cache_folder() / "baselines",
            encoder_setting=loaded.setting,
        )
        details = "-".join([name_of(probe), *([str(limit)] if limit else [])])
        setting = {
            "images": [train.fingerprint, test.fingerprint],
            "probe": repr(probe),
            **{name: getattr(table, name) for name in ("size", "seeds", "initializations", "pooling", "dimensions")},
            "limit": limit,
            **({"baselines": list(baselines)} if baselines else {}),
        }
        path = folder / f"{file_stem(table.data, details, setting)}.json"
        assert table.correctness is not None
        write_bytes(path.with_suffix(".npz"), table.correctness.npz(), self.path)
        listed = None if labels is None or isinstance(data, tuple) else str(labels)
        result = {**table.to_json(), "labels": listed, "correctness": path.with_suffix(".npz").name}
        self.folder.write_result(path, {**result, **loaded.stamp})
        return table

    def finetune(
        self,
        data: str | Path | tuple[Source, Source],
        *,
        size: int | None = None,
        limit: int | None = None,
        labels: str | Path | None = None,
        device: str = "auto",
        storage: Storage = "auto",
        stop: Stop | None = None,
        **settings: Any,
    ) -> FineTuneTable | None:
        """Fine-tune the encoder, or probe it with few labels, compared with training from scratch.

        Args:
            data: labeled images: a name or path, or a training and a test source.
            size: side of the views in pixels; by default that of pretraining.
            limit: number of training images; all test images are used.
            labels: CSV file with path and label.
            device: auto, cpu, cuda ...
            storage: how the images are stored, see `open_source`; for the same result.
            stop: request a stop from another thread; the same call continues.
            settings: any field of `evaluation.finetuning.FineTuning`: seeds, labels_per_class, frozen ...

        Returns:
            The table, which is also written to `finetune/` in the run, with the correctness of every test image; None
            if it was stopped.
        """
        from selftaught.api.finetune import finetune

        chosen = FineTuning(**settings)
        loaded = self._load(size, device)
        if isinstance(data, tuple):
            train, test = data
        else:
            side = round(STORE * loaded.arguments["size"])
            train, test = open_splits(data, side=side, limit=limit, labels=labels, storage=storage)
        return finetune(
            self.folder, **loaded.arguments, train=train, test=test, settings=chosen, stamp=loaded.stamp, stop=stop
        )

    def detection(self, data: str | Path, *others: "Run", **settings: Any) -> TransferTable | None:
        """Train the encoder as the backbone of a detector, compared with random weights and with other runs.

        Args:
            data: a folder in VOC's or COCO's layout, see `data.annotated.open_boxes`.
            others: further runs to compare.
            settings: any field of `TransferSettings` and of `DetectionTransfer`; `size`, `device` and `stop` as for
                `segmentation`.

        Returns:
            The table, which is also written to `transfer/` in this run, with all detections; None if it was stopped.
        """
        own = {name: settings.pop(name) for name in ("detector", "head_width") if name in settings}
        return self._transfer(DetectionTransfer(**own), open_boxes, data, others, **settings)

    def segmentation(self, data: str | Path, *others: "Run", **settings: Any) -> TransferTable | None:
        """Train the encoder with a fully convolutional head, compared with random weights and with other runs.

        Args:
            data: a folder with masks, see `data.annotated.open_masks`.
            others: further runs to compare.
            settings: any field of `TransferSettings`; `size`, longer side of the images in pixels, 320 by default;
                `device`; `stop`, to request a stop from another thread: the same call continues.

        Returns:
            The table, which is also written to `transfer/` in this run; None if it was stopped.
        """
        return self._transfer(SegmentationTransfer(), open_masks, data, others, **settings)

    def _transfer(
        self,
        transfer: Transfer[Any],
        open_parts: Callable[[str | Path, int], Parts[Any]],
        data: str | Path,
        others: Sequence["Run"],
        *,
        size: int = 320,
        device: str = "auto",
        stop: Stop | None = None,
        **settings: Any,
    ) -> TransferTable | None:
        from selftaught.api.transfer import RANDOM, Backbone, transfer_encoders

        chosen, runs = TransferSettings(**settings), [self, *others]
        names, loaded = run_names([run.path for run in runs]), [run._load(size, device) for run in runs]
        backbones = [
            Backbone(name, run.folder, str(each.stamp["weights"]), partial(_same, each.arguments["encoder"]))
            for name, run, each in zip(names, runs, loaded, strict=True)
        ]
        if chosen.random_weights:
            key = repr((RANDOM, sorted(loaded[0].setting.items())))
            backbones.append(Backbone(RANDOM, self.folder, key, loaded[0].arguments["fresh"]))
        return transfer_encoders(
            backbones, transfer, open_parts(data, size), chosen, data=str(data), size=size,
            device=loaded[0].arguments["device"], stamp=dict(loaded[0].stamp), stop=stop,
        )  # fmt: skip

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
        from selftaught.figures import invariance as figure

        return self._analyze(
            invariance, figure, self.folder.invariances, data, images=images, size=size, device=device, seeds=seeds
        )

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
        from selftaught.figures import quality as figure

        return self._analyze(
            measure_quality, figure, self.folder.qualities, data, images=images, size=size, device=device
        )

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

    def attention(
        self,
        data: str | Path | Source,
        *,
        layers: Sequence[str] = (),
        powers: Sequence[float] = (1, 2, 4),
        images: int = 6,
        size: int | None = None,
        device: str = "auto",
    ) -> Picture:
        """Draw attention maps of every layer over images, beside those of random weights.

        Args:
            data: images: a name or path (its test part, where there is one), a photo, or a source.
            layers: layers to draw; by default all, or the attention of the last block of a transformer with tokens.
            powers: exponents of the activations, above 0 and up to 16.
            images: number of images, evenly spread over the source.
            size: side of the views in pixels; by default that of pretraining.
            device: auto, cpu, cuda ...

        Returns:
            The picture, in `pictures/` of the run.
        """
        return pictures.attention(self, data, layers=layers, powers=powers, images=images, size=size, device=device)

    def neighbors(
        self,
        data: str | Path | Source,
        *,
        layers: Sequence[str] = (),
        queries: int = 6,
        k: int = 5,
        images: int = 2000,
        size: int | None = None,
        device: str = "auto",
    ) -> Picture:
        """Draw the nearest neighbors of images at every layer, beside those of random weights.

        Args:
            data: images, labeled or not: a name or path (its test part, where there is one), or a source. With labels,
                the fraction of neighbors of the same class is measured, over all images.
            layers: layers to draw; by default all.
            queries: number of images whose neighbors are drawn, evenly spread.
            k: number of neighbors of each.
            images: number of images among which neighbors are searched.
            size: side of the views in pixels; by default that of pretraining.
            device: auto, cpu, cuda ...

        Returns:
            The picture, in `pictures/` of the run.
        """
        return pictures.neighbors(
            self, data, layers=layers, queries=queries, k=k, images=images, size=size, device=device
        )

    def filters(self, *others: "Run") -> Picture:
        """Draw the first-layer filters of this run, of other runs, and of random weights of this one's encoder.

        Returns:
            The picture, in `pictures/` of this run.
        """
        return pictures.filters(self, others)

    def stylize(
        self,
        content: str | Path,
        style: str | Path,
        *,
        size: int = 256,
        random: bool = False,
        out: str | Path | None = None,
        device: str = "auto",
        stop: Stop | None = None,
        **settings: Any,
    ) -> Picture:
        """Transfer the style of one photo to another by the features of the encoder (Gatys et al., CVPR 2016).

        Args:
            content: image file, or name of a bundled photo.
            style: likewise.
            size: longer side of the two photos and of the result, in pixels.
            random: repeat it with random weights of the same encoder, beside the result.
            out: PNG file for the result alone; it must not exist.
            device: auto, cpu, cuda ...
            stop: request a stop from another thread; the image so far is then written.
            settings: any field of `analysis.style.StyleTransfer`: style_weight, steps, content_layers ...

        Returns:
            The picture with the photos and the result, in `pictures/` of the run.
        """
        from selftaught.api.stylize import style_transfer

        return style_transfer(
            self, content, style, size=size, random=random, out=out, device=device, stop=stop,
            settings=StyleTransfer(**settings),
        )  # fmt: skip

    def report(self, out: str | Path | None = None) -> Path:
        """Write a self-contained HTML report of the run and return its path."""
        from selftaught.report import write_report

        return write_report([self.path], Path(out) if out is not None else self.folder.report)

    def _analyze(
        self,
        measure: Callable[..., Analysis],
        figure: Callable[[Mapping[str, Any]], Any],
        folder: Path,
        data: str | Path | Source,
        *,
        images: int,
        size: int | None,
        device: str,
        **more: object,
    ) -> Analysis:
        """Measure every layer on unlabeled images, and write the table and its figure to a subfolder."""
        from selftaught.figures import svg

        loaded = self._load(size, device)
        size = loaded.arguments["size"]
        require_between("--images", images, 2, NUM_IMAGES.high)
        folder = self.folder.prepare_results(folder)
        source = data if isinstance(data, Source) else open_unseen(data, size, images)
        table = measure(**loaded.arguments, source=source, images=images, **more)
        setting = {"images": source.fingerprint, "count": images, "size": size, **more}
        path = folder / f"{file_stem(table.data, '', setting)}.json"
        self.folder.write_result(path, {**table.to_json(), **loaded.stamp})
        write_text(path.with_suffix(".svg"), svg(figure(table.to_json())), self.path)
        return table

    def _probes(self, stamp: Mapping[str, object]) -> list[dict[str, Any]]:
        """Probe results of these weights; results of earlier versions have no digest and are matched by step."""
        return [
            result
            for result in self.folder.read_probes()
            if result.get("step") == stamp["step"] and result.get("weights") in (None, stamp["weights"])
        ]

    def _load(self, size: int | None, device: str) -> _Loaded:
        """Load the encoder; by default, the side of the views is that of pretraining."""
        step = self._step()
        while True:  # a run being resumed may save new weights between two reads
            encoder, description = self.encoder, self.folder.read_description()
            step, before = self._step(), step
            if step == before:
                break
        side = int(description["size"]) if size is None else size
        require_between("--size", side, *SIZE)
        require_input_sizes(encoder, {"view": side})
        arguments = _Arguments(
            encoder=encoder,
            fresh=_fresh(encoder, description),
            size=side,
            device=choose_device(device),
            recalibrate=bool(description.get("uses_tiles")),
        )
        setting = {name: description[name] for name in ("name", "options", "size")}
        return _Loaded(arguments, setting, _stamp(step, encoder))

    def _step(self) -> object:
        return self.folder.read_status().get("step")


def _same(encoder: Encoder, seed: int) -> Encoder:
    """A pretrained encoder, which does not depend on a seed."""
    return encoder


def run_names(paths: Sequence[Path]) -> list[str]:
    """The names of run folders; with the folder above them where two are equal.

    Raises:
        UserError: a run is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a run is given twice: give every run once.")
    names = [path.resolve().name for path in paths]
    return [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for name, path in zip(names, paths, strict=True)
    ]


def _stamp(step: object, encoder: Encoder) -> dict[str, object]:
    """The step and digest that identify the weights of a result."""
    return {"step": step, "weights": weights_digest(encoder.state_dict())}


def _fresh(encoder: Encoder, description: Mapping[str, Any]) -> Callable[[int], Encoder]:
    """A function from a seed to the same encoder with random weights."""

    def fresh(seed: int) -> Encoder:
        made = fresh_encoder(dict(description), seed)
        made.preprocess.load_state_dict(encoder.preprocess.state_dict())  # a palette is not learned
        return made

    return fresh
