"""``python -m cbsbayes.plan [SWEEP|FIT] --budget …``: which run next.

python -m cbsbayes.plan outputs/fit                            # the next run
python -m cbsbayes.plan outputs/fit --budget 200000 --runs 4   # four runs, 200,000 samples together
python -m cbsbayes.plan sweep.nc --quantity S_min --threshold 0.7
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes._command import EXIT_OK, EXIT_SAMPLING, numbers, run_command
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.decisions.costs import Cost
    from cbsbayes.decisions.phases import Head, PhaseFile
    from cbsbayes.decisions.planner import Plan, Request
    from cbsbayes.posterior.fit import Fit

__all__ = ["main"]

_SHOWN = 12  # candidates in the terminal; all are in plan.csv


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "cbsbayes.plan", *arguments])
    return run_command(lambda: _run(options, command), "cbsbayes.plan")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.plan",
        description="Rank the runs that could be next by what each is expected to tell about one "
                    "quantity, for its price.",
        epilog="exit status: 0 good; 1 the input is at fault; 2 usage; 3 sampling checks not "
               "passed (everything is still written)")
    add = parser.add_argument
    add("source", nargs="?", type=Path, metavar="SWEEP|FIT",
        help="a sweep, which is fitted first, or what cbsbayes.fit wrote; default: the shipped "
             "real sweep")
    add("-o", "--output", type=Path, default=Path("outputs/plan"), metavar="DIR",
        help="folder to write (default: %(default)s)")
    add("--budget", type=float, metavar="COST", help="for all planned runs together, in the unit "
        "of the cost; default: none")
    add("--runs", type=int, default=1, metavar="K", help="plan up to K runs (default: %(default)s)")
    add("--quantity", metavar="NAME[@AT]", help="what is to be known better, e.g. "
        "cbs_prompts@n_rollouts=8, S_min, alpha; default: the prompt CBS at the n_rollouts of most "
        "runs")
    add("--threshold", type=float, metavar="T", help="at which fitted threshold; default: the "
        "hardest at which the quantity is identified")
    add("--cost", choices=["samples", "gpu-hours"], default="samples",
        help="samples, or GPU-hours from the step times that the sweep logged (default: "
             "%(default)s)")
    add("--seconds-per-sample", type=float, metavar="X", help="GPU-hours from this rate instead")
    add("--gpus", type=float, default=1.0, metavar="N", help="GPUs of a run (default: 1)")
    add("--n-prompts", type=numbers, metavar="P,P,…", help="choose among these (of one axis: "
        "total batches); default: those tried")
    add("--n-rollouts", type=numbers, metavar="G,G,…", help="choose among these; default: those "
        "tried")
    add("--updates", type=numbers, metavar="N,N,…", help="run lengths to choose among; default: "
        "where new runs are past the target, and past the middle threshold, with --reach")
    add("--reach", type=float, default=0.9, metavar="P",
        help="share of new runs past a threshold at their end (default: %(default)s)")
    add("--eval-every", type=float, metavar="N", help="updates between evaluations; default: the "
        "sweep's")
    add("--write-phase", type=Path, metavar="FILE", help="write the planned runs as this phase "
        "file, e.g. training/phases/planned.toml (numbered where they need several); default: "
        "DIR/phases/planned.toml")
    add("--like", type=Path, metavar="FILE", help="the phase file of the earlier runs, whose other "
        "settings are taken over")
    add("--law", default="auto", metavar="NAME", help="of a sweep: the law, as for cbsbayes.fit")
    add("--thresholds", type=numbers, metavar="T,T,…", help="of a sweep: the thresholds")
    add("--metric", metavar="KEY", help="of a sweep: the validation set")
    add("--group", metavar="NAME", help="of a sweep: the group of runs")
    add("--data-sets", type=int, default=128, metavar="N",
        help="simulated data sets per candidate (default: %(default)s)")
    add("--draws", type=int, default=2000, metavar="N",
        help="posterior draws that each weights (default: %(default)s)")
    add("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    add("--json", action="store_true", help="print plan.json")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    request = _request(options)
    from cbsbayes.decisions.plan_source import planning_fit
    from cbsbayes.decisions.planner import plan_runs
    from cbsbayes.report.folder import check_folder
    from cbsbayes.report.page import check_page_folder
    from cbsbayes.sweep.shipped import default_sweep_path

    check_folder(options.output)
    check_page_folder(options.output)
    say = _stage(options)
    fit, said = planning_fit(options.source or default_sweep_path(), _choices(options), say)
    head = _head(options, fit)
    cost = _cost(options, fit)
    say("weighing candidates")
    plan = plan_runs(fit, request, cost)
    done = _write(options, fit, plan, head, said, command)
    if options.json:
        print(json.dumps(done, allow_nan=False))
    elif not options.quiet:
        _say(fit, plan, done, options.output)
    return EXIT_OK if fit.verdict["sampling"]["passed"] else EXIT_SAMPLING


def _request(options: argparse.Namespace) -> Request:
    from cbsbayes.decisions.planner import Request

    if options.seed < 0:
        raise CBSDataError(f"--seed is {options.seed}; valid: 0 and more")
    return Request(
        quantity=options.quantity, threshold=options.threshold,
        budget=float("inf") if options.budget is None else options.budget, runs=options.runs,
        prompts=options.n_prompts, rollouts=options.n_rollouts, updates=options.updates,
        every=options.eval_every, reach=options.reach, data_sets=options.data_sets,
        draws=options.draws, seed=options.seed)


def _choices(options: argparse.Namespace) -> Any:
    from cbsbayes.decisions.plan_source import FitChoices

    return FitChoices(options.law, options.thresholds, options.metric, options.group, options.seed)


def _stage(options: argparse.Namespace) -> Any:
    if options.quiet or options.json:
        return lambda text: None
    return lambda text: print(f"cbsbayes.plan: {text} …", file=sys.stderr, flush=True)


def _head(options: argparse.Namespace, fit: Fit) -> Head:
    from cbsbayes.decisions.phases import head_of, read_like

    return read_like(options.like) if options.like else head_of(fit.sweep)


def _cost(options: argparse.Namespace, fit: Fit) -> Cost:
    from cbsbayes.decisions.costs import hours_cost, sample_cost, step_time_cost

    if options.seconds_per_sample is not None:
        return hours_cost(options.seconds_per_sample, options.gpus)
    if options.cost == "gpu-hours":
        return step_time_cost(fit, options.gpus)
    return sample_cost()


def _write(
    options: argparse.Namespace, fit: Fit, plan: Plan, head: Head, said: list[str], command: str
) -> dict[str, Any]:
    """Write the folder; return what ``plan.json`` holds."""
    from cbsbayes.decisions.phases import command_lines
    from cbsbayes.decisions.plan_record import plan_record
    from cbsbayes.plots import draw_figure, plot_plan, write_figure
    from cbsbayes.report.folder import writing
    from cbsbayes.report.page import write_page
    from cbsbayes.report.plan_page import plan_page
    from cbsbayes.report.plan_words import target_label
    from cbsbayes.sweep.files import write_whole

    with writing(options.output):
        options.output.mkdir(parents=True, exist_ok=True)
        places, why = _phases(options, fit, plan, head)
        lines = command_lines(places) if places else []
        record = plan_record(plan, fit, said, command, lines, why or head.how)
        write_whole(options.output / "plan.csv", plan.table.to_csv(index=False))
        write_whole(options.output / "runs.csv", plan.runs.to_csv(index=False))
        write_whole(options.output / "plan.json",
                    json.dumps(record, indent=2, allow_nan=False) + "\n")
        write_figure(draw_figure(plot_plan, plan, title=target_label(plan)),
                     options.output / "plan")
        write_page(plan_page(plan, fit, record, options.output), options.output)
    return record


def _phases(
    options: argparse.Namespace, fit: Fit, plan: Plan, head: Head
) -> tuple[list[Path], str]:
    """Write the phase files; return their places, or none and why."""
    from cbsbayes.decisions.phases import clear_phases, phase_files, write_phases

    target = options.write_phase or options.output / "phases" / "planned.toml"
    if plan.tried.one_axis:
        return [], "The data give total batches only, so there are no lines for training.sweep."
    try:
        files: list[PhaseFile] = phase_files(plan.runs, head, plan.tried.every, target.stem)
    except CBSDataError:
        if options.write_phase:
            raise
        return [], "A planned batch or length is not a whole number, so there are no lines."
    places = write_phases(files, target.parent)
    if not options.write_phase:
        clear_phases(target.parent, places)
    return places, ""


def _say(fit: Fit, plan: Plan, done: dict[str, Any], folder: Path) -> None:
    from cbsbayes.report.plan_console import print_plan

    print_plan(fit, plan, done, shown=_SHOWN, page=folder / "index.html")


if __name__ == "__main__":
    sys.exit(main())
