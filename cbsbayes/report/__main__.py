"""``python -m cbsbayes.report FIT``: tables, figures and page of a saved fit again.

python -m cbsbayes.report outputs/fit --target 0.65     # about another target
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cbsbayes._command import run_command, shown_stages
from cbsbayes.fit import add_page_options, exit_status

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "cbsbayes.report", *arguments])
    return run_command(lambda: _run(options, command), "cbsbayes.report")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.report",
        description="Write tables, figures and page of a saved fit again.",
        epilog="exit status: 0 good; 1 the input is at fault; 2 usage; 3 the sampling checks did "
               "not pass")
    parser.add_argument("fit", type=Path, metavar="FIT",
                        help="a folder or fit.nc that cbsbayes.fit wrote")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR",
                        help="folder to write (default: that of the fit)")
    add_page_options(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.fit_page import print_fit
    from cbsbayes.report.folder import write_fit

    folder = options.output or (options.fit if options.fit.is_dir() else options.fit.parent)
    with shown_stages("cbsbayes.report", quiet=options.quiet) as stage:
        facts = write_fit(Fit.load(options.fit), folder, target=options.target,
                          budget=options.budget, command=command, figures=options.figures,
                          stage=stage)
    if not options.quiet:
        print_fit(facts, str(options.fit), folder / "index.html")
    return exit_status([facts])


if __name__ == "__main__":
    sys.exit(main())
