"""Encoders, one file each: images in, named layers out."""

from importlib import import_module

from selftaught.contracts import Encoder
from selftaught.errors import unknown

ENCODERS = {
    "convnet": "selftaught.encoders.convnet:ConvNet",
    "nin": "selftaught.encoders.nin:NIN",
    "alexnet": "selftaught.encoders.alexnet:AlexNet",
    "timm:NAME": "selftaught.encoders.timm:Timm",
}
"""Name on the command line -> where the class is; imported when it is asked for: timm alone takes a second."""


def encoder_class(name: str) -> type[Encoder]:
    """The class of an encoder by its name; `timm:resnet18` is of `timm:NAME`."""
    kind = "timm:NAME" if name.startswith("timm:") else name
    if kind not in ENCODERS:
        raise unknown("encoder", name, ENCODERS)
    module, attribute = ENCODERS[kind].split(":")
    found: type[Encoder] = getattr(import_module(module), attribute)
    return found


def make_encoder(name: str, **options: object) -> Encoder:
    """An encoder with fresh weights, drawn from torch's ambient generator."""
    if name.startswith("timm:"):
        options["name"] = name.removeprefix("timm:")
    return encoder_class(name)(**options)
