"""Any backbone of timm (`timm:NAME`), read by timm's own `forward_intermediates`.

What is unusual: every map comes out as (B, C, H, W), also from transformers, whose class token is left out of the taps;
the taps pass the model's final norm where timm offers it, as DINO probes its layers, so that what heads and probes read
has one scale; what lies behind the last tap (classifier, its norm) is cut off, so no weight goes without a gradient.

It does not cover models without `forward_intermediates`, nor names that would be fetched from a hub.
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
"""How timm's families call what comes before the first stage."""


class Timm(Encoder):
    """A timm model with layers `block01`, `block02`, ... (transformers) or `stem`, `stage1`, `stage2`, ... (the rest).

    There is a `stem` where timm taps one: a ResNet has `stem` and `stage1` to `stage4` (timm's layer1 to layer4), a
    ConvNeXt `stage1` to `stage4`. "color" is normalised by the mean and deviation that timm names for the model.

    Args:
        name: what timm calls it, such as "resnet18" or "vit_small_patch16_224".
        size: side of the views in pixels. Transformers are built for it (and timm's plain ones interpolate their
            positions for views of another size).
        input_mode: input channels, see `preprocess.py`.
        pretrained: begin from timm's published weights, which are downloaded; nothing is otherwise.
        small: for ResNets, a 3 x 3 convolution of stride 1 in place of the 7 x 7 one of stride 2 and the pool (as He et
            al. 2016, section 4.2, begin on CIFAR); None means wherever it can be done and views are at most 64 pixels.
        patch: for models built for one size of image, the side of a patch in pixels; None leaves the model's own.

    Raises:
        UserError: there is no such model, or it cannot be built and read as asked.
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
        self.model.prune_intermediate_layers(1, prune_head=True)  # keeps all taps, drops what lies behind the last
        self._check_taps(name, preprocess.channels, size)

    def features(self, seen: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> (B, C, H / stride, W / stride) for every layer."""
        maps = self.model.forward_intermediates(seen, norm=True, output_fmt="NCHW", intermediates_only=True)
        return dict(zip(self.layers, maps, strict=True))

    def _check_taps(self, name: str, channels: int, size: int) -> None:
        """Read one blank image: timm's families refuse a size or a tap in many ways, some only when they run."""
        try:
            with torch.no_grad():
                found = self.eval().features(torch.zeros(1, channels, size, size))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise _refusal(name, size, error) from error
        self.train()
        assert [feature.shape[1] for feature in found.values()] == [layer.channels for layer in self.layers.values()]


def _config(name: str) -> Any:
    """What timm knows of a model: its normalisation, and whether it is built for one size of image."""
    if timm.is_model(name):
        try:
            return timm.get_pretrained_cfg(name, allow_unregistered=False)
        except RuntimeError:  # the model is known, the tag behind the dot is not
            known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    else:
        known = timm.list_models()
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() has them all."
    raise UserError(f"there is no timm model called {name!r}: {hint}")


def _create(name: str, channels: int, size: int, patch: int | None, pretrained: bool) -> Any:
    """The model for `channels` of input and views of `size`, without a classifier."""
    options: dict[str, Any] = {"in_chans": channels, "num_classes": 0, "pretrained": pretrained}
    sized = bool(_config(name).fixed_input_size)
    if patch is not None and not sized:
        raise UserError(
            f"only models built for one size of image have patches to choose, which timm's {name} is not: "
            "leave patch out."
        )
    if pretrained and not timm.is_model_pretrained(name):
        raise UserError(f"timm has no pretrained weights for {name}: set pretrained to false.")
    if sized:
        options |= {"img_size": size, "patch_size": patch}  # timm drops what is None
    try:
        try:
            model = timm.create_model(name, dynamic_img_size=True if sized else None, **options)
        except TypeError:  # mixers and others cannot read another size than their own
            model = timm.create_model(name, **options)
    except OSError as error:
        raise UserError(
            f"the pretrained weights of {name} must be downloaded once, which failed ({_line(error)}): "
            "connect to the network, or set pretrained to false."
        ) from error
    except (ArithmeticError, AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise _refusal(name, size, error) from error
    if not hasattr(model, "forward_intermediates"):
        raise UserError(f"timm must be able to tap the layers of a model, which it cannot for {name}: choose another.")
    return model


def _has_wide_stem(model: Any) -> bool:
    """Whether it begins as a ResNet on ImageNet does: one 7 x 7 convolution of stride 2, then a pool."""
    return isinstance(model, ResNet) and isinstance(model.conv1, nn.Conv2d) and model.conv1.kernel_size == (7, 7)


def _narrow_stem(model: Any, name: str, pretrained: bool) -> None:
    """He et al. 2016, section 4.2: on CIFAR "the first layer is 3x3 convolutions" at full size; no option of timm."""
    if not _has_wide_stem(model):
        raise UserError(f"only a ResNet with a 7 x 7 stem can be made small, which {name} has not: leave small out.")
    if pretrained:
        raise UserError(
            f"the pretrained weights of {name} want its 7 x 7 stem, which small replaces: set one to false."
        )
    wide = model.conv1
    model.conv1 = nn.Conv2d(wide.in_channels, wide.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's `init_weights` does
    model.maxpool = nn.Identity()


def _layers(model: Any, magnified: int) -> dict[str, Layer]:
    """The taps by timm's `feature_info`, whose strides are divided by `magnified` where the stem was narrowed."""
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
        f"timm's {name} must give its layers for views of {size} pixels but refused ({_line(error)}): "
        "choose another size, patch or model."
    )


def _line(error: Exception) -> str:
    """The first line of what was said, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
