"""Are comparisons of fits calibrated? ``python benchmarks/compare_calibration.py --sweeps 24``.

Simulated sweeps whose noise scales and speed are drawn anew for each are fitted, and every pair of
fits is compared as `cbsbayes.compare` does. Printed: how often the 90 % interval of a ratio holds
the true ratio, and among pairs in which the first was given a probability of about p to be the
larger, how often it was. Pairs share fits, so they count for fewer than they are.
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np
import pandas as pd

from cbsbayes.decisions.compare_fits import compare_fits
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import mean_noise, true_steps, truth_of

THRESHOLD, ROLLOUTS, PROMPTS = 0.66, 8, 128
SAMPLER = SamplerSettings(draws=500, tune=500, chains=2)
BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
NAMES = {"cbs_prompts": f"n_rollouts={ROLLOUTS}", "B_rollout": "",
         "gain_prompts": f"n_prompts={PROMPTS},n_rollouts={ROLLOUTS}",
         "steps": f"n_prompts={PROMPTS},n_rollouts={ROLLOUTS}"}


def fitted(seed: int, law: str) -> tuple[Fit, dict[str, float]]:
    """Return the fit of a sweep of its own noise scales, and the truth of what is compared."""
    rng = np.random.default_rng([seed, 1])
    noise = {"B_prompt": (90.0 * np.exp(rng.normal(0, 0.5)), 6.0),
             "B_rollout": (500.0 * np.exp(rng.normal(0, 0.5)), 9.0)}
    curve = {"noise": noise, "scale": 60.0 * np.exp(rng.normal(0, 0.3))}
    sweep = simulate_sweep("p1+p2b", 2, curve=curve, random_seed=seed, eval_every=10)
    fit = fit_sweep(sweep, law=law, thresholds=[0.62, THRESHOLD], alternatives=False,
                    sampler=SAMPLER)
    truth = truth_of(sweep)
    scales = mean_noise(truth, THRESHOLD)
    steps, doubled = (float(np.squeeze(true_steps(truth, p, ROLLOUTS, THRESHOLD)))
                      for p in (PROMPTS, 2 * PROMPTS))
    return fit, {
        "cbs_prompts": scales["B_prompt"] + scales["B_rollout"] / (ROLLOUTS - 1),
        "B_rollout": scales["B_rollout"], "gain_prompts": doubled / steps, "steps": steps}


def compared(first: tuple[Fit, dict], second: tuple[Fit, dict]) -> list[dict[str, object]]:
    """Return a row per quantity that both fits identify."""
    table = compare_fits({"first": first[0], "second": second[0]}, names=list(NAMES))
    table = table[np.isclose(table["threshold"], THRESHOLD) & (table["status"] == "identified")]
    rows = []
    for name, at in NAMES.items():
        for _, row in table[(table["quantity"] == name) & (table["at"] == at)].iterrows():
            true = first[1][name] / second[1][name]
            rows.append({"quantity": name, "p": row["p_first_larger"], "larger": true > 1,
                         "held": row["ratio_lower"] < true < row["ratio_upper"],
                         "width": np.log(row["ratio_upper"] / row["ratio_lower"])})
    return rows


def main() -> None:
    """Fit, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=24)
    parser.add_argument("--law", default="two_axis_free")
    options = parser.parse_args()
    sides = [fitted(seed, options.law) for seed in range(options.sweeps)]
    rows = pd.DataFrame([row for a, b in combinations(sides, 2) for row in compared(a, b)])
    print(f"{options.sweeps} simulated sweeps, law {options.law}, threshold {THRESHOLD:g}")
    for name, part in rows.groupby("quantity", sort=False):
        print(f"{name}: {len(part)} pairs, 90 % intervals of the ratio hold the truth in "
              f"{part['held'].mean():.2f}, median log width {part['width'].median():.2f}")
    # each pair told both ways, so that the bins are symmetric
    both = pd.concat([rows, rows.assign(p=1 - rows["p"], larger=~rows["larger"])])
    told = both.groupby(pd.cut(both["p"], BINS, include_lowest=True), observed=True).agg(
        pairs=("p", "size"), said=("p", "mean"), came_true=("larger", "mean"))
    print(told.round(2).to_string())


if __name__ == "__main__":
    main()
