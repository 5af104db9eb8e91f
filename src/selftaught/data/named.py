"""Sources with a name: what torchvision downloads, and what scikit-learn and scikit-image carry in their packages."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.cache import cache_folder
from selftaught.data.reader import UNLABELED, Listed, Raw, Reader, readable
from selftaught.errors import UserError

SplitArgument = str | bool | None
"""How a class of torchvision is asked for a split: `split="val"`, `train=False`, or not at all."""


@dataclass(frozen=True)
class DatasetSpec:
    """A data set of torchvision: how to ask for its splits, and where its class keeps what we need."""

    what: str
    images: int
    class_name: str
    """Name of the class in `torchvision.datasets`."""
    train: SplitArgument
    test: SplitArgument
    items: str = "data"
    """Attribute with the images: an array, paths, or (path, label) pairs."""
    labels: str | None = "targets"
    """Attribute with the labels; None where `items` are pairs or there are no labels."""
    classes: str | None = "classes"
    more: tuple[tuple[str, object], ...] = ()
    """Further arguments."""


FILES = ("_image_files", "_labels")
DATASETS: Mapping[str, DatasetSpec] = MappingProxyType(
    {
        "cifar10": DatasetSpec("32 px, 10 kinds of things", 60_000, "CIFAR10", True, False),
        "cifar100": DatasetSpec("32 px, 100 kinds of things", 60_000, "CIFAR100", True, False),
        "mnist": DatasetSpec("28 px, handwritten digits, grey", 70_000, "MNIST", True, False),
        "fashion-mnist": DatasetSpec("28 px, clothes, grey", 70_000, "FashionMNIST", True, False),
        "svhn": DatasetSpec("32 px, house numbers", 99_289, "SVHN", "train", "test", labels="labels", classes=None),
        "stl10": DatasetSpec("96 px, 10 kinds of things", 13_000, "STL10", "train", "test", labels="labels"),
        "stl10-unlabeled": DatasetSpec("96 px, unlabelled", 100_000, "STL10", "unlabeled", None, labels=None),
        "imagenette": DatasetSpec(
            "160 px, 10 classes of ImageNet", 13_394, "Imagenette", "train", "val", "_samples", None,
            more=(("size", "160px"),),
        ),
        "flowers102": DatasetSpec("102 kinds of flower (few to train on)", 7_169, "Flowers102", "train", "test", *FILES),
        "food101": DatasetSpec("101 kinds of food", 101_000, "Food101", "train", "test", *FILES),
        "pets": DatasetSpec("37 breeds of cat and dog", 7_349, "OxfordIIITPet", "trainval", "test", "_images", "_labels"),
        "dtd": DatasetSpec("47 kinds of texture", 3_760, "DTD", "train", "test", *FILES),
        "eurosat": DatasetSpec("64 px, land from above", 27_000, "EuroSAT", None, None, "samples", None),
    }
)  # fmt: skip

PHOTOS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "china": ("sklearn", "datasets/images/china.jpg", "a temple under trees"),
        "flower": ("sklearn", "datasets/images/flower.jpg", "a dahlia"),
        "astronaut": ("skimage", "data/astronaut.png", "a portrait"),
        "brick": ("skimage", "data/brick.png", "a brick wall, grey"),
        "camera": ("skimage", "data/camera.png", "a cameraman, grey"),
        "chelsea": ("skimage", "data/chelsea.png", "a cat"),
        "coffee": ("skimage", "data/coffee.png", "a cup on a table"),
        "coins": ("skimage", "data/coins.png", "coins, grey"),
        "grass": ("skimage", "data/grass.png", "grass, grey"),
        "gravel": ("skimage", "data/gravel.png", "gravel, grey"),
        "hubble": ("skimage", "data/hubble_deep_field.jpg", "galaxies"),
        "ihc": ("skimage", "data/ihc.png", "stained tissue under the microscope"),
        "moon": ("skimage", "data/moon.png", "the moon, grey"),
        "motorcycle": ("skimage", "data/motorcycle_left.png", "a motorcycle in a garage"),
        "page": ("skimage", "data/page.png", "a printed page, grey"),
        "retina": ("skimage", "data/retina.jpg", "the back of an eye"),
        "rocket": ("skimage", "data/rocket.jpg", "a rocket on its pad"),
    }
)
"""Name -> package, file inside it, what it shows. All of them are in the packages' own files: nothing is downloaded."""

PACKAGES = MappingProxyType({"sklearn": "scikit-learn", "skimage": "scikit-image"})


class Row(NamedTuple):
    """One line of `selftaught list sources`."""

    name: str
    what: str
    images: int
    origin: str
    """Where it comes from: "bundled with ..." or "downloaded"."""


def list_sources() -> list[Row]:
    """Every name that can stand for a source: first those that need no network."""
    rows = [Row("digits", "8 px, handwritten digits, grey", 1_797, "bundled with scikit-learn")]
    for name, (package, _, what) in PHOTOS.items():
        rows.append(Row(name, f"one photo (use --crops): {what}", 1, f"bundled with {PACKAGES[package]}"))
    rows.extend(Row(name, known.what, known.images, "downloaded") for name, known in DATASETS.items())
    return rows


def photo_file(name: str) -> Path:
    """Where a bundled photo is.

    Raises:
        UserError: the package that carries it is not installed, or carries it no longer.
    """
    package, inside, _ = PHOTOS[name]
    found = importlib.util.find_spec(package)
    file = Path(found.origin).parent / inside if found and found.origin else None
    if file is None or not file.is_file():
        raise UserError(
            f"the photo {name!r} must come with {PACKAGES[package]}, found it missing: install selftaught[photos]."
        )
    return file


def dataset_splits(name: str, folder: Path | None = None, download: bool = True) -> dict[str, Reader]:
    """Read a data set by name, downloading it where it is not there yet.

    Args:
        name: "digits", or a key of `DATASETS`.
        folder: where downloads are kept; None for `downloads` in the cache folder.
        download: whether it may be downloaded where it is not there yet.

    Returns:
        "all", and "train" and "test" where the data set has them.
    """
    if name == "digits":
        return {"all": _digits()}
    known = DATASETS[name]
    place = folder or cache_folder() / "downloads"
    made = {"train": _torchvision_split(name, known, known.train, place, download)}
    if known.test is None:
        return {"all": made["train"]}
    made["test"] = _torchvision_split(name, known, known.test, place, download)
    return {"all": _concatenated(made["train"], made["test"]), **made}


def _digits() -> Listed:
    if importlib.util.find_spec("sklearn") is None:
        raise UserError(
            "the source 'digits' must come with scikit-learn, found it missing: install selftaught[photos]."
        )
    loaded = importlib.import_module("sklearn.datasets").load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)  # they hold 0 to 16
    titles = [f"digits:{index}" for index in range(len(images))]
    return Listed("digits", loaded.target.astype(np.int64), tuple("0123456789"), images, titles)


def _torchvision_split(name: str, known: DatasetSpec, split: SplitArgument, folder: Path, download: bool) -> Listed:
    class_name = getattr(importlib.import_module("torchvision.datasets"), known.class_name)
    asked = {} if split is None else {"train" if isinstance(split, bool) else "split": split}
    options = {"root": str(folder / name), **asked, **dict(known.more)}
    try:
        data = class_name(**options)
    except RuntimeError as error:  # torchvision's word for "not there yet"
        if not download:
            raise UserError(
                f"{name!r} is not on this machine, and only a data set that is named on the command line is "
                f"downloaded, not one that a config names: give SOURCE `{name}` to pretrain, or `--data {name}`."
            ) from error
        data = _download(name, class_name, options)
    return _listed(name, known, data)


def _download(name: str, class_name: Any, options: Mapping[str, object]) -> Any:
    try:
        Path(str(options["root"])).mkdir(parents=True, exist_ok=True)
        return class_name(**options, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        why = readable(str(error)).strip(".")
        raise UserError(
            f"{name!r} must be downloaded once to {options['root']}, found that it cannot be ({why}): "
            f"connect to a network, or hand in a folder or parquet files with the same images."
        ) from error


def _listed(name: str, known: DatasetSpec, data: Any) -> Listed:
    items: Any = getattr(data, known.items)
    labels = getattr(data, known.labels) if known.labels else None
    if known.items.endswith("samples"):
        items, labels = zip(*items, strict=True)
    raws: list[Raw]
    if isinstance(items[0], str | Path):
        raws = [Path(item) for item in items]
        titles = [path.name for path in raws if isinstance(path, Path)]
    else:
        pixels = np.asarray(items)
        if pixels.ndim == 4 and pixels.shape[1] == 3:
            pixels = pixels.transpose(0, 2, 3, 1)
        raws, titles = list(pixels), [f"{name}:{index}" for index in range(len(pixels))]
    if labels is None:
        return Listed(name, None, None, raws, titles)
    numbers = np.asarray(labels, dtype=np.int64)
    names = getattr(data, known.classes) if known.classes else range(int(numbers.max()) + 1)
    classes = tuple(word if isinstance(word, str) else ", ".join(map(str, np.atleast_1d(word))) for word in names)
    assert numbers.min() >= UNLABELED
    assert numbers.max() < len(classes)
    return Listed(name, numbers, classes, raws, titles)


def _concatenated(first: Listed, second: Listed) -> Listed:
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = np.concatenate([first.labels, second.labels])
    items, titles = [*first.items, *second.items], [*first.titles, *second.titles]
    return Listed(first.name, labels, first.classes, items, titles)
