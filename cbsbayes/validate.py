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
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cbsbayes._command import EXIT_OK, EXIT_SAMPLING, numbers, run_command
from cbsbayes.errors import CBSDataError, one_line

if TYPE_CHECKING:
    from cbsbayes.validation.engine import Study
    from cbsbayes.validation.models import Settings

__all__ = ["main"]

_DEFAULT_LAW = "two_axis_free"
_COVERAGE_ONLY = ("ceiling_by_group", "alarms", "average", "eval_every")
_LINES = 20  # of progress that a batch log gets


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
    add, count = parser.add_argument, partial(_whole, least=1)
    add("what", nargs="?", choices=["coverage", "sbc", "seeds"], default="coverage",
        help="coverage over simulated sweeps (default), simulation-based calibration, or real "
             "seeds redrawn")
    add("-o", "--output", type=Path, default=Path("outputs/validation"), metavar="DIR",
        help="folder to write; tables of other studies in it are kept (default: %(default)s)")
    add("--family", default="base", metavar="NAME,…",
        help="families of simulated truth, comma-separated, or all (default: %(default)s)")
    add("--eval-every", type=count, metavar="N",
        help="for coverage: updates between evaluations (default: as the family has it)")
    add("--table", type=Path, metavar="FILE",
        help="for seeds: a sweep (.nc) or a table of runs, several of a batch")
    add("--law", default="auto", metavar="NAME",
        help=f"law to fit (default: {_DEFAULT_LAW}; of a table what its axes allow)")
    add("--model", default="crossing", metavar="NAME",
        help="crossing or trajectory (default: %(default)s)")
    add("--ceiling-by-group", action="store_true",
        help="for coverage: small groups may saturate lower in the model fitted (trajectory model)")
    add("--alarms", action="store_true",
        help="for coverage: count how often a fit would warn that small groups saturate lower")
    add("--average", action="store_true",
        help="for coverage: fit the other laws as well and count what is averaged over them")
    add("--sweeps", type=count, default=100, help="sweeps a study (default: %(default)s)")
    add("--first", type=_whole, default=0, metavar="SEED",
        help="random seed of the first (default: %(default)s)")
    add("--thresholds", type=lambda text: tuple(sorted(set(numbers(text)))), metavar="T,T,…",
        help="target accuracies")
    add("--draws", type=int, default=500, help="kept draws of each chain (default: %(default)s)")
    add("--tune", type=int, default=250, help="warm-up draws (default: %(default)s)")
    add("--chains", type=int, default=2, help="(default: %(default)s)")
    add("--no-least-squares", dest="least_squares", action="store_false",
        help="fit the posterior alone, which is faster")
    add("--workers", type=count, default=os.cpu_count() or 1,
        help="processes on this machine, one thread each (default: all its cores)")
    add("--scheduler", metavar="ADDRESS",
        help="fit on the workers of a Dask scheduler instead (pip install 'cbsbayes[cluster]')")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _whole(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def _run(options: argparse.Namespace, command: str) -> int:
    from cbsbayes.sweep.output_folder import growing_folder
    from cbsbayes.validation.engine import executor, run_study
    from cbsbayes.validation.page import study_markdown, write_outcome, write_page

    studies = _studies(options)
    say: Callable[[str], object] = (lambda text: None) if options.quiet else print
    wanted = range(options.first, options.first + options.sweeps)
    failed = False
    say(f"`{command}`")
    with (growing_folder(options.output, "cbsbayes.validate") as folder,
          _progress(options.quiet, len(studies) * len(wanted)) as advance,
          executor(options.workers, options.scheduler) as pool):
        for study in studies:
            outcome = run_study(study, wanted, folder, pool, advance)
            write_outcome(outcome, folder, command)
            page = write_page(folder)
            failed |= bool(outcome.summary["failed"])
            say(f"\n{study.name}\n\n"
                f"{study_markdown(study.kind, outcome.table, outcome.summary)}")
    say(f"\nwrote {one_line(options.output / page.name)}")
    return EXIT_SAMPLING if failed else EXIT_OK


def _studies(options: argparse.Namespace) -> list[Study]:
    """Return the studies asked for, everything that can be refused early refused."""
    from cbsbayes.validation import engine
    from cbsbayes.validation.families import FAMILIES, get_family

    for name in _COVERAGE_ONLY:
        if getattr(options, name) and options.what != "coverage":
            raise CBSDataError(f"--{name.replace('_', '-')} is for coverage, not for "
                               f"{options.what}; leave it out")
    if options.what == "seeds":
        return [_seeds_study(options)]
    if options.table is not None:
        raise CBSDataError(f"--table is for seeds; valid: python -m cbsbayes.validate seeds "
                           f"--table {one_line(options.table)}")
    settings = _settings(options, law=_DEFAULT_LAW if options.law == "auto" else options.law)
    if options.what == "sbc":
        return [engine.calibration_study(settings)]
    names = list(FAMILIES) if options.family == "all" else options.family.split(",")
    return [engine.coverage_study(get_family(name).name, settings) for name in dict.fromkeys(names)]


def _seeds_study(options: argparse.Namespace) -> Study:
    from cbsbayes.crossings.thresholds import choose_thresholds
    from cbsbayes.ingest import ingest
    from cbsbayes.models.laws import choose_law
    from cbsbayes.sweep.files import read_sweep
    from cbsbayes.validation.coverage import check_table
    from cbsbayes.validation.engine import seeds_study

    file = options.table
    if file is None:
        raise CBSDataError("seeds needs --table FILE: a sweep, or a table of runs with several "
                           "runs of a batch")
    ds = read_sweep(file) if file.suffix == ".nc" else ingest([str(file)])
    check_table(ds, str(file))
    options.thresholds = options.thresholds or tuple(choose_thresholds(ds).tolist())
    settings = _settings(options, law=choose_law(ds, options.law).law.name)
    return seeds_study(ds, file.name.split(".")[0], settings)


def _settings(options: argparse.Namespace, law: str) -> Settings:
    """Return the options that are settings; thresholds are the usual ones unless given."""
    from cbsbayes.validation.models import Settings

    given = {field.name: getattr(options, field.name) for field in fields(Settings)
             if getattr(options, field.name, None) is not None}
    return Settings(**given | {"law": law})


@contextmanager
def _progress(quiet: bool, total: int) -> Iterator[Callable[[], object]]:
    """Show on stderr how many sweeps are finished: a bar, or lines where it is no terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("sweeps", total=total)

        def advance() -> None:
            bar.advance(task)
            done = round(bar.tasks[0].completed)
            if not console.is_terminal and (done == total or done % max(total // _LINES, 1) == 0):
                console.print(f"{done}/{total} sweeps, {bar.tasks[0].elapsed:.0f} s",
                              highlight=False)

        yield advance


if __name__ == "__main__":
    sys.exit(main())
