"""``python -m cbsbayes.fit [SWEEP] -o DIR``: credible intervals on the critical batch size.

python -m cbsbayes.fit                         # the shipped real sweep
python -m cbsbayes.fit sweep.nc -o fit --thresholds 0.60,0.65,0.70
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    add("--figures", choices=["page", "all", "none", "pdf"], default="page",
        help="which to draw: the page's, all, none, or the page's as PDF too "
             "(default: %(default)s)")
    add("--watch", type=float, metavar="SECONDS",
        help="look every SECONDS whether SWEEP has changed and fit again, until interrupted")
    add("--json", action="store_true", help="print fit.json and the tables as JSON")
    add("--timings", action="store_true",
        help="print what each stage took (with --json as the last entry) and the peak memory")
    add("--quiet", action="store_true", help="print nothing but errors and what --timings asks")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


@dataclass(frozen=True)
class _Done:
    """What a command fitted: what is reported of each group, and those refused with the reason."""

    path: Path
    sweep: xr.Dataset
    folders: dict[str, Path]
    facts: list[Facts] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


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
    with _stages(options.quiet or options.json) as show:
        stage = Timings(show)
        done = _fit_groups(options, command, stage)
        stage.stop()
    _print(done, options, stage)
    if options.timings and not options.json:
        print(timings_table(stage.rows()))
    passed = all(facts.fit.verdict["sampling"]["passed"] for facts in done.facts)
    return EXIT_OK if passed else EXIT_SAMPLING


def _fit_groups(options: argparse.Namespace, command: str, stage: Timings) -> _Done:
    stage("importing")
    from cbsbayes.report.folder import write_files
    from cbsbayes.sweep.files import default_sweep_path, read_sweep
    from cbsbayes.sweep.groups import group_names
    from cbsbayes.sweep.output_folder import output_folder

    stage("reading the sweep")
    path = options.sweep or default_sweep_path()
    sweep = read_sweep(path)
    groups = [options.group] if options.group is not None else group_names(sweep)
    done = _Done(path, sweep, _folders(options.output, groups))
    with output_folder(options.output, "cbsbayes.fit") as new:
        for group, folder in done.folders.items():
            try:
                fit = _fit(sweep, group, options, stage)
            except CBSDataError as error:
                done.refused[group] = str(error)
                continue
            done.facts.append(write_files(
                fit, new / folder.relative_to(options.output), shown=folder, command=command,
                stage=stage, figures=options.figures, sweep=sweep, source=options.sweep))
        if not done.facts:
            raise CBSDataError(_none_fitted(done.refused))
        if len(groups) > 1:
            _write_together(done, new)
    return done


def _none_fitted(refused: dict[str, str]) -> str:
    group, reason = next(iter(refused.items()))
    if len(refused) == 1:
        return reason
    return f"none of the {len(refused)} groups of runs can be fitted; the first, {group}: {reason}"


def _folders(output: Path, groups: Sequence[str]) -> dict[str, Path]:
    """Return where each group's fit goes: the folder itself, or one inside it per group."""
    if len(groups) == 1:
        return {groups[0]: output}
    return {group: output / f"{k:02d}_{_slug(group)}" for k, group in enumerate(groups, start=1)}


def _slug(text: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in text)
    return "_".join(part for part in kept.split("_") if part)[:60] or "group"


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


def _write_together(done: _Done, output: Path) -> None:
    """Write the tables of all groups stacked, and a page that lists them."""
    from cbsbayes.posterior.selection import runs_table
    from cbsbayes.report.folder import TABLES, fit_summary, table_of, write_stacked
    from cbsbayes.report.page import IndexEntry, render_index
    from cbsbayes.report.text import paragraph
    from cbsbayes.sweep.files import write_whole
    from cbsbayes.sweep.groups import of_group

    fits, refused = [facts.fit for facts in done.facts], done.refused
    tables = {name: [table_of(fit, name).assign(group=fit.group) for fit in fits]
              for name in TABLES}
    for group, reason in refused.items():
        runs = of_group(done.sweep, group)
        why = dict.fromkeys(runs["run"].values.astype(str), f"its group is not fitted: {reason}")
        tables["runs"].append(runs_table(runs, why).assign(group=group))
    tables["noise"] = [facts.noise for facts in done.facts if not isinstance(facts.noise, str)]
    tables["noise_joint"] = [fit.noise_joint for fit in fits if fit.noise_joint is not None]
    entries = [IndexEntry(facts.fit.group, f"{done.folders[facts.fit.group].name}/index.html",
                          paragraph("critical", facts=facts), facts.fit.verdict["level"])
               for facts in done.facts]
    entries += [IndexEntry(group, "", reason, "") for group, reason in refused.items()]
    summaries = [*map(fit_summary, done.facts), *_refused_as_json(refused)]
    for name, parts in tables.items():
        write_stacked(parts, output / f"{name}.csv")
    write_whole(output / "fit.json",
                json.dumps({"groups": summaries}, indent=2, allow_nan=False) + "\n")
    write_whole(output / "index.html", render_index(entries))


def _refused_as_json(refused: dict[str, str]) -> list[dict[str, Any]]:
    return [{"group": group, "not_fitted": reason} for group, reason in refused.items()]


def _print(done: _Done, options: argparse.Namespace, stage: Timings) -> None:
    from cbsbayes.report.console import print_fit

    if options.json:
        found = [*map(_as_json, done.facts), *_refused_as_json(done.refused)]
        if options.timings:
            found.append({"timings": [row._asdict() for row in stage.rows()],
                          "peak_memory_mib": peak_memory()})
        print(json.dumps(found, allow_nan=False))
    elif not options.quiet:
        for facts in done.facts:
            print_fit(facts, done.path, done.folders[facts.fit.group])
        for group, reason in done.refused.items():
            print(one_line(f"{group}: not fitted: {reason}"))


def _as_json(facts: Facts) -> dict[str, Any]:
    from cbsbayes.report.folder import fit_summary, table_of

    return fit_summary(facts) | {"folder_tables": {
        name: json.loads(table_of(facts.fit, name).to_json(orient="records"))
        for name in ("cbs", "overhead", "comparison", "runs")}}


@contextmanager
def _stages(quiet: bool) -> Iterator[Stage]:
    """Show what is being done: a spinner on a terminal, a line per stage otherwise."""
    if quiet:
        yield lambda text: None
        return
    if not sys.stderr.isatty():
        yield lambda text: print(f"cbsbayes.fit: {text} …", file=sys.stderr, flush=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield lambda text: status.update(f"{text} …")


if __name__ == "__main__":
    sys.exit(main())
