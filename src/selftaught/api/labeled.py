"""Evaluations of a run on labeled images: probes, fine-tuning, and transfer to detection and segmentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from selftaught.api.finetune import finetune
from selftaught.api.loaded import Loaded, load_trained, run_names
from selftaught.api.projection import load_projection
from selftaught.api.transfer import RANDOM, Backbone, Comparison, transfer_encoders
from selftaught.config.build import STORAGE_SCALE
from selftaught.contracts import Encoder, Source
from selftaught.data import open_splits
from selftaught.data.annotated import Parts
from selftaught.data.cache import cache_folder
from selftaught.data.storage import Storage
from selftaught.errors import UserError
from selftaught.evaluation.embedding import Projection
from selftaught.evaluation.features import Pooling
from selftaught.evaluation.finetune_table import FineTuneTable
from selftaught.evaluation.finetuning import FineTuning
from selftaught.evaluation.layers import probe_layers
from selftaught.evaluation.probes import Probe, name_of
from selftaught.evaluation.results import file_stem
from selftaught.evaluation.table import ProbeTable
from selftaught.evaluation.transfer.contract import Transfer
from selftaught.evaluation.transfer.settings import TransferSettings
from selftaught.evaluation.transfer.table import TransferTable
from selftaught.modules.processes import processes
from selftaught.runs.atomic import write_bytes
from selftaught.runs.folder import RunFolder
from selftaught.training.distributed import explained, in_turn, joined
from selftaught.training.interruption import Stop


@dataclass(frozen=True)
class LabeledImages:
    """A training and a test source, or how to open them."""

    data: str | Path | tuple[Source, Source]
    limit: int | None = None
    labels: str | Path | None = None
    storage: Storage = "auto"

    def open(self, side: int) -> tuple[Source, Source]:
        """The training and the test images, stored with this side in pixels."""
        if isinstance(self.data, tuple):
            return self.data
        return open_splits(self.data, side=side, limit=self.limit, labels=self.labels, storage=self.storage)


def probe_run(
    folder: RunFolder,
    images: LabeledImages,
    probe: Probe,
    *,
    seeds: int,
    pooling: Pooling,
    dimensions: int | None,
    baselines: Sequence[str] | None,
    size: int | None,
    recalibrate: bool | None,
    device: str,
) -> ProbeTable:
    """See `Run.probe`. Several processes compute a part of the features each; the first one fits and writes."""
    with joined(device), explained():
        loaded = load_trained(folder, size, device)
        if recalibrate is not None:
            loaded.arguments["recalibrate"] = recalibrate
        results = processes().first(lambda: folder.prepare_results(folder.probes))
        train, test = in_turn(lambda: images.open(round(probe.zoom * loaded.arguments["size"])))
        projection, missing = _projection(folder, loaded) if probe.includes_embedding else (None, "")
        table = probe_layers(
            **loaded.arguments,
            train=train,
            test=test,
            seeds=seeds,
            probe=probe,
            pooling=pooling,
            dimensions=dimensions,
            baselines=baselines,
            projection=projection,
            pretraining_ids=folder.read_image_ids(),
            cache=cache_folder() / "baselines",
            encoder_setting=loaded.setting,
        )
        table = replace(table, note="\n".join(filter(None, [table.note, missing])))
        if processes().rank:
            return table
        details = "-".join([name_of(probe), *([str(images.limit)] if images.limit else [])])
        setting = {
            "images": [train.fingerprint, test.fingerprint],
            "probe": repr(probe),
            **{name: getattr(table, name) for name in ("size", "seeds", "initializations", "pooling", "dimensions")},
            "limit": images.limit,
            **({} if baselines is None else {"baselines": list(baselines)}),
            **({} if recalibrate is None else {"recalibrate": recalibrate}),
        }
        path = results / f"{file_stem(table.data, details, setting)}.json"
        assert table.observations is not None
        write_bytes(path.with_suffix(".npz"), table.observations.npz(), folder.path)
        listed = None if images.labels is None or isinstance(images.data, tuple) else str(images.labels)
        result = {**table.to_json(), "labels": listed, "correctness": path.with_suffix(".npz").name}
        folder.write_result(path, {**result, **loaded.stamp})
        return table


def _projection(folder: RunFolder, loaded: Loaded) -> tuple[Projection | None, str]:
    """The projection head of a run, or a sentence that says why it cannot be loaded."""
    try:
        return load_projection(folder, loaded), ""
    except UserError as error:
        return None, f"The embedding is left out: {str(error).rstrip('.')}."


def finetune_run(
    folder: RunFolder, images: LabeledImages, settings: FineTuning, size: int | None, device: str, stop: Stop | None
) -> FineTuneTable | None:
    """See `Run.finetune`. Several processes do a part of the trainings each; the first one writes the table."""
    with joined(device), explained():
        loaded = load_trained(folder, size, device)
        train, test = in_turn(lambda: images.open(round(STORAGE_SCALE * loaded.arguments["size"])))
        return finetune(
            folder, **loaded.arguments, train=train, test=test, settings=settings, stamp=loaded.stamp, stop=stop
        )


def transfer_runs(
    folders: Sequence[RunFolder],
    transfer: Transfer[Any],
    open_parts: Callable[[str | Path, int], Parts[Any]],
    data: str | Path,
    *,
    size: int = 320,
    device: str = "auto",
    stop: Stop | None = None,
    **settings: Any,
) -> TransferTable | None:
    """See `Run.detection` and `Run.segmentation`; the table is written to the first run."""
    chosen, names = TransferSettings(**settings), run_names([folder.path for folder in folders])
    loaded = [load_trained(folder, size, device) for folder in folders]
    backbones = [
        Backbone(name, folder, str(each.stamp["weights"]), partial(_same, each.arguments["encoder"]))
        for name, folder, each in zip(names, folders, loaded, strict=True)
    ]
    if chosen.random_weights:
        key = repr((RANDOM, sorted(loaded[0].setting.items())))
        backbones.append(Backbone(RANDOM, folders[0], key, loaded[0].arguments["fresh"]))
    others = [name for name, each in zip(names, loaded, strict=True) if _architecture(each) != _architecture(loaded[0])]
    shared = Comparison(
        transfer, open_parts(data, size), chosen, data=str(data), size=size, device=loaded[0].arguments["device"],
        note=_unequal(others, names[0]) if chosen.random_weights and others else "",
    )  # fmt: skip
    return transfer_encoders(backbones, shared, loaded[0].stamp, stop)


def _architecture(loaded: Loaded) -> tuple[object, object]:
    return loaded.setting["name"], loaded.setting["options"]


def _unequal(others: Sequence[str], first: str) -> str:
    """A note on runs whose encoder is another one than that of the random weights."""
    return (
        f"Random weights are those of the encoder of {first}. The encoder of {', '.join(others)} is another one, so "
        "the difference to random weights is not due to pretraining alone."
    )


def _same(encoder: Encoder, seed: int) -> Encoder:
    """A pretrained encoder, which does not depend on a seed."""
    return encoder
