"""``python -m cbsbayes.compare FIT FIT…``: fits side by side, with ratios as posteriors.

python -m cbsbayes.compare fit_gsm8k fit_math -o outputs/compare
python -m cbsbayes.compare fit --quantity cbs_prompts,gain_prompts   # a folder of groups
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cbsbayes._command import EXIT_OK, EXIT_SAMPLING, run_command
from cbsbayes.errors import CBSDataError, one_line

if TYPE_CHECKING:
    import pandas as pd

    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.compare_page import Comparison

__all__ = ["main"]

_HOW = ("Numbers are for typical runs: posterior medians with equal-tailed {} intervals; the fits "
        "are independent, ratios are first over second.")


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
        help="the target told of in words; the tables have all (default: the middle common one)")
    add("--ci-prob", type=float, default=0.9, metavar="P",
        help="probability of the equal-tailed intervals (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the pairing of draws (default: %(default)s)")
    add("--json", action="store_true", help="print the tables and remarks as JSON")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    from cbsbayes.decisions.comparable import remarks
    from cbsbayes.decisions.compare_fits import compare_fits
    from cbsbayes.report.compare_page import Comparison
    from cbsbayes.report.folder import check_folder
    from cbsbayes.report.page import check_page_folder

    if not 0.5 <= options.ci_prob < 1:
        raise CBSDataError(f"--ci-prob is {options.ci_prob:g}; valid: from 0.5 to below 1, "
                           "usually 0.9")
    check_folder(options.output)
    check_page_folder(options.output)
    fits = _fits(options.fits)
    names = None if options.quantity is None else [
        name.strip() for name in options.quantity.split(",") if name.strip()]
    table = compare_fits(fits, names=names, ci_prob=options.ci_prob, random_seed=options.seed)
    told = remarks(fits)
    shown = _shown(table, fits, options.threshold)
    found = Comparison(fits, table, shown, told, _lines(shown, told))
    _write(options.output, found, command)
    _say(options, found)
    passed = all(fit.verdict["sampling"]["passed"] for fit in fits.values())
    return EXIT_OK if passed else EXIT_SAMPLING


def _fits(paths: Sequence[Path]) -> dict[str, Fit]:
    from cbsbayes.decisions.comparable import find_fits, label_fits
    from cbsbayes.posterior.fit import Fit

    found = find_fits(paths)
    fits = [Fit.load(path) for path in found]
    return dict(zip(label_fits(fits, found), fits, strict=True))


def _shown(
    table: pd.DataFrame, fits: Mapping[str, Fit], threshold: float | None
) -> list[tuple[float, pd.DataFrame]]:
    """Return the rows told in words of every pair, with their threshold."""
    import numpy as np

    from cbsbayes.report.contrast import main_rows
    from cbsbayes.report.facts import usual_batch

    usual = usual_batch(next(iter(fits.values())).runs)
    shown = []
    for _, rows in table.groupby(["first", "second"], sort=False):
        levels = np.sort(rows["threshold"].dropna().unique())
        if not len(levels):
            continue
        if threshold is not None and not np.isclose(levels, threshold).any():
            raise CBSDataError(f"threshold {threshold:g} is not common to "
                               f"{rows['first'].iloc[0]} and {rows['second'].iloc[0]}; common: "
                               f"{', '.join(f'{t:g}' for t in levels)}")
        level = float(levels[len(levels) // 2]) if threshold is None else threshold
        shown.append((level, main_rows(rows, usual, level)))
    return shown


def _lines(shown: Sequence[tuple[float, pd.DataFrame]], told: Sequence[str]) -> list[str]:
    from cbsbayes.report.contrast import contrast_sentences
    from cbsbayes.report.numbers import NO_BREAK, percent

    lines = [*told, _HOW.format(percent(float(shown[0][1]["ci_prob"].iloc[0])))]
    for _, rows in shown:
        lines += contrast_sentences(rows)
    return [one_line(line.replace(NO_BREAK, " ")) for line in lines]


def _write(folder: Path, found: Comparison, command: str) -> None:
    from cbsbayes.plots import draw_figure, plot_forest, write_figure
    from cbsbayes.report.compare_page import compare_page
    from cbsbayes.report.folder import writing
    from cbsbayes.report.page import write_page
    from cbsbayes.report.text import at_text, plain, quantity_label
    from cbsbayes.sweep.files import write_whole

    first = found.shown[0][1]
    keys = list(dict.fromkeys(zip(first["quantity"], first["at"].map(plain), strict=True)))
    panels = {f"{quantity_label(quantity)}{f' at {at_text(at)}' if at else ''}": (quantity, at)
              for quantity, at in keys}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "compare.csv", found.table.to_csv(index=False))
        write_whole(folder / "compare.txt", "\n".join(found.lines) + "\n")
        write_figure(draw_figure(plot_forest, found.table, panels), folder / "compare")
        write_page(compare_page(found, folder, command), folder)


def _say(options: argparse.Namespace, found: Comparison) -> None:
    if options.json:
        print(json.dumps({"remarks": list(found.told),
                          "compare": json.loads(found.table.to_json(orient="records"))},
                         allow_nan=False))
    elif not options.quiet:
        from cbsbayes.report.console import print_table
        from cbsbayes.report.contrast import contrast_table

        for level, rows in found.shown:
            print_table(contrast_table(rows, level))
        for line in found.lines[:len(found.told) + 1]:
            print(line)
        print(f"Page, figure, tables: {one_line(options.output / 'index.html')}")


if __name__ == "__main__":
    sys.exit(main())
