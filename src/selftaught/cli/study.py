"""`selftaught study`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import SEVERAL, SWITCH, Count, Json
from selftaught.cli.output import print_result
from selftaught.errors import readable


def study(
    study: Annotated[str, Parameter(help="A name of `selftaught list studies`, or a YAML file.")],
    /,
    *,
    scale: Annotated[
        Literal["small", "full"], Parameter(help="small: for a laptop; full: the paper's, or as near as possible.")
    ] = "small",
    data: Annotated[
        tuple[str, ...],
        SEVERAL,
        Parameter(help="Images that replace the study's source; VARIANT=SOURCE replaces those of one variant."),
    ] = (),
    probe_data: Annotated[
        str | None, Parameter(help="Labeled images that replace those of all evaluations; default: the study's.")
    ] = None,
    seeds: Annotated[
        int | None, Parameter(converter=integers, help="Number of seeds of each variant; default: the study's.")
    ] = None,
    jobs: Annotated[Count, Parameter(help="Number of runs at a time, each with its share of the CPU threads.")] = 1,
    threads: Annotated[
        int | None,
        Parameter(converter=integers, help="CPU threads of each run; default: all, divided by --jobs; 4 with --slurm."),
    ] = None,
    slurm: Annotated[
        tuple[str, ...] | None,
        Parameter(
            help="Make every run a Slurm job, --jobs of them at a time; options of sbatch as name=value, such as "
            "partition=gpu gpus-per-node=1 time=240 (minutes).",
            consume_multiple=True,
        ),
    ] = None,
    plan: Annotated[
        bool, SWITCH, Parameter(help="Check every variant, print the runs and the estimated time, and stop.")
    ] = False,
    out: Annotated[Path | None, Parameter(help="Folder of the study; default: studies/NAME-SCALE.")] = None,
    json_: Json = False,
) -> int:
    """Run the grid of a study, evaluate it, and write a page with its conclusion.

    After Ctrl-C or a crash the same command continues; what is finished is not repeated.
    """
    from selftaught.studies.planning import render
    from selftaught.studies.study import Options, plan_study, run_study
    from selftaught.training.interruption import Stop

    options = Options(scale, data, probe_data, seeds, jobs, threads, slurm)
    if plan:
        planned = plan_study(study, options)
        print_result(planned.to_json() if json_ else render(planned))
        return 0
    stop = Stop()
    page = run_study(study, options, out, stop)
    if page is None:
        return stop.exit_code
    if json_:
        print((page.parent / "outcome.json").read_text().strip())
    else:
        print(readable(str(page)))
    return 0
