"""``python -m cbsbayes.compare FIT FIT…``: fits side by side, with ratios as posteriors.

python -m cbsbayes.compare fit_gsm8k fit_math -o outputs/compare
python -m cbsbayes.compare fit --quantity cbs_prompts,gain_prompts   # a folder of groups
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial

from cbsbayes._command import exit_status, print_result, run_main
from cbsbayes.errors import CBSDataError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("compare", _run, argv)


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.decisions.batches import find_fits, label_fits
    from cbsbayes.decisions.compare_fits import compare_fits
    from cbsbayes.plots import item, plot_forest
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.compare import compare_page, how_text, main_rows, remarks, row_label
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.page import drawn, write_page
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
        figures = drawn([item("compare", partial(plot_forest, table, panels))], folder)
        page = compare_page(sides, table, shown, figures, options.command)
        write_whole(folder / "compare.txt",
                    "\n".join([*page.cautions, how_text(table), *page.answer]) + "\n")
        write_page(page, folder, {"compare": table})
    record = {"remarks": remarks(fits), "compare": json.loads(table.to_json(orient="records"))}
    print_result(options, record, page.title, [how_text(table)], page.cautions,
                 list(page.sections[0].tables.values()))
    return exit_status(loaded)


if __name__ == "__main__":
    sys.exit(main())
