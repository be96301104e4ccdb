"""How often nominal 90 % intervals hold the truth over simulated sweeps, least squares beside.

python benchmarks/interval_coverage.py --sweeps 100 --law two_axis -o benchmarks/results/two_axis

Writes ``<OUT>.csv`` (median log error, coverage and median log width by method, quantity and
threshold) and ``<OUT>.json`` (settings, sampling, versions), prints the table of README.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from interval_methods import CI_PROB, Outcome, sweep_intervals
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from scipy import stats

from cbsbayes.laws import LAWS, get_law
from cbsbayes.models.priors import PRIORS
from cbsbayes.simulate import simulate_sweep
from cbsbayes.store import write_whole
from cbsbayes.versions import versions

__all__ = ["main", "markdown", "one_sweep", "summarise"]

_ALL = "all"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    outcomes = _run(options)
    intervals = pd.concat([outcome.intervals.assign(sweep=k) for k, outcome in outcomes.items()])
    sampling = pd.DataFrame([outcome.sampling for outcome in outcomes.values()])
    table = summarise(intervals)
    command = shlex.join(["python", "benchmarks/interval_coverage.py", *arguments])
    facts = {"command": command, "settings": vars(options), "sampling": _sampling(sampling),
             "versions": versions()}
    write_whole(f"{options.output}.csv", table.to_csv(index=False, float_format="%.4g"))
    write_whole(f"{options.output}.json", json.dumps(facts, indent=1, default=str) + "\n")
    print(f"`{command}`\n\n{markdown(table)}\n\n{json.dumps(facts['sampling'])}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python benchmarks/interval_coverage.py",
                                     description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sweeps", type=int, default=100, help="simulated sweeps; default 100")
    add("--first", type=int, default=0, help="random seed of the first sweep; default 0")
    add("--design", default="all", help="phases joined by '+'; default all (p1+p2b+p2c)")
    add("--seeds", type=int, default=1, help="replicates of every cell; default 1")
    add("--law", default="two_axis", choices=[n for n, law in LAWS.items() if law.two_axis],
        help="law fitted; default two_axis")
    add("--alpha", type=_exponent, default=1.0, help="true exponent, or 'prior': drawn for every "
        "sweep from the prior of a free exponent; default 1")
    add("--item-set", action="store_true", help="one fixed validation set for all runs; the truth "
        "is then on that set's scale")
    add("--checkpoint-noise", type=float, default=0.0, help="sd of accuracy between checkpoints")
    add("--eval-every", type=int, default=25, help="updates between evaluations; default 25")
    add("--sigma-run", type=float, default=0.08, help="true sd of the run effect; default .08")
    add("--jobs", type=int, default=2, help="processes; default 2")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="name without suffix")
    return parser


def _exponent(text: str) -> float | str:
    return text if text == "prior" else float(text)


def _from_prior(random_seed: int) -> float:
    mean, sd, lower, upper = PRIORS.alpha
    ends = (lower - mean) / sd, (upper - mean) / sd
    return float(stats.truncnorm.rvs(*ends, loc=mean, scale=sd, random_state=random_seed))


def one_sweep(options: argparse.Namespace, random_seed: int) -> Outcome:
    """Simulate one sweep and return all intervals on it."""
    law = get_law(options.law)
    alpha = _from_prior(random_seed) if options.alpha == "prior" else options.alpha
    ds = simulate_sweep(
        options.design, options.seeds, eval_every=options.eval_every, alpha=alpha,
        law="two_axis_plain" if law.plain else "two_axis", sigma_run=options.sigma_run,
        item_set=options.item_set, checkpoint_noise=options.checkpoint_noise,
        random_seed=random_seed)
    return sweep_intervals(ds, law, random_seed)


def _run(options: argparse.Namespace) -> dict[int, Outcome]:
    seeds = range(options.first, options.first + options.sweeps)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    done = {}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool, \
            Progress(*columns) as progress:
        task = progress.add_task("sweeps", total=len(seeds))
        waiting = {pool.submit(one_sweep, options, seed): seed for seed in seeds}
        for future in as_completed(waiting):
            done[waiting[future]] = future.result()
            progress.advance(task)
    return dict(sorted(done.items()))


def summarise(intervals: pd.DataFrame) -> pd.DataFrame:
    """Return bias, coverage and width by method, quantity and threshold.

    Parameters
    ----------
    intervals : pandas.DataFrame
        Of `interval_methods.sweep_intervals`, with a column ``sweep``.

    Returns
    -------
    pandas.DataFrame
        Columns ``method, quantity, threshold, n, given, log_bias, coverage, coverage_se,
        log_width``; threshold "all" pools them. `given` is the share of cases with an interval,
        `coverage` counts those only; `coverage_se` is the Monte Carlo error over sweeps, whose
        thresholds are not independent; `log_bias` is the median log error of the estimates.
    """
    rows = intervals.assign(
        given=intervals[["lower", "upper"]].notna().all(axis=1),
        inside=(intervals["lower"] <= intervals["truth"])
        & (intervals["truth"] <= intervals["upper"]),
        error=intervals["estimate"] - intervals["truth"],
        width=intervals["upper"] - intervals["lower"])
    by_threshold = rows.groupby(["method", "quantity", "threshold"], sort=False)
    pooled = rows.assign(threshold=_ALL).groupby(["method", "quantity", "threshold"], sort=False)
    return pd.DataFrame([_statistics(key, part) for key, part in _both(pooled, by_threshold)])


def _both(*groups: Iterable[Any]) -> Iterable[Any]:
    for group in groups:
        yield from group


def _statistics(key: tuple[str, str, object], part: pd.DataFrame) -> dict[str, object]:
    given = part[part["given"]]
    by_sweep = given.groupby("sweep")["inside"].mean()
    return {**dict(zip(("method", "quantity", "threshold"), key, strict=True)), "n": len(part),
            "given": part["given"].mean(), "log_bias": part["error"].median(),
            "coverage": given["inside"].mean(),
            "coverage_se": by_sweep.std() / np.sqrt(max(len(by_sweep), 1)),
            "log_width": given["width"].median()}


def _sampling(sampling: pd.DataFrame) -> dict[str, float]:
    return {"sweeps": len(sampling), "seconds_median": round(sampling["seconds"].median(), 3),
            "seconds_max": round(sampling["seconds"].max(), 3),
            "divergences": int(sampling["divergences"].sum()),
            "sweeps_with_divergences": int((sampling["divergences"] > 0).sum()),
            "r_hat_worst": round(sampling["r_hat_max"].max(), 4),
            "ess_bulk_worst": round(sampling["ess_bulk_min"].min())}


def markdown(table: pd.DataFrame) -> str:
    """Return the pooled rows as a Markdown table: log error / coverage ± error / log width."""
    pooled = table[table["threshold"] == _ALL]
    cells = pooled.assign(text=[_cell(row) for row in pooled.itertuples()])
    wide = cells.pivot(index="quantity", columns="method", values="text")
    wide = wide.loc[pooled["quantity"].unique(), pooled["method"].unique()].fillna("")
    head = f"| nominal {CI_PROB:.0%} | {' | '.join(wide.columns)} |"
    lines = [f"| {name} | {' | '.join(row)} |" for name, row in zip(wide.index, wide.to_numpy(),
                                                                    strict=True)]
    return "\n".join([head, "|---" * (len(wide.columns) + 1) + "|", *lines])


def _cell(row: Any) -> str:
    some = "" if row.given > 0.995 else f" ({row.given:.0%})"
    return (f"{row.log_bias:+.2f} / {row.coverage:.2f} ± {row.coverage_se:.2f} / "
            f"{row.log_width:.2f}{some}")


if __name__ == "__main__":
    sys.exit(main())
