"""DINO: Predict the output distribution of a momentum teacher for another view of the image.

The teacher gets global views only, the student local ones too, so that it predicts the whole from a part. Centering and
sharpening of the teacher's outputs prevent a collapse. Works on transformers and on convolutional networks.

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised Vision Transformers",
ICCV 2021. https://arxiv.org/abs/2104.14294

Not included: gradient clipping, the schedule of the weight decay, and the frozen last layer of the first epoch.

Letters: B images, S pixels along a global view, V views of an image, K outputs.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import FRACTION, OUTPUTS, TEMPERATURE, WIDTH
from selftaught.modules.augmented import AsymmetricTask, MultiCropTask, cross_view_entropy, embed_views
from selftaught.modules.heads import Prototypes, mlp
from selftaught.modules.momentum import cosine_momentum, momentum_copy, update_average
from selftaught.modules.processes import gather


@dataclass(frozen=True)
class DINO(AsymmetricTask, MultiCropTask):
    """Predict the output distribution of a momentum teacher for another view of the image."""

    defaults = {"learning_rate": 1e-3}  # noqa: RUF012
    projection_name = "head"

    view_area: tuple[float, float] = (0.4, 1.0)
    """Smallest and largest area of a global view, as a fraction of the image (paper: 0.4 to 1)."""
    local_area: tuple[float, float] = (0.1, 0.4)
    """Smallest and largest area of a local view (paper: 0.05 to 0.4)."""
    outputs: int = 1024
    """Dimension of the output distribution, K (paper: 65,536)."""
    hidden: int = 512
    """Width of the head's three layers (paper: 2048)."""
    bottleneck: int = 256
    """Dimension before the last layer (paper: 256)."""
    head_norm: bool = True
    """Batch norm in the hidden layers of the head (an option of the released code, off by default). Without it the
    outputs for all images are nearly equal at first, and the teacher's distributions nearly uniform."""
    teacher_momentum: float = 0.99
    """Initial momentum of the teacher, which rises to 1 by a cosine (paper: 0.996, 0.9995 for batches of 256)."""
    student_temperature: float = 0.1
    """Temperature of the student's distribution (paper: 0.1)."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Temperature of the teacher's distribution at the start and after `temperature_warmup` (paper: 0.04, 0.07)."""
    temperature_warmup: float = 0.3
    """Fraction of the run in which it rises (paper: 30 of 100 to 800 epochs)."""
    center_momentum: float = 0.9
    """Momentum of the center of the teacher's outputs (paper: 0.9)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, outputs=OUTPUTS, hidden=WIDTH, bottleneck=WIDTH)
        require_ranges(self, student_temperature=TEMPERATURE, teacher_temperature=TEMPERATURE)
        require_ranges(self, teacher_momentum=FRACTION, center_momentum=FRACTION, temperature_warmup=FRACTION)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The head: an MLP, then cosines with K vectors, as the last layer is weight-normalized."""
        channels, width = encoder.last.channels, self.hidden
        hidden = mlp(channels, width, self.bottleneck, layers=3, norm=self.head_norm, activation=nn.GELU)
        return nn.Sequential(hidden, Prototypes(self.bottleneck, self.outputs))

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """Head, teacher and center."""
        head = self.projection(encoder)
        return nn.ModuleDict({"head": head, "teacher": momentum_copy(encoder, head), "center": Center(self.outputs)})

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy between teacher and student for all pairs of a global view and another view (equation 3).

        Logged: `entropy` of the teacher's distributions in nats, log K if they collapsed to uniform ones, and
        `agreement`, the share of the most frequent output, 1 if they collapsed to a single one.
        """
        student = embed_views(nn.Sequential(encoder, heads["head"]), views)
        with torch.no_grad():
            outputs = embed_views(heads["teacher"], {"global": views["global"]})
            temperature = self.temperature_at(progress)
            teacher = [(heads["center"](each) / temperature).softmax(1) for each in outputs]
        loss = cross_view_entropy(teacher, [each / self.student_temperature for each in student])
        first = gather(teacher[0])
        entropy = -(first * first.clamp(min=1e-12).log()).sum(1).mean()
        agreement = F.one_hot(first.argmax(1), self.outputs).float().mean(0).max()
        logged = {"entropy": entropy, "agreement": agreement}
        return loss, {**logged, "outputs": torch.cat([*outputs]), "embeddings": student[0]}

    def temperature_at(self, progress: float) -> float:
        """The teacher's temperature, which changes linearly during the warm-up."""
        start, end = self.teacher_temperature
        share = min(1.0, progress / self.temperature_warmup) if self.temperature_warmup else 1.0
        return start + (end - start) * share

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Update the teacher and the center (equation 4)."""
        momentum = cosine_momentum(self.teacher_momentum, progress)
        update_average(heads["teacher"], encoder, heads["head"], momentum=momentum)
        cast(Center, heads["center"]).update(outputs["outputs"], self.center_momentum)


class Center(nn.Module):
    """Subtracts the moving average of the teacher's outputs: (B, K) -> (B, K)."""

    mean: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(outputs))

    def forward(self, outputs: Tensor) -> Tensor:
        """(B, K) -> (B, K)."""
        return outputs - self.mean

    def update(self, outputs: Tensor, momentum: float) -> None:
        """Average in the mean of outputs (n, K)."""
        self.mean.lerp_(outputs.mean(0), 1 - momentum)
