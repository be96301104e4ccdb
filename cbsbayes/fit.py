"""``python -m cbsbayes.fit [SWEEP] -o DIR``: credible intervals on the critical batch size.

python -m cbsbayes.fit                         # the shipped real sweep
python -m cbsbayes.fit sweep.nc -o fit --thresholds 0.60,0.65,0.70
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes._command import (
    EXIT_OK,
    EXIT_SAMPLING,
    Stage,
    Timings,
    numbers,
    peak_memory,
    run_command,
    shown_stages,
    timings_table,
)
from cbsbayes.errors import CBSDataError, one_line

if TYPE_CHECKING:
    import xarray as xr

    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.facts import Facts

__all__ = ["add_page_options", "exit_status", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.watch is not None and options.sweep is None:
        parser.error("--watch follows a SWEEP; give one")
    command = shlex.join(["python", "-m", "cbsbayes.fit", *arguments])
    return run_command(lambda: _follow(options, command), "cbsbayes.fit")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.fit",
        description="Fit S_min and the noise scales of a sweep; write tables, figures and a page.",
        epilog="exit status: 0 good; 1 the input is at fault; 2 usage; 3 the sampling checks did "
               "not pass (everything is still written, the verdict says why)",
    )
    add = parser.add_argument
    add("sweep", nargs="?", type=Path, metavar="SWEEP",
        help="a sweep written by cbsbayes.ingest; default: the shipped real sweep")
    add("-o", "--output", type=Path, default=Path("outputs/fit"), metavar="DIR",
        help="folder to write (default: %(default)s)")
    add("--model", choices=["crossing", "trajectory"], default="crossing",
        help="what is fitted: crossings of thresholds, or whole curves (default: %(default)s)")
    add("--law", default="auto", metavar="NAME",
        help="auto (the varied axes decide), total, power, two_axis, two_axis_sqrt, "
             "two_axis_free, or one of the last three with _plain")
    add("--thresholds", type=numbers, metavar="T,T,…",
        help="target accuracies, comma-separated; default: chosen on a round grid")
    add("--metric", metavar="KEY", help="validation set; default: the sweep's")
    add("--group", metavar="NAME", help="fit only this group of runs; default: each apart")
    add("--rule", choices=["isotonic", "first", "consecutive"], default="isotonic",
        help="what counts as a crossing (default: %(default)s)")
    add("--use-gradient-noise", action="store_true",
        help="take gradient noise that the runs logged as data too, up to a free offset "
             "(crossing model)")
    add("--ceiling-by-group", action="store_true",
        help="let small groups saturate lower: a ceiling for every n_rollouts (trajectory model)")
    add("--ci-prob", type=float, default=0.9, metavar="P",
        help="probability of the equal-tailed intervals (default: %(default)s)")
    add("--sampler", choices=["nutpie", "pymc"], default="nutpie",
        help="nutpie, or PyMC's own NUTS on the PyMC model, much slower (default: %(default)s)")
    add("--draws", type=int, default=750, help="kept draws of each chain (default: %(default)s)")
    add("--tune", type=int, default=250, help="warm-up draws of each chain (default: %(default)s)")
    add("--chains", type=int, default=4, help="(default: %(default)s)")
    add("--seed", type=_seed, default=0, help="random seed (default: %(default)s)")
    add_page_options(parser)
    add("--watch", type=float, metavar="SECONDS",
        help="look every SECONDS whether SWEEP has changed and fit again, until interrupted")
    add("--json", action="store_true", help="print fit.json and the tables as JSON")
    add("--timings", action="store_true",
        help="print what each stage took (with --json as the last entry) and the peak memory")
    add("--quiet", action="store_true", help="print nothing but errors and what --timings asks")
    return parser


def add_page_options(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the content of a fit's page."""
    add = parser.add_argument
    add("--target", type=float, metavar="T",
        help="the threshold that card, page and figures are about (default: the middle one)")
    add("--budget", type=float, metavar="E",
        help="advise the batch with the least time (or updates) of those whose median samples to "
             "the target are at most that (default: none)")
    add("--figures", choices=["page", "all", "none", "pdf"], default="page",
        help="which to draw: the page's, all, none, or all as PDF too (default: %(default)s)")


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def _follow(options: argparse.Namespace, command: str) -> int:
    """Fit, and with ``--watch`` again whenever the file has been replaced."""
    while True:
        seen = options.sweep.stat().st_mtime_ns if options.watch is not None else 0
        status = _run(options, command)
        while options.watch is not None and options.sweep.stat().st_mtime_ns == seen:
            time.sleep(options.watch)
        if options.watch is None:
            return status


def _run(options: argparse.Namespace, command: str) -> int:
    with shown_stages("cbsbayes.fit", quiet=options.quiet or options.json) as show:
        stage = Timings(show)
        done, refused = _fit_groups(options, command, stage)
        stage.stop()
    if options.json:
        _print_json(done, refused, stage if options.timings else None)
    elif not options.quiet:
        _print(done, refused, str(_path(options)))
    if options.timings and not options.json:
        print(timings_table(stage.rows()))
    return exit_status(list(done.values()))


def _path(options: argparse.Namespace) -> Path:
    from cbsbayes.sweep.files import default_sweep_path

    return options.sweep or default_sweep_path()


def exit_status(fitted: Sequence[Facts]) -> int:
    """Return 0 where the sampling of all fits passed its checks, else 3."""
    passed = all(facts.fit.verdict["sampling"]["passed"] for facts in fitted)
    return EXIT_OK if passed else EXIT_SAMPLING


def _fit_groups(
    options: argparse.Namespace, command: str, stage: Timings
) -> tuple[dict[Path, Facts], dict[str, str]]:
    """Return what is reported of each group by its folder, and the reasons of those refused."""
    stage("importing")
    from cbsbayes.baselines.table import with_comparison
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.folder import write_files, write_groups
    from cbsbayes.sweep.files import read_sweep
    from cbsbayes.sweep.groups import group_names
    from cbsbayes.sweep.output_folder import output_folder

    stage("reading the sweep")
    sweep = read_sweep(_path(options))
    groups = [options.group] if options.group is not None else group_names(sweep)
    done: dict[Path, Facts] = {}
    refused: dict[str, str] = {}
    _check_target(options)
    with output_folder(options.output, "cbsbayes.fit") as new:
        for k, group in enumerate(groups, start=1):
            name = f"{k:02d}_{_slug(group)}" if len(groups) > 1 else ""
            try:
                fit = _fit(sweep, group, options, stage)
            except CBSDataError as error:
                refused[group] = str(error)
                continue
            facts = Facts(with_comparison(fit), options.target, options.budget)
            write_files(facts, new / name, shown=options.output / name, command=command,
                        stage=stage, figures=options.figures, source=options.sweep)
            done[options.output / name] = facts
        if not done:
            raise CBSDataError(_none_fitted(refused))
        if len(groups) > 1:
            write_groups(done, refused, sweep, new)
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
