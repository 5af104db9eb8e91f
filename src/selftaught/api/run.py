"""`Run`: the folder of a pretraining run, with methods to probe, audit and report it.

Detectors, segmentation, figures and reports are imported where they are used: torchvision's models take seconds, and
matplotlib takes one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftaught.analysis.audit_table import AuditTable
from selftaught.analysis.invariance import InvarianceTable, invariance
from selftaught.analysis.quality import QualityTable, measure_quality
from selftaught.analysis.style import StyleTransfer
from selftaught.api import pictures
from selftaught.api.labeled import LabeledImages, finetune_run, probe_run, transfer_runs
from selftaught.api.pictures import Picture
from selftaught.api.unlabeled import analyze_run, audit_run
from selftaught.config.build import load_encoder
from selftaught.contracts import Encoder, Source
from selftaught.data.annotated import open_boxes, open_masks
from selftaught.data.storage import Storage
from selftaught.evaluation.features import Pooling
from selftaught.evaluation.finetune_table import FineTuneTable
from selftaught.evaluation.finetuning import FineTuning
from selftaught.evaluation.probes import Probe, make_probe
from selftaught.evaluation.table import ProbeTable
from selftaught.evaluation.transfer.table import TransferTable
from selftaught.runs.folder import RunFolder
from selftaught.training.interruption import Stop


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
        baselines: Sequence[str] | None = None,
        size: int | None = None,
        limit: int | None = None,
        labels: str | Path | None = None,
        recalibrate: bool | None = None,
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
            baselines: further baselines, each one more pass over the images: kmeans, pca, dictionary, scattering; "all"
                of them, or "none". By default all but pca, where they apply and are cheap, see docs/baselines.md.
            size: side of the views in pixels; by default that of pretraining.
            limit: number of training images; all test images are used.
            labels: CSV file with path and label.
            recalibrate: recompute the encoder's batch-norm statistics on whole training images first; by default after
                pretraining on tiles.
            device: auto, cpu, cuda ...
            storage: how the images are stored, see `open_source`; for the same result.

        Returns:
            The table, which is also written to `probes/` in the run, with the correctness of every test image.
        """
        chosen = make_probe(probe) if isinstance(probe, str) else probe
        images = LabeledImages(data, limit, labels, storage)
        return probe_run(
            self.folder, images, chosen, seeds=seeds, pooling=pooling, dimensions=dimensions, baselines=baselines,
            size=size, recalibrate=recalibrate, device=device,
        )  # fmt: skip

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
        images = LabeledImages(data, limit, labels, storage)
        return finetune_run(self.folder, images, FineTuning(**settings), size, device, stop)

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
        from selftaught.evaluation.transfer.detection import DetectionTransfer

        own = {name: settings.pop(name) for name in ("detector", "head_width") if name in settings}
        folders = [self.folder, *(run.folder for run in others)]
        return transfer_runs(folders, DetectionTransfer(**own), open_boxes, data, **settings)

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
        from selftaught.evaluation.transfer.segmentation import SegmentationTransfer

        folders = [self.folder, *(run.folder for run in others)]
        return transfer_runs(folders, SegmentationTransfer(), open_masks, data, **settings)

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
        from selftaught import figures

        return analyze_run(
            self.folder, invariance, figures.invariance, self.folder.invariances, data, images=images, size=size,
            device=device, seeds=seeds,
        )  # fmt: skip

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
        from selftaught import figures

        return analyze_run(
            self.folder, measure_quality, figures.quality, self.folder.qualities, data, images=images, size=size,
            device=device,
        )  # fmt: skip

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
        return audit_run(self.folder, data, images=images, seeds=seeds, device=device)

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
        return pictures.attention(
            self.folder, data, layers=layers, powers=powers, images=images, size=size, device=device
        )

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
            self.folder, data, layers=layers, queries=queries, k=k, images=images, size=size, device=device
        )

    def filters(self, *others: "Run") -> Picture:
        """Draw the first-layer filters of this run, of other runs, and of random weights of this one's encoder.

        Returns:
            The picture, in `pictures/` of this run.
        """
        return pictures.filters(self.folder, [run.folder for run in others])

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
            self.folder, content, style, size=size, random=random, out=out, device=device, stop=stop,
            settings=StyleTransfer(**settings),
        )  # fmt: skip

    def report(self, out: str | Path | None = None) -> Path:
        """Write a self-contained HTML report of the run and return its path."""
        from selftaught.report import write_report

        return write_report([self.path], Path(out) if out is not None else self.folder.report)
