"""``python -m cbsbayes.validate``: how often intervals hold the truth.

python -m cbsbayes.validate --family base,sqrt --sweeps 200 -o outputs/validation
python -m cbsbayes.validate sbc --law two_axis_free --sweeps 200 -o outputs/validation
python -m cbsbayes.validate seeds --table crossings.csv --sweeps 200 -o outputs/validation
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import count
from typing import TYPE_CHECKING

from cbsbayes._command import EXIT_OK, EXIT_SAMPLING, Stage, run_main, shown_stages
from cbsbayes.errors import CBSDataError, one_line

if TYPE_CHECKING:
    from cbsbayes.validation.engine import Study
    from cbsbayes.validation.models import Settings

__all__ = ["main"]

_DEFAULT_LAW = "two_axis_free"
_LINES = 20  # of progress that a batch log gets


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("validate", _run, argv)


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.sweep.output_folder import growing_folder
    from cbsbayes.validation.engine import executor, run_study
    from cbsbayes.validation.page import study_markdown, write_outcome, write_page

    studies = _studies(options)
    say: Callable[[str], object] = (lambda text: None) if options.quiet else print
    wanted = range(options.first, options.first + options.sweeps)
    failed = False
    say(f"`{options.command}`")
    with (growing_folder(options.output, "cbsbayes.validate") as folder,
          shown_stages("cbsbayes.validate", quiet=options.quiet) as stage,
          executor(options.workers or os.cpu_count() or 1, options.scheduler) as pool):
        advance = _counted(stage, len(studies) * len(wanted))
        for study in studies:
            table, rows, summary = run_study(study, wanted, folder, pool, advance)
            write_outcome(study, table, rows, summary, folder, options.command)
            page = write_page(folder)
            failed |= bool(summary["failed"])
            say(f"\n{study.name}\n\n{study_markdown(study.kind, table, summary)}")
    say(f"\nwrote {one_line(options.output / page.name)}")
    return EXIT_SAMPLING if failed else EXIT_OK


def _studies(options: argparse.Namespace) -> list[Study]:
    """Return the studies asked for, everything that can be refused early refused."""
    from cbsbayes.validation import engine
    from cbsbayes.validation.families import FAMILIES, get_family
    from cbsbayes.validation.models import COVERAGE_ONLY

    for name in COVERAGE_ONLY:
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
    families = [get_family(name) for name in dict.fromkeys(names)]
    return [engine.coverage_study(family.name, replace(settings, law=family.law)
                                  if family.law and options.law == "auto" else settings)
            for family in families]


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
    options.thresholds = options.thresholds or choose_thresholds(ds).tolist()
    settings = _settings(options, law=choose_law(ds, options.law).law.name)
    return seeds_study(ds, file.name.split(".")[0], settings)


def _settings(options: argparse.Namespace, law: str) -> Settings:
    """Return the options that are settings; thresholds are the usual ones unless given."""
    from cbsbayes.validation.models import Settings

    given = {field.name: getattr(options, field.name) for field in fields(Settings)
             if getattr(options, field.name, None) is not None}
    if options.thresholds is not None:
        given["thresholds"] = tuple(sorted(set(options.thresholds)))
    return Settings(**given | {"law": law})


def _counted(stage: Stage, total: int) -> Callable[[], None]:
    """Return what is called for every finished sweep and shows some twenty of their numbers."""
    done = count(1)

    def advance() -> None:
        k = next(done)
        if k < total and k % max(total // _LINES, 1) == 0:
            stage(f"sweep {k + 1} of {total}")

    stage(f"sweep 1 of {total}")
    return advance


if __name__ == "__main__":
    sys.exit(main())
