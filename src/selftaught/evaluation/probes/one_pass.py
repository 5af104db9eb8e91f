"""Steps that probes on pooled features share: collect training features, and score test images, in one pass each."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.errors import UserError
from selftaught.evaluation.features import Features, Viewing, layer_features
from selftaught.evaluation.probes.base import OnProgress, Probe, held_out, require_test_images, require_training_images
from selftaught.training.distributed import in_turn

Scorer = Callable[[Tensor], Tensor]
"""(n, d) float32 features -> (n, k) class scores, on the device."""


class OnePassProbe(Probe):
    """A probe that computes features in one pass over the training images and one over the test images."""

    def viewing_of(self, encoder: Encoder, viewing: Viewing) -> Viewing:
        """The pooling that the probe applies."""
        return viewing

    def assist(self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int) -> None:
        """See `Probe`: the features only, since the first process fits."""
        viewing = self.viewing_of(encoder, viewing)
        for _ in layer_features(encoder, train, viewing):
            pass
        in_turn(lambda: None)
        for _ in layer_features(encoder, test, viewing):
            pass


@dataclass(frozen=True)
class TrainingFeatures:
    """Pooled features of all labeled training images; they must fit in the memory of the device."""

    layers: dict[str, Tensor]
    """Name -> (N, d) float32."""
    labels: Tensor
    """(N,) int64."""
    held: Tensor
    """(N,) bool: whether each image is held out."""


def collect(encoder: Encoder, train: Source, viewing: Viewing, seed: int, on_progress: OnProgress) -> TrainingFeatures:
    """The features of all labeled training images, in one pass.

    Raises:
        UserError: labels are missing or too few, or the features do not fit in memory.
    """
    held = held_out(len(train), seed)
    parts: list[Features] = []
    for features in layer_features(encoder, train, viewing):
        if not parts:
            _require_memory(features, train, viewing.device)
        parts.append(features)
        on_progress("extracting features", len(features.labels))
    rows = torch.cat([held[part.index] for part in parts])
    require_training_images(int((~rows).sum()), int(rows.sum()), train)
    labels = torch.cat([part.labels for part in parts])
    layers = {}
    for name in list(parts[0].layers):
        layers[name] = torch.cat([part.layers.pop(name) for part in parts])  # popped: never two copies of all layers
    return TrainingFeatures(layers, labels, rows.to(labels.device))


def score(
    encoder: Encoder, test: Source, viewing: Viewing, scorers: Mapping[str, Scorer], on_progress: OnProgress
) -> tuple[dict[str, Tensor], Tensor]:
    """Class scores of every labeled test image, in one pass.

    Args:
        encoder: on the device.
        test: the images.
        viewing: view size, device and pooling.
        scorers: the classifier of each layer.
        on_progress: see `OnProgress`.

    Returns:
        Layer -> (n, k) scores, and the (n,) labels, all on the CPU.

    Raises:
        UserError: no test image has a label.
    """
    in_turn(lambda: None)  # the others wait here, however long the fit takes
    scores: dict[str, list[Tensor]] = {name: [] for name in scorers}
    labels = []
    for features in layer_features(encoder, test, viewing):
        for name, scorer in scorers.items():
            scores[name].append(scorer(features.layers[name]).float().cpu())
        labels.append(features.labels.cpu())
        on_progress("testing", len(features.labels))
    require_test_images(sum(map(len, labels)), test)
    return {name: torch.cat(parts) for name, parts in scores.items()}, torch.cat(labels)


def _require_memory(first: Features, train: Source, device: torch.device) -> None:
    """Refuse features that cannot fit in memory before they are computed; the kernel would kill the process."""
    if device.type != "cpu" or not first.labels.numel():  # CUDA raises an error of its own
        return
    needed = 4 * len(train) * sum(x.shape[1] for x in first.layers.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"this probe keeps all features in memory, {needed / 2**30:,.1f} GiB of {memory / 2**30:,.1f} GiB: lower "
            "--dimensions or --limit, or use --probe ridge or sgd."
        )
