"""Accuracy of encoders that were not pretrained: raw pixels, random weights, k-means and PCA, scattering.

    python -m recipes.baselines --data cifar10 --limit 20000
    python -m recipes.baselines --data cifar10 --only scattering --dimensions 8748

Each is probed with the `ridge` probe.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from recipes.experiment import spread
from selftaught.contracts import Encoder, Source
from selftaught.data import open_splits
from selftaught.encoders import make_encoder
from selftaught.evaluation.baselines import FIXED, prepare, title
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.probes import ProbeResult, RidgeProbe
from selftaught.training.randomness import seeded_rng

CPU = torch.device("cpu")


def main() -> None:
    """Print a table: a row per baseline and layer."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", default="cifar10")
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--limit", type=int, help="training images of the probe")
    options.add_argument("--encoder", default="convnet")
    options.add_argument("--seeds", type=int, default=3, help="initializations of all but pixels and scattering")
    options.add_argument("--threads", type=int, default=0)
    options.add_argument("--dimensions", type=int, default=RidgeProbe.dimensions, help="of pooled features")
    options.add_argument("--only", nargs="+", default=["pixels", "random", "kmeans", "pca", "scattering"])
    given = options.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    train, test = open_splits(given.data, side=given.size, limit=given.limit)
    print(
        f"| {given.encoder} | layer | dimensions | accuracy | held-out | penalty |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name in given.only:
        seeds = range(1 if name in FIXED else given.seeds)
        encoders = [partial(_encoder, name, given, seed, train) for seed in seeds]
        _print_rows(title(name), encoders, train, test, Viewing(given.size, CPU, given.dimensions))


def _encoder(name: str, given: argparse.Namespace, seed: int, train: Source) -> Encoder:
    with seeded_rng(seed, "weights"):
        encoder = make_encoder(name if name in FIXED else given.encoder, size=given.size)
    prepare(name, encoder, train, given.size, CPU, seed)
    return encoder


def _print_rows(
    name: str, encoders: list[Callable[[], Encoder]], train: Source, test: Source, viewing: Viewing
) -> None:
    found: list[dict[str, ProbeResult]] = []
    for make in encoders:
        encoder = make().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found.append(RidgeProbe().evaluate(encoder, train, test, viewing, 0, lambda phase, count: None))
    for layer, first in found[0].items():
        accuracy, held_out = ([getattr(result[layer], key) for result in found] for key in ("accuracy", "held_out"))
        print(
            f"| {name} | {layer} | {first.dimensions:,} | {spread(accuracy)} | {spread(held_out)} | {first.penalty} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
