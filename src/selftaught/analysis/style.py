"""Style transfer: an image with the content of one photo and the style of another, by the features of an encoder.

Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016. The pixels are optimized,
so the picture shows what the features keep of a photo. Asano et al. (2020) compare features in this way.

As in the paper (section 2), the activations of every channel are divided by their mean, here over the two photos. Three
differences: losses are means and not sums, so that their weights depend neither on the size of the image nor on the
encoder; the Gram matrices of photos of different sizes are compared per position; and pixels are bounded to [0, 1] by
L-BFGS-B (Byrd et al. 1995, SciPy), where the paper uses L-BFGS without bounds.

Letters: N channels, M positions of a layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selftaught.contracts import Encoder, TokenEncoder
from selftaught.errors import UserError, require_ranges, unknown
from selftaught.limits import COEFFICIENT, SEED, STEPS

MAX_STYLE_LAYERS = 5
"""Default number of style layers, as in the paper."""
MIN_MEAN = 0.01
"""Smallest mean activation by which a channel is divided, relative to the mean over all channels of its layer."""


@dataclass(frozen=True)
class StyleTransfer:
    """Settings of a style transfer."""

    content_layers: Sequence[str] = ()
    """Layers whose activations are those of the content photo; by default one at three quarters of the depth."""
    style_layers: Sequence[str] = ()
    """Layers whose Gram matrices are those of the style photo; by default all, at most five evenly spaced."""
    style_weight: float = 10.0
    """Weight of the style loss; that of the content loss is 1."""
    tv_weight: float = 30.0
    """Weight of the total variation: a larger one gives smoother images. The paper has none; with 0, strides and
    pools of small encoders leave a grid of colored dots."""
    steps: int = 200
    """Iterations of L-BFGS-B."""
    init: Literal["content", "noise"] = "content"
    """Where to start: the content photo, or white noise as in the paper."""
    seed: int = 0
    """Random seed of the noise."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        require_ranges(self, steps=STEPS, style_weight=COEFFICIENT, tv_weight=COEFFICIENT, seed=SEED)
        if self.init not in ("content", "noise"):
            raise UserError(f"--init must be content or noise, got {self.init!r}.")


@dataclass(frozen=True)
class Stylized:
    """The result of a style transfer."""

    image: Tensor
    """(3, H, W) in [0, 1]."""
    steps: int
    """Iterations done: fewer than requested if it was stopped, or if no step lowered the loss further."""
    losses: tuple[float, ...]
    """The loss before the first and after every iteration."""
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]


def gram(features: Tensor) -> Tensor:
    """(N, H, W) -> (N, N): correlations of channels, averaged over positions (the paper's sum over M, divided by M)."""
    flat = features.flatten(1)
    return flat @ flat.T / flat.shape[1]


def style_loss(features: Tensor, target: Tensor) -> Tensor:
    """Squared distance of Gram matrices, over 4 N^2: the paper's E_l if both photos have M positions.

    Args:
        features: (N, H, W).
        target: (N, N), `gram` of the style photo.
    """
    return (gram(features) - target).square().sum() / (4 * len(target) ** 2)


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared difference of two feature maps (N, H, W); the paper has the sum."""
    return (features - target).square().mean() / 2


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighboring pixels, horizontal plus vertical: (3, H, W) -> scalar."""
    vertical, horizontal = image.diff(dim=1), image.diff(dim=2)
    return vertical.square().mean() + horizontal.square().mean()


def default_layers(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Content and style layers for an encoder with these layers, from the first to the last."""
    count = min(MAX_STYLE_LAYERS, len(names))
    spread = [round(step * (len(names) - 1) / max(1, count - 1)) for step in range(count)]
    return (names[ceil(0.75 * len(names)) - 1],), tuple(names[place] for place in spread)


def require_convolutions(encoder: Encoder) -> None:
    """Reject encoders without convolutional feature maps: transformers, raw pixels and others.

    Raises:
        UserError: style transfer is not defined for the encoder.
    """
    convolutions = any(isinstance(module, nn.Conv2d) for module in encoder.modules())
    attends = any("attention" in type(module).__name__.lower() for module in encoder.modules())
    if isinstance(encoder, TokenEncoder) or attends or not convolutions:
        raise UserError(
            "style transfer needs the feature maps of a convolutional encoder, such as convnet, nin, alexnet or "
            "timm:resnet18: give a run of one."
        )


def stylize(
    encoder: Encoder,
    content: Tensor,
    style: Tensor,
    settings: StyleTransfer,
    on_step: Callable[[float], bool] | None = None,
) -> Stylized:
    """Optimize the pixels of an image.

    Args:
        encoder: convolutional, on the device to use; left in eval mode, its weights are not changed.
        content: (3, H, W) in [0, 1]; the result has its size.
        style: (3, H', W') in [0, 1].
        settings: layers, weights and number of steps.
        on_step: called with the loss after every iteration; the optimization stops where it returns True.

    Raises:
        UserError: the encoder is not convolutional, a layer does not exist, or the features are not finite.
    """
    from scipy.optimize import Bounds, minimize  # here, because importing it takes half a second

    require_convolutions(encoder)
    for layer in (*settings.content_layers, *settings.style_layers):
        if layer not in encoder.layers:
            raise unknown("layer", layer, encoder.layers)
    content_default, style_default = default_layers(list(encoder.layers))
    content_layers = tuple(settings.content_layers) or content_default
    style_layers = tuple(settings.style_layers) or style_default
    device = next(encoder.parameters()).device
    objective = _Objective(encoder, content.to(device), style.to(device), content_layers, style_layers, settings)
    start = content
    if settings.init == "noise":
        start = torch.rand(content.shape, generator=torch.Generator().manual_seed(settings.seed))
    pixels = start.cpu().clamp(0, 1).double().flatten().numpy()
    losses = [objective(pixels)[0]]
    best = [pixels]

    def after(intermediate_result: object) -> None:
        losses.append(float(intermediate_result.fun))  # type: ignore[attr-defined]
        best[0] = intermediate_result.x  # type: ignore[attr-defined]
        if on_step is not None and on_step(losses[-1]):
            raise StopIteration

    options = {"maxiter": settings.steps, "maxfun": 20 * settings.steps, "maxcor": 20, "ftol": 0.0, "gtol": 0.0}
    bounds = Bounds(0.0, 1.0)
    minimize(objective, pixels, jac=True, method="L-BFGS-B", bounds=bounds, callback=after, options=options)
    image = torch.from_numpy(np.array(best[0])).float().view(content.shape)
    return Stylized(image, len(losses) - 1, tuple(losses), content_layers, style_layers)


class _Objective:
    """The loss of an image and its gradient, as SciPy's minimizers call it."""

    def __init__(
        self,
        encoder: Encoder,
        content: Tensor,
        style: Tensor,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
        settings: StyleTransfer,
    ) -> None:
        self.encoder, self.shape, self.device, self.settings = encoder.eval(), content.shape, content.device, settings
        self.content_layers, self.style_layers = content_layers, style_layers
        with torch.no_grad():
            first, second = self._features(content), self._features(style)
            if not all(feature.isfinite().all() for features in (first, second) for feature in features.values()):
                raise UserError("the features contain infinity or NaN, as the training diverged: use another run.")
            self.scales = {name: channel_scale(first[name], second[name]) for name in first}
            self.content = {name: first[name] / self.scales[name] for name in content_layers}
            self.style = {name: gram(second[name] / self.scales[name]) for name in style_layers}

    def __call__(self, pixels: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The loss and its gradient by pixel, flat."""
        image = torch.from_numpy(pixels).float().view(self.shape).to(self.device).requires_grad_()
        loss = self.loss(image)
        (gradient,) = torch.autograd.grad(loss, image)
        return float(loss.detach()), gradient.double().cpu().flatten().numpy()

    def loss(self, image: Tensor) -> Tensor:
        """Content + style_weight * style + tv_weight * total variation; layers are averaged."""
        features = {name: feature / self.scales[name] for name, feature in self._features(image).items()}
        content = [content_loss(features[name], target) for name, target in self.content.items()]
        style = [style_loss(features[name], target) for name, target in self.style.items()]
        total = torch.stack(content).mean() + self.settings.style_weight * torch.stack(style).mean()
        return total + self.settings.tv_weight * total_variation(image)

    def _features(self, image: Tensor) -> Mapping[str, Tensor]:
        used = {*self.content_layers, *self.style_layers}
        features = self.encoder.features(self.encoder.preprocess(image[None]))
        return {name: feature[0].float() for name, feature in features.items() if name in used}


def channel_scale(first: Tensor, second: Tensor) -> Tensor:
    """(N, 1, 1): the mean absolute activation of each channel over the positions of two photos, (N, H, W) each."""
    means = torch.stack([first.abs().mean((1, 2)), second.abs().mean((1, 2))]).mean(0)
    lowest = (MIN_MEAN * means.mean()).clamp_min(torch.finfo(means.dtype).tiny)
    return means.maximum(lowest)[:, None, None]
