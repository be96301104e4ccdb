"""``python -m cbsbayes.reuse SWEEP``: what several passes over a batch do to updates and samples.

It takes a sweep, not fits: runs at other reuse factors are other groups, no law is claimed for
them, and their comparison has a model of its own (`cbsbayes.models.reuse`).

python -m cbsbayes.reuse sweep.nc -o outputs/reuse --thresholds 0.60,0.65
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cbsbayes._command import EXIT_OK, EXIT_UNTRUSTED, numbers, one_line, run_command
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    import xarray as xr

    from cbsbayes.report.reuse_page import ReuseResult
    from cbsbayes.reuse_runs import ReuseRuns

__all__ = ["main"]

_R_HAT, _ESS, _LONGER = 1.01, 400.0, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "cbsbayes.reuse", *arguments])
    return run_command(lambda: _run(options, command), "cbsbayes.reuse")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.reuse",
        description="Compare runs that differ only in ppo_epochs: updates and generated samples "
                    "to target by batch and reuse factor, and along diagonals of equal "
                    "optimisation per trainer step.",
        epilog="exit status: 0 good; 1 the input is at fault; 2 usage; 3 the chains do not agree "
               "(everything is still written)")
    add = parser.add_argument
    add("sweep", type=Path, metavar="SWEEP", help="a sweep written by cbsbayes.ingest")
    add("-o", "--output", type=Path, default=Path("outputs/reuse"), metavar="DIR",
        help="folder to write (default: %(default)s)")
    add("--thresholds", type=numbers, metavar="T,T,…",
        help="target accuracies, comma-separated; default: chosen on a round grid")
    add("--metric", metavar="KEY", help="validation set; default: the sweep's")
    add("--ci-prob", type=float, default=0.9, metavar="P",
        help="probability of the equal-tailed intervals (default: %(default)s)")
    add("--draws", type=int, default=2000, help="kept draws of each chain (default: %(default)s)")
    add("--tune", type=int, default=1000, help="warm-up draws (default: %(default)s)")
    add("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    add("--json", action="store_true", help="print the tables and sentences as JSON")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    from cbsbayes.report.command_page import check_page_folder
    from cbsbayes.report.folder import check_folder
    from cbsbayes.reuse_runs import reuse_families, reuse_runs
    from cbsbayes.sweep.files import read_sweep

    if not 0.5 <= options.ci_prob < 1:
        raise CBSDataError(f"--ci-prob is {options.ci_prob:g}; valid: from 0.5 to below 1, "
                           "usually 0.9")
    if options.draws < 100 or options.tune < 100:
        raise CBSDataError(f"--draws is {options.draws} and --tune {options.tune}; valid: 100 and "
                           "more each")
    check_folder(options.output)
    check_page_folder(options.output)
    sweep = read_sweep(options.sweep)
    simulated = bool(sweep.attrs.get("simulated"))
    results, refused = [], []
    for family in reuse_families(sweep):
        try:
            runs = reuse_runs(sweep, family, thresholds=options.thresholds, metric=options.metric)
        except CBSDataError as error:
            refused.append(str(error))
            continue
        results.append(_compare(runs, options, simulated))
    if not results:
        raise CBSDataError(refused[0])
    _write(results, refused, options.output, _made(sweep, options, command))
    _say(results, refused, options)
    return EXIT_OK if all(result.trusted for result in results) else EXIT_UNTRUSTED


def _compare(runs: ReuseRuns, options: argparse.Namespace, simulated: bool) -> ReuseResult:
    from cbsbayes.models.reuse import sample_reuse
    from cbsbayes.report.numbers import NO_BREAK
    from cbsbayes.report.reuse import reuse_sentences
    from cbsbayes.report.reuse_page import ReuseResult
    from cbsbayes.reuse_table import cell_table, diagonal_table, effect_table

    draws = sample_reuse(runs.data, draws=options.draws, tune=options.tune,
                         random_seed=options.seed)
    r_hat, ess = _agreement(draws)
    if r_hat > _R_HAT or ess < _ESS:
        draws = sample_reuse(runs.data, draws=_LONGER * options.draws, tune=2 * options.tune,
                             random_seed=options.seed)
        r_hat, ess = _agreement(draws)
    tables = {"reuse": cell_table(runs, draws, options.ci_prob, options.seed),
              "effects": effect_table(runs, draws, options.ci_prob),
              "diagonals": diagonal_table(runs, draws, options.ci_prob)}
    threshold = float(sorted(runs.thresholds)[len(runs.thresholds) // 2])
    said = [f"{runs.family}: {len(runs.runs)} {'simulated ' if simulated else ''}runs at reuse "
            f"{', '.join(map(str, runs.factors))}; no law is claimed."]
    said += [f"{len(runs.reasons)} runs left out: {'; '.join(sorted(set(runs.reasons.values())))}."
             ] if runs.reasons else []
    trusted = r_hat <= _R_HAT and ess >= _ESS
    if not trusted:
        said.append(f"The chains do not agree (largest r_hat {r_hat:.3f}, smallest effective "
                    f"sample size {ess:.0f}): sample longer with --draws.")
    said += reuse_sentences(tables["effects"], tables["diagonals"], threshold)
    lines = [one_line(line.replace(NO_BREAK, " ")) for line in said]
    return ReuseResult(runs, threshold, tables, lines, trusted, simulated)


def _agreement(draws: object) -> tuple[float, float]:
    """Return the largest r_hat and smallest effective size of log S in the cells that were run."""
    import numpy as np

    from cbsbayes.inference.diagnostics import convergence
    from cbsbayes.models.reuse import ReuseDraws

    assert isinstance(draws, ReuseDraws)
    cells = np.concatenate([draws.log_steps(*cell) for cell in draws.data.cells], axis=2)
    found = convergence(cells)
    return float(found.r_hat.max()), float(min(found.ess_bulk.min(), found.ess_tail.min()))


def _made(sweep: xr.Dataset, options: argparse.Namespace, command: str) -> dict[str, object]:
    named = {name: sweep.attrs[name] for name in ("title", "digest", "history")
             if sweep.attrs.get(name)}
    return {"command": command, "sweep": named, "settings": {
        "ci_prob": options.ci_prob, "draws": options.draws, "tune": options.tune,
        "seed": options.seed}}


def _write(
    results: Sequence[ReuseResult], refused: Sequence[str], folder: Path, made: dict[str, object]
) -> None:
    import pandas as pd

    from cbsbayes.plots.files import figure_files
    from cbsbayes.plots.reuse import plot_reuse
    from cbsbayes.plots.style import detached
    from cbsbayes.report.command_page import write_command_page
    from cbsbayes.report.folder import writing
    from cbsbayes.report.reuse_page import reuse_figures, reuse_page
    from cbsbayes.sweep.files import write_whole

    with writing(folder), detached():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("reuse", "effects", "diagonals"):
            table = pd.concat([result.tables[name] for result in results])
            write_whole(folder / f"{name}.csv", table.to_csv(index=False))
        lines = [line for result in results for line in result.sentences]
        lines += [f"Not compared: {one_line(reason)}" for reason in refused]
        write_whole(folder / "reuse.txt", "\n".join(lines) + "\n")
        for old in (*folder.glob("reuse_*.png"), *folder.glob("reuse_*.pdf")):
            old.unlink()
        for k, rollouts, name in reuse_figures(results):
            result = results[k - 1]
            cells = result.tables["reuse"]
            rows = cells[cells["n_rollouts"] == rollouts]
            figure = plot_reuse(rows, result.threshold, simulated=result.simulated)
            for kind, content in figure_files(figure).items():
                write_whole(folder / f"{name}.{kind}", content)
        write_command_page(reuse_page(results, refused, folder, made), folder)


def _say(
    results: Sequence[ReuseResult], refused: Sequence[str], options: argparse.Namespace
) -> None:
    if options.json:
        print(json.dumps([{"family": result.runs.family, "sentences": result.sentences, **{
            name: json.loads(table.to_json(orient="records"))
            for name, table in result.tables.items()}} for result in results]
            + [{"not_compared": reason} for reason in refused], allow_nan=False))
    elif not options.quiet:
        from cbsbayes.report.console import print_table
        from cbsbayes.report.reuse import reuse_table

        for result in results:
            print_table(reuse_table(result.tables["reuse"], result.threshold))
            for line in result.sentences:
                print(line)
        for reason in refused:
            print(f"Not compared: {one_line(reason)}")
        print(f"Page, figures, tables: {one_line(options.output / 'index.html')}")


if __name__ == "__main__":
    sys.exit(main())
