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
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes._command import Stage, exit_status, print_result, run_main, shown_stages
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.decisions.candidates import Request
    from cbsbayes.decisions.next_runs import Plan
    from cbsbayes.decisions.step_times import Cost
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.plan import Head

__all__ = ["main"]

_OF_A_SWEEP = {"law": "auto", "thresholds": None, "metric": None, "group": None}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("plan", _run, argv)


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.decisions.next_runs import plan_runs
    from cbsbayes.plots import item, plot_plan
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.page import drawn, write_page
    from cbsbayes.report.plan import (
        SHOWN,
        candidates_table,
        head_of,
        plan_label,
        plan_page,
        read_like,
        runs_table,
        second_rate_table,
    )
    from cbsbayes.sweep.files import write_whole
    from cbsbayes.sweep.output_folder import output_folder

    request = _request(options)
    with (output_folder(options.output, "cbsbayes.plan") as folder,
          shown_stages("cbsbayes.plan", quiet=options.quiet or options.json) as stage):
        fit, notes = _planning_fit(options, stage)
        head = read_like(options.like) if options.like else head_of(fit.sweep)
        cost = _cost(options, fit)
        stage("weighing candidates")
        plan, facts = plan_runs(fit, request, cost), Facts(fit)
        figures = drawn([item("plan", partial(plot_plan, plan, title=plan_label(plan)))], folder)
        record = _record(plan, facts, options.command, notes, *_phases(options, plan, head, folder))
        write_whole(folder / "plan.json",
                    json.dumps(record, indent=2, allow_nan=False) + "\n")
        page = plan_page(plan, facts, record, figures)
        write_page(page, folder, {"plan": plan.table, "runs": plan.runs}
                   | ({"second_rate": plan.second_rate} if len(plan.second_rate) else {}))
    tables = [candidates_table(plan, SHOWN),
              *([runs_table(plan)] if len(plan.runs) > 1 else []), second_rate_table(plan)]
    print_result(options, record, page.asked,
                 [*page.answer, record["lines_from"], *record["lines"]], page.cautions, tables)
    return exit_status([fit])


def _request(options: argparse.Namespace) -> Request:
    from cbsbayes.decisions.candidates import Choices, Request

    choices = Choices(options.n_prompts, options.n_rollouts, options.updates, options.eval_every,
                      options.reach, options.learning_rates)
    return Request(
        quantity=options.quantity, threshold=options.threshold,
        budget=float("inf") if options.budget is None else options.budget, runs=options.runs,
        choices=choices, data_sets=options.data_sets, draws=options.draws, seed=options.seed)


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
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "posterior" in file
    except OSError:
        return path.is_dir()  # else read_sweep says what is wrong with it


def _cost(options: argparse.Namespace, fit: Fit) -> Cost:
    from cbsbayes.decisions.step_times import Cost, hours_cost, step_time_cost

    if options.seconds_per_sample is not None:
        return hours_cost(options.seconds_per_sample, options.gpus)
    return step_time_cost(fit, options.gpus) if options.cost == "gpu-hours" else Cost()


def _phases(
    options: argparse.Namespace, plan: Plan, head: Head, folder: Path
) -> tuple[list[str], str]:
    """Write the phase files; return the lines that start the runs, and where the rest is from."""
    from cbsbayes.report.plan import command_lines, phase_files, write_phases

    target = options.write_phase or options.output / "phases" / "planned.toml"
    if plan.tried.one_axis:
        return [], "The data give total batches only, so there are no lines for training.sweep."
    try:
        unknown = [name for name, label in head.labels.items() if not label]
        if unknown:
            raise CBSDataError(f"the sweep does not say the {' nor the '.join(unknown)} of its "
                               "runs, which a phase file has to; give --like PHASE_FILE")
        files = {name: text for runs, name in ((plan.runs, target.stem),
                                               (plan.second_rate, f"{target.stem}_second_rate"))
                 for name, text in phase_files(runs, head, plan.tried.every, name).items()}
    except CBSDataError as error:
        if options.write_phase:
            raise
        return [], f"No lines for training.sweep: {error}."
    written = write_phases(files, target.parent if options.write_phase else folder / "phases")
    return command_lines([target.with_name(path.name) for path in written]), head.how


def _record(
    plan: Plan, facts: Any, command: str, notes: list[str], lines: list[str], lines_from: str
) -> dict[str, Any]:
    """Return what ``plan.json`` holds; numbers that are not finite are None."""
    from cbsbayes.decisions.batches import interval_columns
    from cbsbayes.report.folder import finite
    from cbsbayes.report.plan import plan_notes, plan_sentences

    fit, quantity = facts.fit, plan.quantity
    ends = {name: float(end) for name, end in
            interval_columns("ci", quantity.values, plan.ci_prob).items()}
    records = [json.loads(table.to_json(orient="records", double_precision=12))
               for table in (plan.runs, plan.table, plan.second_rate)]
    return finite({
        "command": command, "group": fit.group, "law": fit.law.name,
        "data_digest": fit.settings["data_digest"],
        "sampling_passed": bool(fit.verdict["sampling"]["passed"]),
        "quantity": {"name": quantity.name, "at": quantity.at, "threshold": quantity.threshold,
                     "unit": quantity.unit, "status": quantity.status, "median": ends.pop("ci"),
                     **ends, "ci_prob": plan.ci_prob},
        "cost_unit": plan.cost.unit, "evaluated_every": plan.tried.every,
        "request": asdict(plan.request), "sentences": plan_sentences(plan),
        "notes": [*notes, *plan_notes(plan, facts)], "runs": records[0], "candidates": records[1],
        "second_rate": records[2], "lines": lines, "lines_from": lines_from})


if __name__ == "__main__":
    sys.exit(main())
