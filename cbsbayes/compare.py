"""``python -m cbsbayes.compare FIT FIT…``: fits side by side, with ratios as posteriors.

python -m cbsbayes.compare fit_gsm8k fit_math -o outputs/compare
python -m cbsbayes.compare fit --quantity cbs_prompts,gain_prompts --pool   # a folder of groups
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes._command import EXIT_OK, EXIT_UNTRUSTED, one_line, run_command
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    import pandas as pd

    from cbsbayes.decisions.compare_fits import Side
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
                    "rates): ratios and differences at common thresholds and batches.",
        epilog="exit status: 0 good; 1 the input is at fault; 2 usage; 3 one of the fits is not "
               "to be trusted (everything is still written)")
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
    add("--pool", action="store_true",
        help="pool every quantity in part across the fits as well (pooled.csv)")
    add("--ci-prob", type=float, default=0.9, metavar="P",
        help="probability of the equal-tailed intervals (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the pairing of draws (default: %(default)s)")
    add("--json", action="store_true", help="print the tables and remarks as JSON")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    from cbsbayes.decisions.comparable import remarks
    from cbsbayes.decisions.compare_fits import compare_sides
    from cbsbayes.decisions.pooled_table import few_groups, pooled_table
    from cbsbayes.report.command_page import check_page_folder
    from cbsbayes.report.compare_page import Comparison
    from cbsbayes.report.folder import check_folder

    if not 0.5 <= options.ci_prob < 1:
        raise CBSDataError(f"--ci-prob is {options.ci_prob:g}; valid: from 0.5 to below 1, "
                           "usually 0.9")
    check_folder(options.output)
    check_page_folder(options.output)
    sides = _sides(options.fits)
    names = _names(options.quantity, sides)
    table = compare_sides(sides, names=names, ci_prob=options.ci_prob, random_seed=options.seed)
    if table["threshold"].isna().all():
        _refuse_without_common(sides)
    told = remarks([side.fit for side in sides], [side.label for side in sides])
    pooled = None
    if options.pool:
        pooled = pooled_table(sides, names=names, ci_prob=options.ci_prob)
        told += [few_groups(pooled)] if few_groups(pooled) else []
    shown = _shown(table, sides, options.threshold)
    found = Comparison(sides, table, pooled, shown, told, _lines(shown, told, pooled))
    _write(options.output, found, command)
    _say(options, found)
    trusted = all(side.fit.verdict["trusted"] for side in sides)
    return EXIT_OK if trusted else EXIT_UNTRUSTED


def _sides(paths: Sequence[Path]) -> list[Side]:
    from cbsbayes.decisions.comparable import check_comparable
    from cbsbayes.decisions.compare_fits import Side
    from cbsbayes.decisions.given_fits import find_fits, label_fits
    from cbsbayes.posterior.fit import Fit

    found = find_fits(paths)
    fits = [Fit.load(path) for path in found]
    labels = label_fits(fits, found) if len(fits) > 1 else [fit.group for fit in fits]
    check_comparable(fits, labels)
    return [Side(label, fit) for label, fit in zip(labels, fits, strict=True)]


def _names(asked: str | None, sides: Sequence[Side]) -> list[str] | None:
    if asked is None:
        return None
    names = [name.strip() for name in asked.split(",") if name.strip()]
    known = dict.fromkeys(key[0] for side in sides for key in side.quantities)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise CBSDataError(f"no fit has the quantity {', '.join(unknown) or repr(asked)}; valid: "
                           f"{', '.join(known)}")
    return names


def _refuse_without_common(sides: Sequence[Side]) -> None:
    """Say what is missing where no number of the table stands at a threshold."""
    from cbsbayes.decisions.comparable import common_thresholds, no_common_thresholds

    if not any(common_thresholds(a.fit, b.fit) for a in sides for b in sides if a is not b):
        raise CBSDataError(no_common_thresholds([side.fit for side in sides],
                                                [side.label for side in sides]))
    raise CBSDataError("the fits have no quantity in common that is read off at the same batch; "
                       "compare sweeps that share an n_prompts or an n_rollouts, or fit all with "
                       "one --law")


def _shown(
    table: pd.DataFrame, sides: Sequence[Side], threshold: float | None
) -> list[tuple[float, pd.DataFrame]]:
    """Return the rows told in words of every pair, with their threshold."""
    import numpy as np

    from cbsbayes.report.contrast import main_rows
    from cbsbayes.report.headline import usual_batch

    usual = usual_batch(sides[0].fit.runs)
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


def _lines(
    shown: Sequence[tuple[float, pd.DataFrame]], told: Sequence[str], pooled: pd.DataFrame | None
) -> list[str]:
    from cbsbayes.report.contrast import contrast_sentences, pooled_report
    from cbsbayes.report.numbers import NO_BREAK, percent

    lines = [*told, _HOW.format(percent(float(shown[0][1]["ci_prob"].iloc[0])))]
    for _, rows in shown:
        lines += contrast_sentences(rows)
    if pooled is not None:
        lines += pooled_report(pooled, shown[0][1])
    return [one_line(line.replace(NO_BREAK, " ")) for line in lines]


def _write(folder: Path, found: Comparison, command: str) -> None:
    from cbsbayes.plots.files import figure_files
    from cbsbayes.plots.forest import plot_forest
    from cbsbayes.plots.style import detached
    from cbsbayes.report.command_page import write_command_page
    from cbsbayes.report.compare_page import compare_page
    from cbsbayes.report.estimates import plain
    from cbsbayes.report.folder import writing
    from cbsbayes.sweep.files import write_whole

    first = found.shown[0][1]
    keys = list(dict.fromkeys(zip(first["quantity"], first["at"].map(plain), strict=True)))
    with writing(folder), detached():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "compare.csv", found.table.to_csv(index=False))
        write_whole(folder / "compare.txt", "\n".join(found.lines) + "\n")
        if found.pooled is None:
            (folder / "pooled.csv").unlink(missing_ok=True)
        else:
            write_whole(folder / "pooled.csv", found.pooled.to_csv(index=False))
        for kind, content in figure_files(plot_forest(found.table, keys)).items():
            write_whole(folder / f"compare.{kind}", content)
        write_command_page(compare_page(found, folder, command), folder)


def _say(options: argparse.Namespace, found: Comparison) -> None:
    if options.json:
        print(json.dumps(_as_json(found.table, found.pooled, found.told), allow_nan=False))
    elif not options.quiet:
        from cbsbayes.report.console import print_table
        from cbsbayes.report.contrast import contrast_table

        for level, rows in found.shown:
            print_table(contrast_table(rows, level))
        told = len(found.told)
        after = told + 1 + sum(len(rows) for _, rows in found.shown)
        for line in (*found.lines[:told], *found.lines[after:]):
            print(line)
        print(f"Page, figure, tables: {one_line(options.output / 'index.html')}")


def _as_json(
    table: pd.DataFrame, pooled: pd.DataFrame | None, told: Sequence[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {"remarks": list(told),
                             "compare": json.loads(table.to_json(orient="records"))}
    if pooled is not None:
        found["pooled"] = json.loads(pooled.to_json(orient="records"))
    return found


if __name__ == "__main__":
    sys.exit(main())
