"""Any timm backbone (`timm:NAME`), with layers extracted by timm's `forward_intermediates`.

Every feature map is (B, C, H, W), also for transformers, whose class token is dropped. The model's final norm is
applied to every layer where timm supports it, as DINO probes its layers, so that all layers have one scale. Modules
after the last layer (classifier and its norm) are removed, so that every weight receives a gradient.

Not covered: models without `forward_intermediates`, and names that would be downloaded from a hub.
"""

from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.models import ResNet
from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer
from selftaught.encoders.preprocess import Color, make_preprocess
from selftaught.errors import UserError

_STEMS = ("act1", "bn1", "conv_stem", "features.norm0", "stem")
"""Names of the stem in timm's model families."""


class Timm(Encoder):
    """A timm model with layers `block01`, `block02`, ... (transformers) or `stem`, `stage1`, `stage2`, ... (the rest).

    There is a `stem` if timm lists one: a ResNet has `stem` and `stage1` to `stage4` (timm's layer1 to layer4), a
    ConvNeXt `stage1` to `stage4`. "color" is normalized by the mean and standard deviation in the model's timm config.

    Args:
        name: timm model name, such as "resnet18" or "vit_small_patch16_224".
        size: side of the views in pixels. Transformers are built for it (and timm's plain ones interpolate their
            positions for views of another size).
        input_mode: input channels, see `preprocess.py`.
        pretrained: start from timm's published weights, which are downloaded.
        small: for ResNets, a 3 x 3 convolution of stride 1 in place of the 7 x 7 one of stride 2 and the pool (as He et
            al. 2016, section 4.2, use on CIFAR); None enables it if possible and views are at most 64 pixels.
        patch: for models built for a fixed image size, the side of a patch in pixels; None keeps the model's own.

    Raises:
        UserError: there is no such model, or it does not support the options.
    """

    def __init__(
        self,
        *,
        name: str,
        size: int = 224,
        input_mode: str = "color",
        pretrained: bool = False,
        small: bool | None = None,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        config = _config(name)
        self.input_mode = input_mode
        self.preprocess = preprocess = (
            Color(config.mean, config.std) if input_mode == "color" else make_preprocess(input_mode)
        )
        self.model = _create(name, preprocess.channels, size, patch, pretrained)
        small = (size <= 64 and not pretrained and _has_wide_stem(self.model)) if small is None else small
        if small:
            _narrow_stem(self.model, name, pretrained)
        self.layers = _layers(self.model, 4 if small else 1)
        self.model.prune_intermediate_layers(1, prune_head=True)  # keeps all layers, removes what follows the last
        self._check_taps(name, preprocess.channels, size)

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> (B, C, H / stride, W / stride) for every layer."""
        maps = self.model.forward_intermediates(inputs, norm=True, output_fmt="NCHW", intermediates_only=True)
        return dict(zip(self.layers, maps, strict=True))

    def _check_taps(self, name: str, channels: int, size: int) -> None:
        """Run a blank image: some timm models reject an unsupported size or layer only in the forward pass."""
        try:
            with torch.no_grad():
                features = self.eval().features(torch.zeros(1, channels, size, size))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise _refusal(name, size, error) from error
        self.train()
        assert [feature.shape[1] for feature in features.values()] == [layer.channels for layer in self.layers.values()]


def _config(name: str) -> Any:
    """The timm config of a model: its normalization, and whether its image size is fixed."""
    if timm.is_model(name):
        try:
            return timm.get_pretrained_cfg(name, allow_unregistered=False)
        except RuntimeError:  # the model exists, but not the tag after the dot
            available = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    else:
        available = timm.list_models()
    near = get_close_matches(name, available, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()."
    raise UserError(f"there is no timm model called {name!r}: {hint}")


def _create(name: str, channels: int, size: int, patch: int | None, pretrained: bool) -> Any:
    """Build the model for `channels` input channels and views of `size`, without a classifier."""
    options: dict[str, Any] = {"in_chans": channels, "num_classes": 0, "pretrained": pretrained}
    sized = bool(_config(name).fixed_input_size)
    if patch is not None and not sized:
        raise UserError(f"--patch applies only to models with a fixed image size, and timm's {name} has none: omit it.")
    if pretrained and not timm.is_model_pretrained(name):
        raise UserError(f"timm has no pretrained weights for {name}: set pretrained to false.")
    if sized:
        options |= {"img_size": size, "patch_size": patch}  # timm ignores None
    try:
        try:
            model = timm.create_model(name, dynamic_img_size=True if sized else None, **options)
        except TypeError:  # mixers and others do not support other image sizes
            model = timm.create_model(name, **options)
    except OSError as error:
        raise UserError(
            f"cannot download the pretrained weights of {name} ({_line(error)}): "
            "connect to the network, or set pretrained to false."
        ) from error
    except (ArithmeticError, AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise _refusal(name, size, error) from error
    if not hasattr(model, "forward_intermediates"):
        raise UserError(f"timm does not support feature extraction for {name}: choose another model.")
    return model


def _has_wide_stem(model: Any) -> bool:
    """Whether the model is a ResNet with the ImageNet stem: a 7 x 7 convolution of stride 2, then a pool."""
    return isinstance(model, ResNet) and isinstance(model.conv1, nn.Conv2d) and model.conv1.kernel_size == (7, 7)


def _narrow_stem(model: Any, name: str, pretrained: bool) -> None:
    """Replace the stem as in He et al. 2016, section 4.2: on CIFAR "the first layer is 3x3 convolutions"."""
    if not _has_wide_stem(model):
        raise UserError(f"--small applies only to ResNets with a 7 x 7 stem, and {name} has none: omit it.")
    if pretrained:
        raise UserError(
            f"the pretrained weights of {name} require its 7 x 7 stem, which small replaces: set one to false."
        )
    wide = model.conv1
    model.conv1 = nn.Conv2d(wide.in_channels, wide.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's `init_weights` does
    model.maxpool = nn.Identity()


def _layers(model: Any, magnified: int) -> dict[str, Layer]:
    """The layers in timm's `feature_info`; strides are divided by `magnified` if the stem was replaced."""
    taps = list(model.feature_info)
    if all(tap["module"].startswith("blocks.") and tap["reduction"] == taps[0]["reduction"] for tap in taps):
        names = [f"block{number:02}" for number in range(1, len(taps) + 1)]
    else:
        stems = ["stem"] if taps[0]["module"].startswith(_STEMS) else []
        names = stems + [f"stage{number}" for number in range(1, len(taps) - len(stems) + 1)]
    layers = [Layer(tap["num_chs"], max(1, tap["reduction"] // magnified)) for tap in taps]
    return dict(zip(names, layers, strict=True))


def _refusal(name: str, size: int, error: Exception) -> UserError:
    return UserError(
        f"timm's {name} does not support views of {size} pixels ({_line(error)}): choose another size, patch or model."
    )


def _line(error: Exception) -> str:
    """The first line of the error message, without the final period."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
