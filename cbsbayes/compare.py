"""``python -m cbsbayes.compare FIT FIT…``: fits side by side, with ratios as posteriors.

python -m cbsbayes.compare fit_gsm8k fit_math -o outputs/compare
python -m cbsbayes.compare fit --quantity cbs_prompts,gain_prompts   # a folder of groups
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cbsbayes._command import EXIT_OK, EXIT_SAMPLING, run_command
from cbsbayes.errors import CBSDataError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "cbsbayes.compare", *arguments])
    return run_command(lambda: _run(options, command), "cbsbayes.compare")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.compare",
        description="Compare fits of different runs (models, data sets, estimators, learning "
                    "rates, ppo_epochs): ratios and differences at common thresholds and batches.",
        epilog="exit status: 0 good; 1 the input is at fault; 2 usage; 3 sampling checks not "
               "passed by one of the fits (everything is still written)")
    add = parser.add_argument
    add("fits", nargs="+", type=Path, metavar="FIT",
        help="folders or fit.nc files written by cbsbayes.fit; a folder of several groups counts "
             "as several")
    add("-o", "--output", type=Path, default=Path("outputs/compare"), metavar="DIR",
        help="folder to write (default: %(default)s)")
    add("--quantity", metavar="NAME,…",
        help="only these quantities, by their names in cbs.csv; default: all")
    add("--threshold", type=float, metavar="T",
        help="the target of the sentences; the tables have all (default: the middle common one)")
    add("--ci-prob", type=float, default=0.9, metavar="P",
        help="probability of the equal-tailed intervals (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the pairing of draws (default: %(default)s)")
    add("--json", action="store_true", help="print the tables and remarks as JSON")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    from cbsbayes.decisions.batches import find_fits, label_fits
    from cbsbayes.decisions.compare_fits import compare_fits, remarks
    from cbsbayes.plots import plot_forest
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.compare import compare_page, how_text, main_rows, row_label
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.folder import write_answer
    from cbsbayes.report.page import write_page
    from cbsbayes.sweep.files import write_whole
    from cbsbayes.sweep.output_folder import output_folder

    if not 0.5 <= options.ci_prob < 1:
        raise CBSDataError(f"--ci-prob is {options.ci_prob:g}; valid: from 0.5 to below 1, "
                           "usually 0.9")
    with output_folder(options.output, "cbsbayes.compare") as folder:
        paths = find_fits(options.fits)
        loaded = [Fit.load(path) for path in paths]
        fits = dict(zip(label_fits(loaded, paths), loaded, strict=True))
        names = None if options.quantity is None else [
            name.strip() for name in options.quantity.split(",") if name.strip()]
        table = compare_fits(fits, names=names, ci_prob=options.ci_prob, random_seed=options.seed)
        sides = {label: Facts(fit) for label, fit in fits.items()}
        shown = main_rows(table, next(iter(sides.values())).batch, options.threshold)
        first = shown[shown["second"] == shown["second"].iloc[0]]
        panels = {row_label(row): (row["quantity"], row["at"]) for _, row in first.iterrows()}
        write_answer(folder, {"compare": table},
                     {"compare": partial(plot_forest, table, panels)})
        page = compare_page(sides, table, shown, folder, command)
        write_whole(folder / "compare.txt",
                    "\n".join([*page.cautions, how_text(table), *page.answer]) + "\n")
        write_page(page, folder)
    if options.json:
        print(json.dumps({"remarks": remarks(fits),
                          "compare": json.loads(table.to_json(orient="records"))},
                         allow_nan=False))
    elif not options.quiet:
        from cbsbayes.report.page import print_answer

        print_answer(page.title, [how_text(table)], page.cautions,
                     list(page.sections[0].tables.values()), options.output / "index.html")
    passed = all(fit.verdict["sampling"]["passed"] for fit in fits.values())
    return EXIT_OK if passed else EXIT_SAMPLING


if __name__ == "__main__":
    sys.exit(main())
