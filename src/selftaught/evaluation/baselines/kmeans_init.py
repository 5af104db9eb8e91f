"""Data-dependent initialization of convolutional networks: filters from patches of images, without training.

Krähenbühl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural Networks", ICLR 2016.
https://arxiv.org/abs/1511.06856, with details from the released `magic_init.py` where the paper leaves them open:

- The filters of a layer are the centroids of spherical k-means on whitened patches of its input (Coates and Ng 2012),
  or the principal components of these patches. Layers are initialized in the order of execution, each on the outputs
  of those before it.
- Within a layer, every output channel is scaled to unit variance (Algorithm 1). A bias, if there is one, is set to make
  the mean `BIAS`.
- Between layers, each layer is scaled by a single factor, so that all have the same ratio of gradient to weights
  (Algorithm 2), as in the release: of root mean squares, for a random gradient of the output.

Scaling a layer must not change what follows, so every layer has to be normalized afterwards, as by batch norm. Then one
scaling equalizes the ratios, and the paper's correction of the next layer is not needed.

Letters: n patches, d numbers per patch, F filters, r components.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import affine
from selftaught.contracts import Encoder, Source, evenly_spaced
from selftaught.display.progress import Meter
from selftaught.encoders.dictionary import spherical_kmeans
from selftaught.errors import NotApplicable

Kind = Literal["kmeans", "pca"]
Affine = nn.Conv2d | nn.Linear

BIAS = 0.1
"""Mean of an output channel with a bias: the default of the released code."""
IMAGES, PIXELS, PATCHES = 256, 2**19, 20_000
"""Maximum numbers of images, of their pixels, and of patches per layer."""
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def initialize(
    encoder: Encoder,
    source: Source,
    size: int,
    device: torch.device,
    generator: torch.Generator,
    kind: Kind = "kmeans",
    window: float = 1.0,
) -> None:
    """Initialize all weights of an encoder from images; batch-norm statistics must be computed afterwards.

    Args:
        encoder: with random weights; moved to `device`.
        source: the images.
        size: side of the views in pixels.
        device: where to compute.
        generator: on the CPU; draws patches and initial centroids.
        kind: "kmeans" or "pca".
        window: side of the center crop as a fraction of the image.

    Raises:
        NotApplicable: the encoder has parameters other than those of convolutions, linear layers and norms, or layers
            that are not normalized.
    """
    inputs = _inputs(encoder.to(device), source, size, device, window)
    with _batch_statistics(encoder), torch.no_grad():
        layers = _layers(encoder, inputs)
        _require_normalized(encoder, layers, inputs)
        with Meter("initializing layers", len(layers)) as meter:
            for layer in layers:
                patches = _patches(layer, _input_of(layer, encoder, inputs), generator)
                filters = patch_filters(patches, layer.weight.shape[0], kind, generator)
                layer.weight.copy_(filters.view_as(layer.weight))
                _normalize(layer, _input_of(layer, encoder, inputs))
                meter.advance()
        _equalize(encoder, layers, inputs, generator)


def patch_filters(patches: Tensor, count: int, kind: Kind, generator: torch.Generator) -> Tensor:
    """Filters for a layer with these input patches, of any scale.

    Args:
        patches: (n, d).
        count: number of filters F.
        kind: "kmeans": centroids of whitened patches; "pca": leading principal components, whitened. Where there are
            fewer patches or components than filters, the others are random.
        generator: on the CPU.

    Returns:
        (F, d) filters that are applied to patches: whitening is part of them.
    """
    centered = patches.double() - patches.double().mean(0)
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
    # As the release, at most as many components as filters; smaller variances are rounding errors.
    variances, directions = variances[-count:].flip(0), directions[:, -count:].flip(1)
    nonzero = variances > 1e-7 * variances[0].clamp(min=1e-30)
    if not nonzero.any():
        return torch.randn(count, patches.shape[1], generator=generator).to(patches)
    whitening = (directions[:, nonzero] * variances[nonzero].rsqrt()).float()  # (d, r)
    rank = whitening.shape[1]
    if kind == "pca":
        units = torch.eye(rank)[:count]
    else:
        points = F.normalize(centered.float() @ whitening, dim=1)
        units = spherical_kmeans(points, min(count, len(points)), generator)
    more = torch.randn(count - len(units), rank, generator=generator)
    return torch.cat([units.to(whitening), more.to(whitening)]) @ whitening.T


def _inputs(encoder: Encoder, source: Source, size: int, device: torch.device, window: float) -> Tensor:
    """Preprocessed images, evenly spaced over the source."""
    count = max(16, min(IMAGES, PIXELS // size**2))
    batch = source.batch(evenly_spaced(count, len(source)), device)
    images: Tensor = encoder.preprocess(batch.warp(affine(width=window, height=window, count=len(batch)), size))
    return images


@contextmanager
def _batch_statistics(encoder: Encoder) -> Iterator[None]:
    """Eval mode, but batch norms normalize by the statistics of the batch and update nothing."""
    encoder.eval()
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats, norm.training = False, True
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats, norm.training = True, False


def _layers(encoder: Encoder, inputs: Tensor) -> list[Affine]:
    """All convolutions and linear layers, in the order of execution.

    Raises:
        NotApplicable: the encoder has other parameters.
    """
    layers: list[Affine] = []
    for name, module in encoder.named_modules():
        ungrouped = isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
        )
        if list(module.parameters(recurse=False)) and not ungrouped and not isinstance(module, NORMS):
            raise NotApplicable(
                f"k-means and PCA initialize convolutions without groups, linear layers and norms only, but {name} "
                f"of this encoder is a {type(module).__name__}: choose another --encoder, such as convnet."
            )
        if ungrouped:
            layers.append(module)
    order: list[Affine] = []
    handles = [layer.register_forward_hook(lambda module, *_: order.append(module)) for layer in layers]
    encoder.features(inputs[:2])
    for handle in handles:
        handle.remove()
    return list(dict.fromkeys(order))


def _last(encoder: Encoder, inputs: Tensor) -> Tensor:
    return list(encoder.features(inputs).values())[-1]


def _require_normalized(encoder: Encoder, layers: Sequence[Affine], inputs: Tensor) -> None:
    """Raise an error unless features stay the same when each layer is scaled: then norms follow all of them."""
    few = inputs[:16]
    before = _last(encoder, few)
    for layer in layers:
        _scale(layer, 2.0)
    after = _last(encoder, few)
    for layer in layers:
        _scale(layer, 0.5)
    if not layers or (after - before).norm() > 0.02 * before.norm():
        raise NotApplicable(
            "k-means and PCA initialization need an encoder in which a norm follows each convolution and linear layer, "
            "and this one has others: choose another --encoder, such as convnet, nin, alexnet or timm:resnet18."
        )


def _scale(layer: Affine, factor: Tensor | float) -> None:
    """Multiply the weights and biases of a layer."""
    layer.weight.mul_(factor if isinstance(factor, float) else factor.view(-1, *[1] * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.mul_(factor)


def _input_of(layer: Affine, encoder: Encoder, inputs: Tensor) -> Tensor:
    """The input of a layer when it is first executed."""
    inputs_of_layer: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: inputs_of_layer.append(arguments[0].clone()))
    encoder.features(inputs)
    handle.remove()
    return inputs_of_layer[0].float()


def _patches(layer: Affine, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Random patches of a layer's input, zero padding included: (n, d), on the CPU."""
    if isinstance(layer, nn.Linear):
        rows = inputs.reshape(-1, layer.in_features)
        return rows[torch.randperm(len(rows), generator=generator)[:PATCHES].to(rows.device)].cpu()
    kernel, padding = layer.kernel_size, layer.padding
    if isinstance(padding, str):
        raise NotApplicable("k-means and PCA initialization do not support convolutions with named padding.")
    patches = []
    for image in inputs:
        rows = F.unfold(image[None], kernel, layer.dilation, padding, layer.stride)[0].T
        place = torch.randperm(len(rows), generator=generator)[: -(-PATCHES // len(inputs))]
        patches.append(rows[place.to(rows.device)].cpu())
    return torch.cat(patches)


def _normalize(layer: Affine, inputs: Tensor) -> None:
    """Scale every output channel to unit variance, with mean `BIAS` if it has a bias (Algorithm 1)."""
    if layer.bias is not None:
        layer.bias.zero_()
    outputs = layer(inputs)
    axis = outputs.ndim - 1 if isinstance(layer, nn.Linear) else 1
    flat = outputs.transpose(0, axis).flatten(1)
    std, mean = torch.std_mean(flat, 1, correction=0)
    std = torch.where(std > 1e-6, std, 1)
    _scale(layer, 1 / std)
    if layer.bias is not None:
        layer.bias.copy_(BIAS - mean / std)


def _equalize(encoder: Encoder, layers: Sequence[Affine], inputs: Tensor, generator: torch.Generator) -> None:
    """Scale every layer so that all have the same ratio of gradient to weights: their geometric mean."""
    with torch.enable_grad():
        outputs = _last(encoder, inputs)
        noise = torch.randn(outputs.shape, generator=generator).to(outputs)
        gradients = torch.autograd.grad((outputs * noise).sum(), [layer.weight for layer in layers], allow_unused=True)
    ratios = torch.stack(
        [
            layer.weight.new_zeros(()) if gradient is None else gradient.norm() / layer.weight.norm()
            for layer, gradient in zip(layers, gradients, strict=True)
        ]
    )
    moving = ratios > 0  # a residual branch that ends in a gain of zero gets no gradient
    target = ratios[moving].log().mean().exp()
    for layer, ratio in zip(layers, ratios, strict=True):
        if ratio > 0:
            # The gradient shrinks as the weights grow, so the ratio falls with the square of the factor.
            _scale(layer, float((ratio / target).sqrt()))
