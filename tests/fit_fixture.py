"""A stand-in for a fit, with made-up posterior draws, for tests of plots and tables only.

It has the attributes of :class:`cbsbayes.posterior.fit.Fit` and no sampler behind it: curves come
from a two-axis law with known scales, posteriors are spread around the same values.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import xarray as xr
from fitted import verdict_of

from cbsbayes.baselines.table import COMPARISON_COLUMNS
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.selection import runs_table
from cbsbayes.sweep.dataset import new_sweep

THRESHOLDS = np.array([0.5, 0.7, 0.8, 0.9])
SCALES = {"B_prompt": 90.0, "B_rollout": 420.0}
ALPHA = 0.6
CHAINS, DRAWS = 4, 150


def curve(progress):
    return 0.1 + 0.88 * (1 - np.exp(-progress / 18.0))


def least_updates(threshold):
    return -18.0 * np.log(1 - (np.asarray(threshold) - 0.1) / 0.88)


class FakeFit(Fit):
    """A fit whose tables, draws and runs may be replaced by assignment."""

    def __setattr__(self, name, value):
        self.__dict__[name] = value


def _as_fit(law, group="tiny · tiny_add", **groups):
    attrs = {"law": law, "group": group,
             "settings": json.dumps({"ci_prob": 0.9, "seed": 1, "random_seed": 1, "metric": ""}),
             "verdict": json.dumps(verdict_of())}
    tree = xr.DataTree.from_dict({name: part for name, part in groups.items()})
    tree.attrs |= attrs
    return FakeFit(tree)


def _cells():
    cells = [("p1", p, 8, s) for p in (4, 8, 16, 32, 64, 128, 256) for s in (0, 1)]
    cells += [("p2b", 16, g, s) for g in (1, 2, 4, 16, 32, 64) for s in (0, 1)]
    cells += [("p2c", p, 256 // p, 0) for p in (4, 8, 16, 64, 128, 256)]
    return cells


def _sweep(rng):
    phase, n_prompts, n_rollouts, seed = (np.array(v) for v in zip(*_cells(), strict=True))
    step, train_step = np.arange(4.0, 301.0, 4.0), np.arange(10.0, 301.0, 10.0)
    divisor = np.where(n_rollouts > 1, n_rollouts - 1, 0.4)
    noise = (SCALES["B_prompt"] + SCALES["B_rollout"] / divisor) / n_prompts
    slow = (1 + noise) ** ALPHA * np.exp(rng.normal(0, 0.08, len(phase)))
    accuracy = curve(step / slow[:, None])
    every = np.where(n_prompts >= 256, 24, 4)
    accuracy[(step[None, :] % every[:, None]) != 0] = np.nan
    run = [f"cbs_{ph}_np{p}_nr{g}_s{s}" for ph, p, g, s in _cells()]
    measured = np.full((len(run), train_step.size), np.nan)
    measured[:14] = np.geomspace(300, 900, train_step.size) * np.exp(
        rng.normal(0, 0.4, (14, train_step.size)))
    runs = {"run": run, "name": run, "phase": phase, "seed": seed, "n_prompts": n_prompts,
            "n_rollouts": n_rollouts, "model": "tiny", "first_step": 1.0, "last_step": 300.0,
            "step_time": 2.0 + 0.004 * n_prompts * n_rollouts}
    return new_sweep(runs, accuracy=accuracy[:, None, :], step=step, metric=["tiny_add"],
                     n_items=[1024], train_step=train_step, title="made up",
                     noise={"grad_noise/B_noise_estimate": measured,
                            "grad_noise/grad_norm": np.sqrt(measured) / 40})


def _draws(rng, medians, sds, scale=1.0):
    dims, shape = ("chain", "draw", "threshold"), (CHAINS, DRAWS, len(THRESHOLDS))
    out = {name: (dims, np.broadcast_to(value, len(THRESHOLDS))
                  * np.exp(scale * sds[name] * rng.normal(size=(*shape[:2], 1))
                           + 0.02 * rng.normal(size=shape)))
           for name, value in medians.items()}
    out["alpha"] = (dims[:2], np.clip(rng.normal(ALPHA, 0.04 * scale, shape[:2]), 0.25, 1.5))
    out["sigma_run"] = (dims[:2], 0.08 * np.exp(rng.normal(0, 0.2 * scale, shape[:2])))
    return xr.Dataset({name: (d, v) for name, (d, v) in out.items()},
                      coords={"chain": np.arange(CHAINS), "draw": np.arange(DRAWS),
                              "threshold": THRESHOLDS})


def _predictive(fit_like, crossings, rng):
    log_steps = fit_like.log_steps(crossings["n_prompts"].values, crossings["n_rollouts"].values)
    log_steps = log_steps.rename(batch="run").assign_coords(run=crossings["run"].values)
    shape = (log_steps.sizes["sample"], 1, log_steps.sizes["run"])
    noisy = np.exp(log_steps.transpose("sample", "threshold", "run") + rng.normal(0, 0.09, shape))
    return xr.Dataset({"steps": noisy.transpose("sample", "run", "threshold")})


def cbs_table(fit, at_rollouts=8, at_prompts=16):
    """Make a CBS table from the draws, with one bound and one quantity not identified."""
    rows = []
    for i, t in enumerate(THRESHOLDS):
        post = fit.posterior.sel(threshold=t).stack(sample=("chain", "draw"))
        root = 2 ** (1 / post["alpha"]) - 1
        values = {
            ("S_min", ""): post["S_min"],
            ("B_prompt", ""): post["B_prompt"], ("B_rollout", ""): post["B_rollout"],
            ("cbs_prompts", f"n_rollouts={at_rollouts}"):
                (post["B_prompt"] + post["B_rollout"] / (at_rollouts - 1)) / root,
            ("cbs_samples", f"n_rollouts={at_rollouts}"):
                at_rollouts * (post["B_prompt"] + post["B_rollout"] / (at_rollouts - 1)) / root,
            ("cbs_rollouts", f"n_prompts={at_prompts}"):
                1 + post["B_rollout"] / ((at_prompts + post["B_prompt"]) * root),
            ("best_n_rollouts", ""): 1 + np.sqrt(post["B_rollout"] / post["B_prompt"]),
        }
        for (quantity, at), draws in values.items():
            low, mid, high = np.quantile(draws, [0.05, 0.5, 0.95])
            status = "identified"
            if quantity == "cbs_rollouts":
                status = ["upper_bound", "lower_bound", "not_identified", "identified"][i]
            rows.append({"group": fit.group, "law": fit.law.name, "threshold": t,
                         "quantity": quantity, "at": at, "unit": "1", "median": mid,
                         "mean": float(draws.mean()), "sd": float(draws.std()),
                         "ci_lower": low, "ci_upper": high, "ci_prob": 0.9, "ci_kind": "eti",
                         "status": status, "r_hat": 1.0 + 0.002 * i, "ess_bulk": 900.0 + 50 * i,
                         "ess_tail": 800.0})
    return pd.DataFrame(rows)


def _comparison(fit):
    rows = []
    for t in THRESHOLDS:
        for axis, at, size in (("total", "", 900.0), ("prompts", "n_rollouts=8", 60.0),
                               ("rollouts", "n_prompts=16", 9.0)):
            for method, factor in (("least_squares", 0.6), ("log_least_squares", 0.9),
                                   ("posterior", 1.2)):
                value = size * factor
                low = 0.0 if method == "least_squares" and t == 0.9 else value / 1.5
                rows.append({"group": fit.group, "threshold": t, "axis": axis, "at": at,
                             "method": method, "S_min": 20.0, "B_noise": value, "ci_lower": low,
                             "ci_upper": value * 1.5, "n_runs_used": 12, "n_runs_dropped": 2,
                             "r2": 0.9})
    return pd.DataFrame(rows)


def _laws():
    names = ["two_axis_free", "two_axis_sqrt", "two_axis", "total"]
    return pd.DataFrame({"law": names, "elpd": [-210.0, -212.5, -216.0, -251.0],
                         "elpd_diff": [0.0, 2.5, 6.0, 41.0], "dse": [0.0, 2.1, 4.0, 8.5],
                         "k_hat_max": [0.3, 0.4, 0.8, 0.5],
                         "sigma_run": [0.08, 0.085, 0.09, 0.21]})


def make_fit(seed: int = 3) -> FakeFit:
    """Return a two-axis fit with censored runs, G = 1 runs left out, noise and step times."""
    rng = np.random.default_rng(seed)
    sweep = _sweep(rng)
    fitted = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values > 1))
    crossings = find_crossings(fitted, THRESHOLDS)
    medians = {"S_min": least_updates(THRESHOLDS), **SCALES}
    sds = {"S_min": 0.05, "B_prompt": 0.15, "B_rollout": 0.2}
    posterior = _draws(rng, medians, sds)
    n_runs = crossings.sizes["run"]
    effects = 0.06 * rng.normal(size=n_runs) + 0.02 * rng.normal(size=(CHAINS, DRAWS, n_runs))
    posterior["run_effect"] = (("chain", "draw", "run"), effects)
    posterior = posterior.assign_coords(run=crossings["run"].values)
    posterior["sigma_residual"] = posterior["sigma_run"] / 3
    prior = _draws(rng, medians, dict.fromkeys(medians, 2.0))
    energy = 30 + 4 * rng.normal(size=(CHAINS, DRAWS))
    stats = xr.Dataset({"energy": (("chain", "draw"), energy),
                        "diverging": (("chain", "draw"), np.zeros((CHAINS, DRAWS), bool))})
    fit = _as_fit("two_axis_free", posterior=posterior, prior=prior, sample_stats=stats,
                  observed_data=crossings, sweep=sweep)
    reasons = {run: "" if run in crossings["run"] else "one rollout per prompt"
               for run in sweep["run"].values}
    fit.runs = runs_table(sweep, reasons, find_crossings(sweep, THRESHOLDS))
    fit.law_table = _laws()
    fit.predictive = _predictive(fit, crossings, rng)
    fit.prior_predictive = fit.predictive
    fit.cbs, fit.comparison = cbs_table(fit), _comparison(fit)
    other = fit.cbs.assign(law="two_axis", status="identified")
    numbers = ["median", "ci_lower", "ci_upper"]
    other[numbers] = other[numbers] * 0.4
    fit.others = {"two_axis": other}
    return fit


def make_one_axis_fit(seed: int = 4) -> FakeFit:
    """Return a total-batch fit of a loss, given as crossings: no curves, no times, no laws."""
    rng = np.random.default_rng(seed)
    batch = np.repeat(2.0 ** np.arange(6, 14), 2)
    thresholds = np.array([3.0, 3.2])
    s_min, b_noise = np.array([4000.0, 2500.0]), 900.0
    steps = s_min * (1 + b_noise / batch[:, None]) * np.exp(rng.normal(0, 0.05, (16, 1)))
    run = [f"b{int(b)}_s{i % 2}" for i, b in enumerate(batch)]
    sweep = new_sweep({"run": run, "name": run, "seed": np.arange(16) % 2, "total_batch": batch,
                       "step_time": np.nan}, steps_lower=steps * 0.97, steps_upper=steps,
                      threshold=thresholds, direction="decreasing")
    crossings = find_crossings(sweep, thresholds)
    shape = (CHAINS, DRAWS, 2)
    posterior = xr.Dataset(
        {"S_min": (("chain", "draw", "threshold"), s_min * np.exp(rng.normal(0, 0.03, shape))),
         "B_noise": (("chain", "draw", "threshold"), b_noise * np.exp(rng.normal(0, 0.1, shape))),
         "sigma_run": (("chain", "draw"), np.full(shape[:2], 0.05))},
        coords={"chain": np.arange(CHAINS), "draw": np.arange(DRAWS), "threshold": thresholds})
    fit = _as_fit("total", "all runs", posterior=posterior, observed_data=crossings, sweep=sweep)
    fit.comparison, fit.runs = pd.DataFrame(columns=COMPARISON_COLUMNS), pd.DataFrame()
    fit.law_table = pd.DataFrame()
    fit.others = {}
    low, mid, high = np.quantile(posterior["B_noise"], [0.05, 0.5, 0.95])
    fit.cbs = pd.DataFrame([{"threshold": t, "quantity": "B_noise", "at": "", "median": mid,
                             "ci_lower": low, "ci_upper": high, "status": "identified",
                             "r_hat": 1.0, "ess_bulk": 500.0} for t in thresholds])
    flat = np.exp(fit.log_steps(batch, 1)).rename(batch="run").assign_coords(run=run)
    fit.predictive = xr.Dataset({"steps": flat.transpose("sample", "run", "threshold")})
    return fit


__all__ = ["FakeFit", "make_fit", "make_one_axis_fit"]
