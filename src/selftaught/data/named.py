"""Named sources: torchvision data sets (downloaded), and images bundled with scikit-learn and scikit-image."""

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
"""Split argument of a torchvision class: the value of `split` or `train`; None if it has no such argument."""


@dataclass(frozen=True)
class DatasetSpec:
    """A torchvision data set: the arguments of its splits and the attributes with its images and labels."""

    description: str
    images: int
    """Number of images in all splits used."""
    class_name: str
    """Name of the class in `torchvision.datasets`."""
    train: SplitArgument
    test: SplitArgument
    items: str = "data"
    """Attribute with the images: an array, paths, or (path, label) pairs."""
    labels: str | None = "targets"
    """Attribute with the labels; None where `items` are pairs or there are no labels."""
    classes: str | None = "classes"
    extra_arguments: tuple[tuple[str, object], ...] = ()


FILES = ("_image_files", "_labels")
"""Private attributes with the image paths and labels of several torchvision classes."""
DATASETS: Mapping[str, DatasetSpec] = MappingProxyType(
    {
        "cifar10": DatasetSpec("32 px, 10 object classes", 60_000, "CIFAR10", True, False),
        "cifar100": DatasetSpec("32 px, 100 object classes", 60_000, "CIFAR100", True, False),
        "mnist": DatasetSpec("28 px, handwritten digits, grayscale", 70_000, "MNIST", True, False),
        "fashion-mnist": DatasetSpec("28 px, clothing, grayscale", 70_000, "FashionMNIST", True, False),
        "svhn": DatasetSpec("32 px, house numbers", 99_289, "SVHN", "train", "test", labels="labels", classes=None),
        "stl10": DatasetSpec("96 px, 10 object classes", 13_000, "STL10", "train", "test", labels="labels"),
        "stl10-unlabeled": DatasetSpec("96 px, unlabeled", 100_000, "STL10", "unlabeled", None, labels=None),
        "imagenette": DatasetSpec(
            "160 px, 10 classes of ImageNet", 13_394, "Imagenette", "train", "val", "_samples", None,
            extra_arguments=(("size", "160px"),),
        ),
        "flowers102": DatasetSpec("102 flower species (few to train on)", 7_169, "Flowers102", "train", "test", *FILES),
        "food101": DatasetSpec("101 dishes", 101_000, "Food101", "train", "test", *FILES),
        "pets": DatasetSpec("37 cat and dog breeds", 7_349, "OxfordIIITPet", "trainval", "test", "_images", "_labels"),
        "dtd": DatasetSpec("47 texture classes", 3_760, "DTD", "train", "test", *FILES),
        "eurosat": DatasetSpec("64 px, satellite images of land use", 27_000, "EuroSAT", None, None, "samples", None),
    }
)  # fmt: skip

PHOTOS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "china": ("sklearn", "datasets/images/china.jpg", "a temple under trees"),
        "flower": ("sklearn", "datasets/images/flower.jpg", "a dahlia"),
        "astronaut": ("skimage", "data/astronaut.png", "a portrait"),
        "brick": ("skimage", "data/brick.png", "a brick wall, grayscale"),
        "camera": ("skimage", "data/camera.png", "a cameraman, grayscale"),
        "chelsea": ("skimage", "data/chelsea.png", "a cat"),
        "coffee": ("skimage", "data/coffee.png", "a cup on a table"),
        "coins": ("skimage", "data/coins.png", "coins, grayscale"),
        "grass": ("skimage", "data/grass.png", "grass, grayscale"),
        "gravel": ("skimage", "data/gravel.png", "gravel, grayscale"),
        "hubble": ("skimage", "data/hubble_deep_field.jpg", "galaxies"),
        "ihc": ("skimage", "data/ihc.png", "stained tissue, microscopy"),
        "moon": ("skimage", "data/moon.png", "the moon, grayscale"),
        "motorcycle": ("skimage", "data/motorcycle_left.png", "a motorcycle in a garage"),
        "page": ("skimage", "data/page.png", "a printed page, grayscale"),
        "retina": ("skimage", "data/retina.jpg", "a retina (fundus photograph)"),
        "rocket": ("skimage", "data/rocket.jpg", "a rocket on its pad"),
    }
)
"""Name -> package, path of the file inside it, description. The packages contain these files; nothing is downloaded."""

PACKAGES = MappingProxyType({"sklearn": "scikit-learn", "skimage": "scikit-image"})


class Row(NamedTuple):
    """A row of `selftaught list sources`."""

    name: str
    description: str
    images: int
    origin: str
    """"bundled with ..." or "downloaded"."""


def list_sources() -> list[Row]:
    """All named sources, those that need no download first."""
    rows = [Row("digits", "8 px, handwritten digits, grayscale", 1_797, "bundled with scikit-learn")]
    for name, (package, _, content) in PHOTOS.items():
        rows.append(Row(name, f"one photo (use --num-crops): {content}", 1, f"bundled with {PACKAGES[package]}"))
    rows.extend(Row(name, spec.description, spec.images, "downloaded") for name, spec in DATASETS.items())
    return rows


def photo_file(name: str) -> Path:
    """Path of a bundled photo.

    Raises:
        UserError: its package is not installed, or no longer contains it.
    """
    package, inside, _ = PHOTOS[name]
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / inside if spec and spec.origin else None
    if file is None or not file.is_file():
        raise UserError(
            f"the photo {name!r} comes with {PACKAGES[package]}, which does not provide it here: install "
            f"selftaught[photos]."
        )
    return file


def dataset_splits(name: str, folder: Path | None = None, download: bool = True) -> dict[str, Reader]:
    """Load a data set by name, downloading it if necessary.

    Args:
        name: "digits", or a key of `DATASETS`.
        folder: folder of downloads; None for `downloads` in the cache folder.
        download: whether it may be downloaded if it is not on this machine.

    Returns:
        Readers by split: "all", and "train" and "test" if the data set has both.
    """
    if name == "digits":
        return {"all": _digits()}
    spec = DATASETS[name]
    root = folder or cache_folder() / "downloads"
    splits = {"train": _torchvision_split(name, spec, spec.train, root, download)}
    if spec.test is None:
        return {"all": splits["train"]}
    splits["test"] = _torchvision_split(name, spec, spec.test, root, download)
    return {"all": _concatenated(splits["train"], splits["test"]), **splits}


def _digits() -> Listed:
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("the source 'digits' needs scikit-learn: install selftaught[photos].")
    loaded = importlib.import_module("sklearn.datasets").load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)  # their range is 0 to 16
    titles = [f"digits:{index}" for index in range(len(images))]
    return Listed("digits", loaded.target.astype(np.int64), tuple("0123456789"), images, titles)


def _torchvision_split(name: str, spec: DatasetSpec, split: SplitArgument, folder: Path, download: bool) -> Listed:
    dataset_class = getattr(importlib.import_module("torchvision.datasets"), spec.class_name)
    split_argument = {} if split is None else {"train" if isinstance(split, bool) else "split": split}
    options = {"root": str(folder / name), **split_argument, **dict(spec.extra_arguments)}
    try:
        data = dataset_class(**options)
    except RuntimeError as error:  # torchvision raises it where the data set has not been downloaded
        if not download:
            raise UserError(
                f"{name!r} is not on this machine, and a data set named in a config is not downloaded automatically: "
                f"pass it on the command line, as SOURCE `{name}` of pretrain or `--data {name}`."
            ) from error
        data = _download(name, dataset_class, options)
    return _listed(name, spec, data)


def _download(name: str, dataset_class: Any, options: Mapping[str, object]) -> Any:
    try:
        Path(str(options["root"])).mkdir(parents=True, exist_ok=True)
        return dataset_class(**options, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        why = readable(str(error)).strip(".")
        raise UserError(
            f"cannot download {name!r} to {options['root']}: {why}. Connect to a network, or pass a folder or parquet "
            f"files with the same images."
        ) from error


def _listed(name: str, spec: DatasetSpec, data: Any) -> Listed:
    items: Any = getattr(data, spec.items)
    labels = getattr(data, spec.labels) if spec.labels else None
    if spec.items.endswith("samples"):
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
    names = getattr(data, spec.classes) if spec.classes else range(int(numbers.max()) + 1)
    classes = tuple(entry if isinstance(entry, str) else ", ".join(map(str, np.atleast_1d(entry))) for entry in names)
    assert numbers.min() >= UNLABELED
    assert numbers.max() < len(classes)
    return Listed(name, numbers, classes, raws, titles)


def _concatenated(first: Listed, second: Listed) -> Listed:
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = np.concatenate([first.labels, second.labels])
    items, titles = [*first.items, *second.items], [*first.titles, *second.titles]
    return Listed(first.name, labels, first.classes, items, titles)
