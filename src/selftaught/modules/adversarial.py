"""Parameter groups for two optimizers and the loss of a binary discriminator, for adversarial tasks."""

import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, ParameterGroup


def adversarial_groups(
    encoder: Encoder, heads: nn.ModuleDict, critic: str, lr_scales: dict[str, float]
) -> list[ParameterGroup]:
    """One parameter group for the encoder and one for each head.

    Args:
        encoder: trained at the learning rate of the run.
        heads: the heads of the task.
        critic: name of the head that minimizes `critic_loss`.
        lr_scales: factors on the learning rate, by name of the head; 1 for the others.
    """
    groups = [ParameterGroup(list(encoder.parameters()))]
    for name, head in heads.items():
        groups.append(ParameterGroup(list(head.parameters()), lr_scales.get(name, 1.0), critic=name == critic))
    return groups


def adversarial_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits, positive for real: log 2 at chance.

    Args:
        real: logits of real images, any shape.
        fake: logits of generated images, any shape.
    """
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
