"""`selftaught baseline`: its flags depend on the encoder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import SWITCH, Count, Device, LabelFile
from selftaught.cli.output import print_result
from selftaught.errors import readable


def baseline_command(words: Sequence[str]) -> Callable[..., None]:
    """The command for the given arguments.

    Args:
        words: the words after `baseline`; empty for a command without the settings of an encoder, whose import takes
            seconds.
    """
    if not words:
        return baseline
    from selftaught.cli.flags import value_of, with_settings
    from selftaught.config.settings import General, encoder_settings
    from selftaught.evaluation.baselines import own_encoder

    name = _first_argument(words)
    offered = encoder_settings(name if own_encoder(name) else value_of("--encoder", words) or General.encoder)

    def run(words: Sequence[Any], settings: dict[str, Any], options: dict[str, Any]) -> None:
        from selftaught.api.baseline import baseline as write

        name, *source = words
        print_result(readable(str(write(name, source, **options, **settings).path)))

    return with_settings(baseline, [setting for setting in offered if setting.name != "pretrained"], run)


def _first_argument(words: Sequence[str]) -> str:
    """The first word that is neither a flag nor the value of one, or empty."""
    is_value = False
    for word in words:
        if not word.startswith("-") and not is_value:
            return word
        is_value = word.startswith("-") and "=" not in word and word not in SWITCHES
    return ""


SWITCHES = ("--pretrained", "--no-pretrained")
"""Flags without a value."""


def baseline(
    name: Annotated[str, Parameter(help="random, kmeans, pca, dictionary, scattering, pixels or timm:NAME.")],
    /,
    *source: Annotated[str, Parameter(help="Images: a folder, photos, parquet, or a data set by name.")],
    encoder: Annotated[str | None, Parameter(help="Encoder of random, kmeans and pca; default: convnet.")] = None,
    out: Annotated[Path | None, Parameter(help="Run folder, new or empty; default: a new one under runs/.")] = None,
    input_mode: Annotated[str, Parameter(help="Input preprocessing: color, lightness, grayscale, sobel.")] = "color",
    size: Annotated[
        int | None,
        Parameter(converter=integers, help="Side of the views in pixels; default: that of the images, at most 128."),
    ] = None,
    seed: Annotated[Count, Parameter(help="Random seed.")] = 0,
    limit: Annotated[int | None, Parameter(converter=integers, help="Number of images to use.")] = None,
    labels: LabelFile = None,
    pretrained: Annotated[
        bool, SWITCH, Parameter(help="Allow the published weights of timm:NAME to be downloaded.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Write the run folder of an encoder that was not pretrained, to probe, compare and report it like any run.

    A supervised baseline is trained: selftaught pretrain --task supervised.
    """
