"""Settings of the trainings of a transfer."""

from dataclasses import dataclass

from selftaught.errors import require_ranges
from selftaught.evaluation.features import require_rates, require_seeds
from selftaught.limits import BATCH, Range
from selftaught.training.plan import Budget

EPOCHS, MIN_STEPS = 12, 300
"""Default budget: this many passes over the training images, and at least this many steps."""
EVALUATIONS = Range(1, 100)
VALIDATED = 500
"""Maximum number of validation images."""


@dataclass(frozen=True)
class TransferSettings:
    """How encoders are trained and compared."""

    freeze_until: str | None = None
    """Layer that is not trained, nor are those before it; the last layer to train the heads only."""
    random_weights: bool = True
    """Train the same encoder from random weights as well, with the same images and budget."""
    learning_rates: tuple[float, ...] = (3e-4, 1e-3)
    """Peak learning rates of AdamW to choose from on validation images."""
    minutes: float | None = None
    """Minutes of each training."""
    epochs: float | None = None
    """Passes over the training images in each training; default: 12, and at least 300 steps."""
    steps: int | None = None
    """Optimizer steps of each training."""
    batch_size: int = 4
    """Number of images per step."""
    evaluations: int = 3
    """How often each training is evaluated on the validation images, evenly spaced; the best weights are kept."""
    seeds: int = 3
    """Trainings of each encoder: initial weights of the heads (and of random encoders), order and mirroring."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_seeds(self.seeds)
        require_ranges(self, batch_size=BATCH, evaluations=EVALUATIONS)
        require_rates(self.learning_rates)
        _ = self.budget

    @property
    def budget(self) -> Budget | None:
        """The budget of each training; None for the default."""
        limits = (self.minutes, self.epochs, self.steps)
        return None if all(value is None for value in limits) else Budget(*limits)
