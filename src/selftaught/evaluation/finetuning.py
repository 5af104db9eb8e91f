"""Settings of fine-tuning, and the accuracy of a classifier on whole images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Source
from selftaught.errors import UserError, require_ranges
from selftaught.evaluation.features import require_rates, require_seeds
from selftaught.evaluation.probes import probe_class
from selftaught.limits import BATCH, POSITIVE_FRACTION, Range
from selftaught.training.plan import Budget

DEFAULT_PROBE = "ridge"
EPOCHS, MIN_STEPS = 10, 300
"""Default budget: this many passes over the training images, and at least this many steps."""
DRAWS = Range(1, 100)
"""The upper bound catches typos."""
PAIRS = Range(2, BATCH.high)
"""A batch norm needs two images."""


@dataclass(frozen=True)
class FineTuning:
    """Settings of fine-tuning, or of a probe on frozen features, with few or all labels."""

    frozen: bool = False
    """Train a probe on the best frozen layer instead of fine-tuning the encoder."""
    probe: str = DEFAULT_PROBE
    """Name of the probe on frozen features, with its default hyperparameters."""
    from_scratch: bool = True
    """Train the same encoder from random weights as well, with the same images, budget and augmentation."""
    freeze_until: str | None = None
    """Layer that is not fine-tuned, nor are those before it."""
    layer_decay: float = 0.75
    """Ratio of the learning rates of neighboring layers in fine-tuning; from scratch all layers have one rate."""
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Peak learning rates of AdamW to choose from by validation accuracy."""
    minutes: float | None = None
    """Minutes of each training."""
    epochs: float | None = None
    """Passes over the training images in each training; default: 10, and at least 300 steps."""
    steps: int | None = None
    """Optimizer steps of each training."""
    batch_size: int = 64
    """Number of images per step."""
    labels_per_class: tuple[int, ...] = ()
    """Numbers of labeled images per class; default: all."""
    label_fraction: tuple[float, ...] = ()
    """Fractions of the labeled images, 0 to 1."""
    seeds: int = 3
    """Repetitions with all labels: initial weights, order, augmentation and validation images."""
    draws: int = 5
    """Repetitions with few labels, which also differ in the labeled images."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_seeds(self.seeds)
        require_ranges(self, draws=DRAWS, layer_decay=POSITIVE_FRACTION, batch_size=PAIRS)
        require_rates(self.learning_rates)
        if self.frozen and not (self.labels_per_class or self.label_fraction):
            raise UserError(
                "expected --finetune, --labels-per-class or --label-fraction, got none: use `selftaught probe` for a "
                "probe on all labels."
            )
        probe_class(self.probe)
        if not self.frozen and self.probe != DEFAULT_PROBE:
            raise UserError("--probe applies to frozen features: omit --finetune or --probe.")
        if self.frozen and self.freeze_until is not None:
            raise UserError("--freeze-until applies to fine-tuning: give --finetune, too.")
        _ = self.budget

    @property
    def budget(self) -> Budget | None:
        """The budget of each training; None for the default."""
        limits = (self.minutes, self.epochs, self.steps)
        return None if all(value is None for value in limits) else Budget(*limits)

    def repetitions(self, all_labels: bool) -> int:
        """How often a training is repeated: `seeds` with all labels, `draws` with some of them."""
        return self.seeds if all_labels else self.draws


def classify(
    encoder: Encoder, head: nn.Module, source: Source, size: int, device: torch.device
) -> tuple[Tensor, float]:
    """Classify the whole images of a source, in eval mode and float32.

    Args:
        encoder: on `device`; left in eval mode.
        head: (B, D) -> (B, K), on `device`; left in eval mode.
        source: labeled images; those without a label are left out.
        size: side of the views in pixels.
        device: where to compute.

    Returns:
        (n,) bool on the CPU, whether each labeled image is classified correctly, and the mean cross-entropy.
    """
    encoder.eval(), head.eval()
    correct, losses = [], []
    with torch.no_grad():
        for batch in source.batches(256, device):
            logits = head(encoder(batch.warp(identity(len(batch)), size))).float()
            labels = batch.targets["label"]
            labeled = labels >= 0
            correct.append((logits.argmax(1) == labels)[labeled])
            losses.append(F.cross_entropy(logits[labeled], labels[labeled], reduction="none"))
    return torch.cat(correct).cpu(), float(torch.cat(losses).double().mean())
