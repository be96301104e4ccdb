"""``python -m cbsbayes.validate``: how often intervals hold the truth.

python -m cbsbayes.validate --family base,sqrt --sweeps 200 -o outputs/validation
python -m cbsbayes.validate sbc --law two_axis_free --sweeps 200 -o outputs/validation
python -m cbsbayes.validate seeds --table crossings.csv --sweeps 200 -o outputs/validation
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cbsbayes._command import EXIT_OK, EXIT_UNTRUSTED, numbers, one_line, run_command
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.validation.coverage import Settings
    from cbsbayes.validation.study import Outcome, Study

__all__ = ["main"]

_DEFAULT_LAW = "two_axis_free"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "cbsbayes.validate", *arguments])
    return run_command(lambda: _run(options, command), "cbsbayes.validate")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.validate",
        description="Fit many sweeps whose truth is known and count how often intervals hold it.",
        epilog="finished sweeps are kept in DIR/sweeps: the same command goes on where it was "
               "stopped. Exit status: 0 good; 1 the input is at fault; 2 usage; 3 some fits "
               "failed (they are named, everything else is written)")
    add = parser.add_argument
    add("what", nargs="?", choices=["coverage", "sbc", "seeds"], default="coverage",
        help="coverage over simulated sweeps (default), simulation-based calibration, or real "
             "seeds redrawn")
    add("-o", "--output", type=Path, default=Path("outputs/validation"), metavar="DIR",
        help="folder to write; tables of other studies in it are kept (default: %(default)s)")
    add("--family", default="base", metavar="NAME,…",
        help="families of simulated truth, comma-separated, or all (default: %(default)s)")
    add("--table", type=Path, metavar="FILE",
        help="for seeds: a sweep (.nc) or a table of runs, several of a batch")
    add("--law", default="auto", metavar="NAME",
        help=f"law to fit (default: {_DEFAULT_LAW}; of a table what its axes allow)")
    add("--model", default="crossing", metavar="NAME",
        help="crossing or trajectory (default: %(default)s)")
    add("--ceiling-by-group", action="store_true",
        help="for coverage: small groups may saturate lower in the model fitted (trajectory model)")
    add("--alarms", action="store_true",
        help="for coverage: count how often a fit would say that small groups saturate lower")
    add("--average", action="store_true",
        help="for coverage: fit the laws beside as well and count what is averaged over them")
    add("--sweeps", type=_count, default=100, help="sweeps a study (default: %(default)s)")
    add("--first", type=_whole, default=0, metavar="SEED",
        help="random seed of the first (default: %(default)s)")
    add("--thresholds", type=_thresholds, metavar="T,T,…", help="target accuracies")
    add("--draws", type=int, default=500, help="kept draws of each chain (default: %(default)s)")
    add("--tune", type=int, default=500, help="warm-up draws (default: %(default)s)")
    add("--chains", type=int, default=2, help="(default: %(default)s)")
    add("--no-least-squares", action="store_true", help="fit the posterior alone, which is faster")
    add("--workers", type=_count, default=os.cpu_count() or 1,
        help="processes on this machine, one thread each (default: all its cores)")
    add("--scheduler", metavar="ADDRESS",
        help="fit on the workers of a Dask scheduler instead (pip install 'cbsbayes[cluster]')")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _thresholds(text: str) -> tuple[float, ...]:
    return tuple(sorted(set(numbers(text))))


def _run(options: argparse.Namespace, command: str) -> int:
    from cbsbayes.report.folder import check_folder
    from cbsbayes.validation.engine import executor
    from cbsbayes.validation.page import write_outcome, write_page
    from cbsbayes.validation.study import run_study

    studies = _studies(options)
    check_folder(options.output)
    options.output.mkdir(parents=True, exist_ok=True)
    wanted = range(options.first, options.first + options.sweeps)
    outcomes = []
    with (_progress(options.quiet, len(studies) * len(wanted)) as advance,
          executor(options.workers, options.scheduler) as pool):
        for study in studies:
            outcome = run_study(study, wanted, options.output, pool, advance)
            write_outcome(outcome, options.output, command)
            outcomes.append(outcome)
    page = write_page(options.output)
    if not options.quiet:
        _say(outcomes, command, page)
    return EXIT_UNTRUSTED if any(o.summary["failed"] for o in outcomes) else EXIT_OK


def _studies(options: argparse.Namespace) -> list[Study]:
    """Return the studies asked for, everything that can be refused early refused."""
    from cbsbayes.validation.families import FAMILIES, get_family
    from cbsbayes.validation.study import calibration_study, coverage_study

    if options.what == "seeds":
        return [_seeds_study(options)]
    if options.table is not None:
        raise CBSDataError(f"--table is for seeds; valid: python -m cbsbayes.validate seeds "
                           f"--table {one_line(options.table)}")
    law = _DEFAULT_LAW if options.law == "auto" else options.law
    settings = _settings(options, law, options.thresholds)
    if options.what == "sbc":
        return [calibration_study(settings)]
    names = list(FAMILIES) if options.family == "all" else options.family.split(",")
    return [coverage_study(get_family(name).name, settings) for name in dict.fromkeys(names)]


def _seeds_study(options: argparse.Namespace) -> Study:
    from cbsbayes.validation.seeds import read_table, table_law, table_thresholds
    from cbsbayes.validation.study import seeds_study

    if options.table is None:
        raise CBSDataError("seeds needs --table FILE: a sweep, or a table of runs with several "
                           "runs of a batch")
    ds = read_table(options.table)
    settings = _settings(options, table_law(ds, options.law),
                         table_thresholds(ds, options.thresholds))
    return seeds_study(ds, options.table.name.split(".")[0], settings)


def _settings(
    options: argparse.Namespace, law: str, thresholds: tuple[float, ...] | None
) -> Settings:
    from cbsbayes.models.laws import get_law
    from cbsbayes.validation.coverage import THRESHOLDS, Settings
    from cbsbayes.validation.posterior import MODELS

    if options.model not in MODELS:
        raise CBSDataError(f"unknown model {options.model!r}; valid: {', '.join(MODELS)}")
    settings = Settings(model=options.model, law=get_law(law).name, chains=options.chains,
                        draws=options.draws, tune=options.tune,
                        thresholds=thresholds or THRESHOLDS,
                        ceiling_by_group=_ceilings(options, law),
                        alarms=_for_coverage(options, "alarms"),
                        average=_for_coverage(options, "average"),
                        least_squares=not options.no_least_squares)
    settings.sampler(0)  # refuses what cannot be sampled with
    return settings


def _ceilings(options: argparse.Namespace, law: str) -> bool:
    if options.ceiling_by_group and options.what != "coverage":
        raise CBSDataError(f"--ceiling-by-group is for coverage, not for {options.what}; leave it "
                           "out")
    if options.ceiling_by_group:
        from cbsbayes.models.laws import get_law
        from cbsbayes.posterior.ceiling_option import check_ceilings

        check_ceilings(options.model, get_law(law))
    return bool(options.ceiling_by_group)


def _for_coverage(options: argparse.Namespace, name: str) -> bool:
    asked = bool(getattr(options, name))
    if asked and options.what != "coverage":
        raise CBSDataError(f"--{name} is for coverage, not for {options.what}; leave it out")
    return asked


@contextmanager
def _progress(quiet: bool, total: int) -> Iterator[Callable[[], object]]:
    """Show a bar on stderr."""
    if quiet:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("sweeps", total=total)
        yield lambda: bar.advance(task)


def _say(outcomes: list[Outcome], command: str, page: Path) -> None:
    from cbsbayes.validation.markdown import study_markdown

    print(f"`{command}`")
    for outcome in outcomes:
        print(f"\n{outcome.study.name}\n")
        print(study_markdown(outcome.study.kind, outcome.table, {"summary": outcome.summary}))
    print(f"\nwrote {one_line(page)}")


if __name__ == "__main__":
    sys.exit(main())
