"""Encoders, one file each: images to feature maps of named layers."""

from importlib import import_module
from inspect import signature

from selftaught.contracts import Encoder
from selftaught.errors import UserError, unknown

ENCODERS = {
    "convnet": "selftaught.encoders.convnet:ConvNet",
    "nin": "selftaught.encoders.nin:NIN",
    "alexnet": "selftaught.encoders.alexnet:AlexNet",
    "vit": "selftaught.encoders.vit:ViT",
    "gpt": "selftaught.encoders.gpt:GPT",
    "dictionary": "selftaught.encoders.dictionary:Dictionary",
    "hybrid": "selftaught.encoders.hybrid:Hybrid",
    "scattering": "selftaught.encoders.scattering:Scattering",
    "pixels": "selftaught.encoders.pixels:Pixels",
    "timm:NAME": "selftaught.encoders.timm:Timm",
}
"""Name on the command line -> location of the class, imported on first use because importing timm takes a second."""


def encoder_class(name: str) -> type[Encoder]:
    """The class of an encoder by name; `timm:resnet18` matches `timm:NAME`."""
    kind = "timm:NAME" if name.startswith("timm:") else name
    if kind not in ENCODERS:
        raise unknown("encoder", name, ENCODERS)
    module, attribute = ENCODERS[kind].split(":")
    imported: type[Encoder] = getattr(import_module(module), attribute)
    return imported


def make_encoder(name: str, **options: object) -> Encoder:
    """Build an encoder with random weights, drawn from torch's global generator.

    Raises:
        UserError: there is no such encoder, or it does not have an option that was given or that the task requires.
    """
    if name.startswith("timm:"):
        options["name"] = name.removeprefix("timm:")
    kind = encoder_class(name)
    parameters = list(signature(kind).parameters)
    for option in options:
        if option not in parameters:
            raise UserError(
                f"the encoder {name} has no option {option}, which was given or is required by the task; its options "
                f"are {', '.join(parameters)}: choose another encoder (causal: gpt)."
            )
    return kind(**options)
