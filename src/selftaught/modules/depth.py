"""Which layer of an encoder each weight belongs to, for layer-wise learning rates and for freezing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selftaught.contracts import Encoder, ParameterGroup
from selftaught.errors import unknown


def weight_depths(encoder: Encoder, side: int) -> dict[nn.Parameter, int]:
    """The depth of every weight of an encoder: 0 for the first layer, len(encoder.layers) - 1 for the last.

    A weight belongs to the first layer that depends on it, determined by differentiation, or to the layer of a weight
    registered before it if that is deeper: the final norm of a transformer, which is applied to the output of every
    layer, belongs to the last one.

    Args:
        encoder: any encoder; unchanged.
        side: side of an image that it can process, in pixels.
    """
    weights = [weight for weight in encoder.parameters() if weight.is_floating_point()]
    required, training = [weight.requires_grad for weight in weights], encoder.training
    try:
        for weight in weights:
            weight.requires_grad_(True)
        encoder.eval()
        with torch.enable_grad():
            blank = torch.zeros(1, 3, side, side, device=weights[0].device)
            outputs = list(encoder.features(encoder.preprocess(blank)).values())
            used = [_gradients(output, weights) for output in outputs]
    finally:
        encoder.train(training)
        for weight, before in zip(weights, required, strict=True):
            weight.requires_grad_(before)
    last = len(outputs) - 1
    depths: dict[nn.Parameter, int] = {}
    for number, weight in enumerate(weights):
        first = next((depth for depth, gradients in enumerate(used) if gradients[number] is not None), last)
        depths[weight] = max([first, *list(depths.values())[-1:]])
    return depths


def _gradients(output: Tensor, weights: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
    """The gradient of each weight; None for those that the output does not depend on, all of them for a fixed layer."""
    if not output.requires_grad:
        return [None] * len(weights)
    return torch.autograd.grad(output.sum(), weights, retain_graph=True, allow_unused=True)


def require_layer(encoder: Encoder, name: str) -> int:
    """The depth of a layer.

    Raises:
        UserError: the encoder has no layer of this name.
    """
    if name not in encoder.layers:
        raise unknown("layer of this encoder", name, encoder.layers)
    return list(encoder.layers).index(name)


def layer_groups(
    encoder: Encoder, heads: nn.Module, side: int, *, decay: float = 1.0, freeze_until: str | None = None
) -> list[ParameterGroup]:
    """One parameter group for the heads and one per layer; gradients of frozen layers are switched off here.

    Args:
        encoder: any encoder.
        heads: all other modules, which have the full learning rate.
        side: side of an image that the encoder can process, in pixels.
        decay: ratio of the learning rates of neighboring layers: the last layer has this fraction of the full rate, the
            layer before it its square, and so on.
        freeze_until: layer that is not trained, nor are those before it.
    """
    groups = [ParameterGroup(list(heads.parameters()))]
    if not encoder.has_parameters:
        return groups
    depths = weight_depths(encoder, side)
    frozen = -1 if freeze_until is None else require_layer(encoder, freeze_until)
    for depth in range(len(encoder.layers)):
        weights = [weight for weight in encoder.parameters() if depths.get(weight) == depth]
        if depth <= frozen:
            for weight in weights:
                weight.requires_grad_(False)
        groups.append(ParameterGroup(weights, decay ** (len(encoder.layers) - depth)))
    return groups


def fix_frozen_statistics(encoder: Encoder, freeze_until: str | None) -> None:
    """Let batch norms of frozen layers use their running statistics, and leave these as they are.

    A batch norm without weights is frozen with the weights registered before it, or if there are none.

    Args:
        encoder: any encoder, after `layer_groups`.
        freeze_until: as for `layer_groups`.
    """
    if freeze_until is None:
        return
    trained = False
    for module in encoder.modules():
        if isinstance(module, _BatchNorm) and not (trained if module.weight is None else module.weight.requires_grad):
            module.eval()
        trained = trained or any(weight.requires_grad for weight in module.parameters(recurse=False))
