"""Encoders, one file each: images in, named layers out."""

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
    """An encoder with fresh weights, drawn from torch's ambient generator.

    Raises:
        UserError: there is no such encoder, or it has no such option: a task may want what only some encoders are.
    """
    if name.startswith("timm:"):
        options["name"] = name.removeprefix("timm:")
    kind = encoder_class(name)
    has = list(signature(kind).parameters)
    for option in options:
        if option not in has:
            raise UserError(
                f"the encoder must have the option {option} that was asked for or that the task wants, found only "
                f"{', '.join(has)} in {name}: choose another encoder (causal: gpt)."
            )
    return kind(**options)
