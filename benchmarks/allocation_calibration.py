"""Is P(best) right, and is the chosen split good? ``python benchmarks/allocation_calibration.py``.

Sweeps with a known optimum are simulated (families of `cbsbayes.validation`, the exponent drawn
from its prior unless the family fixes it), each with noise scales of its own, so that the best
split of 2,048 samples is anywhere from 2 to 64 rollouts. Every sweep is fitted by the crossing
model, or by trajectories with a ceiling for every group size (``--ceiling-by-group``); what is said
of each split, P(best) and the expected regret, is laid beside the truth, the split of least S in
the simulated training. Finished sweeps are kept in a file that only grows: the same command goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import cbsbayes
from cbsbayes.decisions.batches import batches_run, range_of
from cbsbayes.decisions.splits import candidate_splits, judge
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.surface import Surface
from cbsbayes.simulation.truth import true_steps, truth_of
from cbsbayes.validation.engine import Ledger, executor, run_sweeps
from cbsbayes.validation.families import family_sweep, get_family
from cbsbayes.validation.models import Settings, fitted_runs, posterior_tree, worst_numbers

TOTAL = 2048
LAW = "two_axis_free"
THRESHOLDS = (0.60, 0.65, 0.70)
BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


def scales(seed: int) -> dict[str, tuple[float, float]]:
    """Return noise scales of one sweep: levels a factor of e apart (one sd), slopes varied."""
    rng = np.random.default_rng([seed, 77])
    level = {"B_prompt": 90.0, "B_rollout": 900.0}
    return {name: (float(value * np.exp(rng.normal())), float(rng.uniform(2.0, 12.0)))
            for name, value in level.items()}


def one_sweep(family: str, settings: Settings, seed: int) -> dict[str, Any]:
    """Simulate and fit one sweep; return what was said of each split beside the truth."""
    law = get_law(settings.law)
    kind = get_family(family)
    curve = dict(kind.arguments.get("curve", {})) | {"noise": scales(seed)}
    drawn = replace(kind, arguments={**kind.arguments, "curve": curve})
    ds = family_sweep(drawn, law, seed)
    runs = fitted_runs(ds, law)
    tree = posterior_tree(runs, law, settings, seed)
    posterior = tree["posterior"].to_dataset()
    tried = batches_run(runs)
    splits = candidate_splits(TOTAL, tried, law)
    prompts, groups = splits[range_of(splits, tried) != "extrapolated"].T.tolist()
    batches = (xr.DataArray(axis, dims="batch") for axis in (prompts, groups))
    log_steps = Surface(law, stacked(posterior)).log_steps(*batches)
    rows = []
    for t in settings.thresholds:
        at = log_steps.sel(threshold=t, method="nearest").transpose("sample", "batch").values
        verdict = judge(at, np.full(len(groups), True), 0.9)
        true = true_steps(truth_of(ds), prompts, groups, t)
        lost = true / np.nanmin(true) - 1.0
        usual = lost[groups.index(8)]
        rows += [[t, g, *(round(float(v), 5) for v in (
            verdict.p_best[k], verdict.regret[k], verdict.regret_lower[k], verdict.regret_upper[k],
            verdict.p_close[k], lost[k], usual)), bool(verdict.chosen[k])]
            for k, g in enumerate(groups)]
    return {"rows": rows, "sampling": {"r_hat_max": worst_numbers(tree)["r_hat_max"]}}


COLUMNS = ["threshold", "n_rollouts", "p_best", "regret", "regret_lower", "regret_upper",
           "p_close", "true_regret", "usual_regret", "chosen"]


def frame(ledger: Ledger, seeds: range) -> pd.DataFrame:
    """Return the rows of all finished sweeps."""
    parts = [pd.DataFrame(ledger.records[seed]["rows"], columns=COLUMNS).assign(sweep=seed)
             for seed in seeds if "rows" in ledger.records.get(seed, {})]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(best=table["true_regret"] <= 0, close=table["true_regret"] <= 0.05)


def binned(table: pd.DataFrame, said: str, came: str) -> pd.DataFrame:
    """Return stated probability beside frequency by bin; the error counts sweeps, not rows."""
    which = pd.cut(table[said], BINS, include_lowest=True)
    rows = []
    for span, part in table.groupby(which, observed=True):
        by = part.groupby("sweep")[came].agg(["sum", "size"])
        share = by["sum"].sum() / by["size"].sum()
        spread = np.sqrt(((by["sum"] - share * by["size"]) ** 2).sum()) / by["size"].sum()
        rows.append({"stated": str(span), "splits": len(part), "sweeps": len(by),
                     "mean stated": part[said].mean(), "came true": share, "+-": spread})
    return pd.DataFrame(rows).set_index("stated")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return Brier score, skill, and regret by threshold."""
    rows = {}
    for t, part in table.groupby("threshold"):
        chosen = part[part["chosen"]]
        n = part.groupby("sweep").size().iloc[0]
        brier = float(((part["p_best"] - part["best"]) ** 2).groupby(part["sweep"]).sum().mean())
        inside = ((chosen["true_regret"] >= chosen["regret_lower"])
                  & (chosen["true_regret"] <= chosen["regret_upper"]))
        rows[t] = {"sweeps": len(chosen), "Brier": brier, "Brier of 1/n": 1.0 - 1.0 / n,
                   "chosen is best": chosen["best"].mean(),
                   "mean P(best) of chosen": chosen["p_best"].mean(),
                   "chosen within 5 %": chosen["close"].mean(),
                   "mean P(close) of chosen": chosen["p_close"].mean(),
                   "regret of chosen": chosen["true_regret"].mean(),
                   "expected regret of chosen": chosen["regret"].mean(),
                   "regret of 8 rollouts": chosen["usual_regret"].mean(),
                   "90 % interval of regret, chosen": inside.mean()}
    return pd.DataFrame(rows)


def main() -> None:
    """Run what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="prior,p1+p2b,p2c,ceiling", help="comma-separated")
    parser.add_argument("--sweeps", type=int, default=150)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/allocation"))
    parser.add_argument("--ceiling-by-group", action="store_true",
                        help="fit trajectories with a ceiling for every group size")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings = Settings(law=LAW, thresholds=THRESHOLDS, draws=options.draws, tune=options.draws,
                        least_squares=False, ceiling_by_group=options.ceiling_by_group,
                        model="trajectory" if options.ceiling_by_group else "crossing")
    seeds = range(options.first, options.first + options.sweeps)
    for family in options.families.split(","):
        name = family + ("_ceilings" if options.ceiling_by_group else "")
        ledger = Ledger(options.output / f"{name}.jsonl",
                        {"family": family, "total": TOTAL, "cbsbayes": cbsbayes.__version__,
                         **settings.as_dict()})
        with executor(options.workers) as pool:
            run_sweeps(partial(one_sweep, family, settings), seeds, ledger, pool)
        say(family, frame(ledger, seeds), [s for s in seeds if "error" in ledger.records[s]])


def say(family: str, table: pd.DataFrame, failed: list[int]) -> None:
    """Print the tables of one family."""
    truth = table[table["best"]].groupby("n_rollouts")["sweep"].nunique()
    print(f"\n## {family}: {table['sweep'].nunique()} sweeps, {len(failed)} failed; splits of "
          f"{TOTAL:,d} samples, law {LAW}")
    print(f"\nsweeps in which a group size is truly best at one threshold at least: "
          f"{truth.to_dict()}\n")
    print("P(best) stated and come true, all splits and thresholds\n")
    print(binned(table, "p_best", "best").round(3).to_string())
    print("\nP(within 5 %) stated and come true\n")
    print(binned(table, "p_close", "close").round(3).to_string())
    print("\nby threshold\n")
    print(summary(table).round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
