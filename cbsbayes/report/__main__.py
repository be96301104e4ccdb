"""``python -m cbsbayes.report FIT``: tables, figures and page of a saved fit again.

python -m cbsbayes.report outputs/fit --target 0.65     # about another target
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cbsbayes._command import exit_status, run_main, shown_stages

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("report", _run, argv)


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.fit_page import print_fit
    from cbsbayes.report.folder import write_fit

    folder = options.output or (options.fit if options.fit.is_dir() else options.fit.parent)
    with shown_stages("cbsbayes.report", quiet=options.quiet) as stage:
        facts = write_fit(Fit.load(options.fit), folder, target=options.target,
                          budget=options.budget, command=options.command, figures=options.figures,
                          stage=stage)
    if not options.quiet:
        print_fit(facts, str(options.fit), folder / "index.html")
    return exit_status([facts.fit])


if __name__ == "__main__":
    sys.exit(main())
