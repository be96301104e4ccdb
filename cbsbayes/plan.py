"""``python -m cbsbayes.plan [SWEEP|FIT] --budget …``: which run next.

python -m cbsbayes.plan outputs/fit                            # the next run
python -m cbsbayes.plan outputs/fit --budget 200000 --runs 4   # four runs, 200,000 samples together
python -m cbsbayes.plan sweep.nc --quantity S_min --threshold 0.7
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cbsbayes._command import Stage, exit_status, print_result, run_main, shown_stages
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["main"]

_OF_A_SWEEP = {"law": "auto", "thresholds": None, "metric": None, "group": None}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("plan", _run, argv)


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.decisions.candidates import Choices, Request
    from cbsbayes.decisions.next_runs import plan_runs
    from cbsbayes.decisions.step_times import Cost, hours_cost, step_time_cost
    from cbsbayes.plots import item, plot_plan
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.page import drawn, write_page
    from cbsbayes.report.plan import (
        head_of,
        phase_lines,
        plan_label,
        plan_page,
        plan_record,
        plan_tables,
        read_like,
    )
    from cbsbayes.sweep.files import write_whole
    from cbsbayes.sweep.output_folder import output_folder

    request = Request(
        quantity=options.quantity, threshold=options.threshold,
        budget=float("inf") if options.budget is None else options.budget, runs=options.runs,
        choices=Choices(options.n_prompts, options.n_rollouts, options.updates, options.eval_every,
                        options.reach, options.learning_rates),
        data_sets=options.data_sets, draws=options.draws, seed=options.seed)
    with (output_folder(options.output, "cbsbayes.plan") as folder,
          shown_stages("cbsbayes.plan", quiet=options.quiet or options.json) as stage):
        fit, notes = _planning_fit(options, stage)
        head = read_like(options.like) if options.like else head_of(fit.sweep)
        cost = (hours_cost(options.seconds_per_sample, options.gpus)
                if options.seconds_per_sample is not None else
                step_time_cost(fit, options.gpus) if options.cost == "gpu-hours" else Cost())
        stage("weighing candidates")
        plan, facts = plan_runs(fit, request, cost), Facts(fit)
        figures = drawn([item("plan", partial(plot_plan, plan, title=plan_label(plan)))], folder)
        lines = phase_lines(plan, head, folder, options.write_phase, options.output)
        record = plan_record(plan, facts, options.command, notes, *lines)
        write_whole(folder / "plan.json",
                    json.dumps(record, indent=2, allow_nan=False) + "\n")
        page = plan_page(plan, facts, record, figures)
        write_page(page, folder, {"plan": plan.table, "runs": plan.runs}
                   | ({"second_rate": plan.second_rate} if len(plan.second_rate) else {}))
    tables = plan_tables(plan)
    print_result(options, record, page.asked,
                 [*page.answer, record["lines_from"], *record["lines"]], page.cautions,
                 [tables["candidates"], tables["planned"] if len(plan.runs) > 1 else None,
                  tables["second_rate"]])
    return exit_status([fit])


def _planning_fit(options: argparse.Namespace, stage: Stage) -> tuple[Fit, list[str]]:
    """Return a fit of the crossing model, and what must be known about it.

    A sweep is fitted without alternative laws; a fit of whole curves is made again by the crossing
    model, which says how a new run would scatter.
    """
    from cbsbayes.inference.nuts import SamplerSettings
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.posterior.fit_sweep import fit_sweep
    from cbsbayes.sweep.files import default_sweep_path, read_sweep

    path, sampler = options.source or default_sweep_path(), SamplerSettings(
        random_seed=options.seed)
    if not _holds_fit(path):
        fit = fit_sweep(read_sweep(path), group=options.group, law=options.law,
                        thresholds=options.thresholds, metric=options.metric, alternatives=False,
                        sampler=sampler, stage=stage)
        return fit, [f"The sweep was fitted with the law {fit.law.name}; other laws were not "
                     "fitted."]
    for name, default in _OF_A_SWEEP.items():
        if getattr(options, name) != default:
            raise CBSDataError(f"--{name} says how a sweep is fitted, but {path} is a fit already; "
                               "leave it out, or give the sweep")
    fit = Fit.load(path)
    model = fit.settings.get("model", "crossing")
    if model == "crossing":
        return fit, []
    notes = [f"The fit given is of the {model} model; its sweep was fitted again by the crossing "
             "model, which says how new runs would scatter."]
    if fit.settings.get("ceiling_by_group"):
        notes.append("The fit given has a ceiling for every group size, which the crossing model "
                     "does not know: what it expects of small groups at high targets is too good.")
    return fit_sweep(fit.sweep, group=fit.group, law=fit.law.name,
                     thresholds=fit.thresholds.tolist(), metric=fit.settings["metric"] or None,
                     ci_prob=fit.settings["ci_prob"], sampler=sampler, alternatives=False,
                     stage=stage), notes


def _holds_fit(path: Path) -> bool:
    """Tell a fit from a sweep by what the file holds; a folder can only be a fit's."""
    from cbsbayes.sweep.files import kind_of

    try:
        return path.is_dir() or kind_of(path) == "fit"
    except CBSDataError:
        return False  # read_sweep says what is wrong with it


if __name__ == "__main__":
    sys.exit(main())
