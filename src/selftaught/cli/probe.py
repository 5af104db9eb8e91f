"""`selftaught probe`: its flags depend on the probe that is chosen."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import SEVERAL, Count, Device, Json, LabeledData, LabelFile, Limit, RunPath, Size, Stored
from selftaught.cli.output import print_result

DEFAULT = "ridge"


def probe_command(words: Sequence[str]) -> Callable[..., None]:
    """The command for the given arguments.

    Args:
        words: the words after `probe`; empty for a command without the settings of a probe, whose import takes seconds.
    """
    if not words:
        return probe
    from selftaught.cli.flags import value_of, with_settings
    from selftaught.config.settings import fields_of
    from selftaught.evaluation.probes import probe_class

    name = value_of("--probe", words) or DEFAULT
    kind = probe_class(name)

    def run(words: Sequence[Any], settings: dict[str, Any], options: dict[str, Any]) -> None:
        probe(*words, **{**options, "probe": kind(**settings)})

    return with_settings(probe, fields_of(kind, f"Probe {name}", "probe"), run)


def probe(
    run: RunPath,
    /,
    *,
    data: LabeledData,
    probe: Annotated[
        Any,
        Parameter(
            help="ridge: closed form. logistic: L-BFGS. sgd: linear, with augmentation, as in the papers. knn: nearest "
            "neighbors. svm: one-versus-rest. mlp, conv: non-linear classifiers of feature maps."
        ),
    ] = DEFAULT,
    seeds: Annotated[Count, Parameter(help="Number of probe seeds; reported as mean ± std.")] = 1,
    pooling: Annotated[Literal["average", "max", "bilinear"], Parameter(help="Pooling of feature maps.")] = "average",
    dimensions: Annotated[
        int | None,
        Parameter(converter=integers, help="Maximum number of pooled features of a layer; default: that of the probe."),
    ] = None,
    baselines: Annotated[
        tuple[str, ...] | None,
        SEVERAL,
        Parameter(
            help="Further baselines, each one more pass over the images: kmeans, pca, dictionary, scattering; all or "
            "none. By default all but pca, where they apply and are cheap."
        ),
    ] = None,
    size: Size = None,
    limit: Limit = None,
    labels: LabelFile = None,
    recalibrate: Annotated[
        bool | None,
        Parameter(
            help="Recompute batch-norm statistics on whole training images first; default: after pretraining on tiles."
        ),
    ] = None,
    storage: Stored = "auto",
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Probe every layer of a run, compared with random weights, raw pixels and other baselines."""
    from selftaught.api.run import Run
    from selftaught.evaluation.table import render, render_classes

    table = Run(run).probe(
        data,
        seeds=seeds,
        probe=probe,
        pooling=pooling,
        dimensions=dimensions,
        baselines=baselines,
        size=size,
        limit=limit,
        labels=labels,
        recalibrate=recalibrate,
        storage=storage,
        device=device,
    )
    print_result(table.to_json() if json_ else render(table))
    if table.metric == "map" and not json_:
        print_result(render_classes(table))
