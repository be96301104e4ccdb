"""``python -m cbsbayes.fit [SWEEP] -o DIR``: credible intervals on the critical batch size.

python -m cbsbayes.fit                         # the shipped real sweep
python -m cbsbayes.fit sweep.nc -o fit --thresholds 0.60,0.65,0.70
python -m cbsbayes.fit sweep.nc -o fit --log-to wandb:ENTITY/PROJECT   # also beside the runs
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes._command import (
    Stage,
    Timings,
    command_parser,
    exit_status,
    peak_memory,
    run_main,
    shown_stages,
    timings_table,
)
from cbsbayes.errors import CBSDataError, one_line

if TYPE_CHECKING:
    import xarray as xr

    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.facts import Facts

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("fit", _follow, argv)


def _follow(options: argparse.Namespace) -> int:
    """Fit, and with ``--watch`` again whenever the file has been replaced."""
    from cbsbayes.sweep.files import default_sweep_path

    if options.watch is not None and options.sweep is None:
        command_parser("fit").error("--watch follows a SWEEP; give one")
    sweep = options.sweep or default_sweep_path()
    while True:
        seen = sweep.stat().st_mtime_ns if options.watch is not None else 0
        status = _run(options, sweep)
        while options.watch is not None and sweep.stat().st_mtime_ns == seen:
            time.sleep(options.watch)
        if options.watch is None:
            return status


def _run(options: argparse.Namespace, sweep: Path) -> int:
    with shown_stages("cbsbayes.fit", quiet=options.quiet or options.json) as show:
        stage = Timings(show)
        done, refused = _fit_groups(options, sweep, stage)
        stage.stop()
    if options.json:
        _print_json(done, refused, stage if options.timings else None)
    elif not options.quiet:
        _print(done, refused, str(sweep))
    if options.timings and not options.json:
        print(timings_table(stage.rows()))
    return exit_status(facts.fit for facts in done.values())


def _fit_groups(
    options: argparse.Namespace, path: Path, stage: Timings
) -> tuple[dict[Path, Facts], dict[str, str]]:
    """Return what is reported of each group by its folder, and the reasons of those refused."""
    stage("importing")
    from cbsbayes.baselines.table import with_comparison
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.folder import write_files, write_groups
    from cbsbayes.report.wandb_run import log_fit, parse_project
    from cbsbayes.sweep.files import read_sweep
    from cbsbayes.sweep.groups import group_names
    from cbsbayes.sweep.output_folder import output_folder

    stage("reading the sweep")
    sweep = read_sweep(path)
    groups = [options.group] if options.group is not None else group_names(sweep)
    done: dict[Path, Facts] = {}
    refused: dict[str, str] = {}
    _check_target(options)
    project = parse_project(options.log_to) if options.log_to is not None else None
    with output_folder(options.output, "cbsbayes.fit") as new:
        for k, group in enumerate(groups, start=1):
            name = f"{k:02d}_{_slug(group)}" if len(groups) > 1 else ""
            try:
                fit = _fit(sweep, group, options, stage)
            except CBSDataError as error:
                refused[group] = str(error)
                continue
            facts = Facts(with_comparison(fit), options.target, options.budget)
            write_files(facts, new / name, shown=options.output / name,
                        command=options.command, stage=stage, figures=options.figures,
                        source=options.sweep)
            done[options.output / name] = facts
        if not done:
            raise CBSDataError(_none_fitted(refused))
        if len(groups) > 1:
            write_groups(done, refused, sweep, new)
    if project is not None:
        stage("logging to wandb")
        for folder, facts in done.items():
            log_fit(facts, folder, project)
    return done, refused


def _check_target(options: argparse.Namespace) -> None:
    """Refuse a target that will not be fitted before a fit is waited for."""
    if options.target is not None and options.target not in (
            options.thresholds or [options.target]):
        raise CBSDataError(f"--target is {options.target:g}, which is not among --thresholds; "
                           "valid: one of them")


def _none_fitted(refused: dict[str, str]) -> str:
    group, reason = next(iter(refused.items()))
    if len(refused) == 1:
        return reason
    return f"none of the {len(refused)} groups of runs can be fitted; the first, {group}: {reason}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")[:60] or "group"


def _fit(sweep: xr.Dataset, group: str, options: argparse.Namespace, stage: Stage) -> Fit:
    from cbsbayes.inference.sampling import SamplerSettings
    from cbsbayes.noise.joint import fit_jointly
    from cbsbayes.posterior.fit_sweep import fit_sweep

    sampler = SamplerSettings(sampler=options.sampler, draws=options.draws, tune=options.tune,
                              chains=options.chains, random_seed=options.seed)
    fit = fit_jointly if options.use_gradient_noise else fit_sweep
    return fit(sweep, group=group, law=options.law, model=options.model,
               thresholds=options.thresholds, metric=options.metric, rule=options.rule,
               ci_prob=options.ci_prob, sampler=sampler, stage=stage,
               ceiling_by_group=options.ceiling_by_group)


def _print(done: dict[Path, Facts], refused: dict[str, str], source: str) -> None:
    from cbsbayes.report.fit_page import print_fit

    for folder, facts in done.items():
        print_fit(facts, source, folder / "index.html")
    for group, reason in refused.items():
        print(one_line(f"{group}: not fitted: {reason}"))


def _print_json(done: dict[Path, Facts], refused: dict[str, str], stage: Timings | None) -> None:
    from cbsbayes.report.folder import fit_summary, table_of

    found: list[dict[str, Any]] = [fit_summary(facts) | {"folder_tables": {
        name: json.loads(table_of(facts.fit, name).to_json(orient="records"))
        for name in ("cbs", "overhead", "comparison", "runs")}} for facts in done.values()]
    found += [{"group": group, "not_fitted": reason} for group, reason in refused.items()]
    if stage is not None:
        found.append({"timings": [row._asdict() for row in stage.rows()],
                      "peak_memory_mib": peak_memory()})
    print(json.dumps(found, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
