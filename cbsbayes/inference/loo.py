"""Law comparison by leaving out one run at a time, its run effect integrated out.

Pointwise comparison cannot tell a wrong law here: the run effect absorbs the misfit. Predicting a
whole run without its effect can (docs/model.md, section 2). Pareto-smoothed importance sampling
does the leaving out; its k-hat says where that is not reliable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["GOOD_K", "compare_laws", "law_weights", "leave_one_run_out", "run_log_likelihoods"]

_BOOTSTRAPS = 2000
GOOD_K = 0.7  # Vehtari et al. 2024: above, the importance weights are not reliable


def leave_one_run_out(tree: xr.DataTree) -> Any:
    """Return ArviZ's ELPDData for runs left out one at a time.

    Parameters
    ----------
    tree : xarray.DataTree
        Groups ``posterior`` and ``log_likelihood`` with variable ``run_log_likelihood``, dims
        (chain, draw, run), the run effect integrated out.
    """
    import warnings

    import arviz_stats

    with warnings.catch_warnings():  # k-hat is reported in the table, run by run
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto", UserWarning)
        # of a single run, which only measured noise lets fit
        warnings.filterwarnings("ignore", "The point-wise LOO is the same with", UserWarning)
        return arviz_stats.loo(tree, var_name="run_log_likelihood", pointwise=True)


def run_log_likelihoods(log_p: np.ndarray, posterior: xr.Dataset, run: np.ndarray) -> xr.Dataset:
    """Return log p of every run, given as shape (draw, run), with the posterior's dims."""
    shape = (posterior.sizes["chain"], posterior.sizes["draw"], len(run))
    return xr.Dataset(
        {"run_log_likelihood": (("chain", "draw", "run"), log_p.reshape(shape))},
        coords={"run": run, "chain": posterior["chain"], "draw": posterior["draw"]})


def law_weights(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the laws' weights, which add up to 1.

    Parameters
    ----------
    results : mapping
        Law name to the result of `leave_one_run_out`, all on the same runs.

    Returns
    -------
    dict
        0 for a law of which nothing is known because its weights overflowed.
    """
    elpd = {law: np.asarray(result.elpd_i).reshape(-1) for law, result in results.items()}
    known = [law for law, values in elpd.items() if np.isfinite(values).all()]
    weights = dict.fromkeys(results, 0.0)
    if known:
        runs = np.stack([elpd[law] for law in known])
        share = np.random.default_rng(0).dirichlet(np.ones(runs.shape[1]), _BOOTSTRAPS)
        total = share @ runs.T * runs.shape[1]
        odds = np.exp(total - total.max(axis=1, keepdims=True))
        weights |= dict(zip(known, (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0).tolist(),
                            strict=True))
    return weights


def compare_laws(
    results: Mapping[str, Any], posteriors: Mapping[str, xr.Dataset]
) -> pd.DataFrame:
    """Return the laws ranked by how well they predict runs left out.

    Parameters
    ----------
    results : mapping
        Law name to the result of `leave_one_run_out`, all on the same runs.
    posteriors : mapping
        Law name to posterior draws, for the run effect's size: a wrong law hides there.

    Returns
    -------
    pandas.DataFrame
        Columns ``law, elpd, elpd_se, elpd_diff, dse, weight, k_hat_max, n_bad_k, sigma_run,
        sigma_residual``; best first. `elpd_diff` is 0 for the best and negative for the others,
        `dse` the standard error of the difference over runs, `weight` the law's share where laws
        are averaged (`cbsbayes.posterior.law_fit`); `sigma_residual` is NaN under the
        trajectory model, which has no residual of crossings. A law whose weights overflow, so
        that nothing is known of how it predicts, has NaN and comes last.
    """
    weights = law_weights(results)
    pointwise = {law: np.asarray(r.elpd_i).reshape(-1) for law, r in results.items()}
    known = {law: elpd.sum() for law, elpd in pointwise.items() if np.isfinite(elpd).all()}
    best = max(known, key=lambda law: known[law], default=next(iter(pointwise)))
    rows = []
    for law, elpd in pointwise.items():
        k_hat = np.asarray(results[law].pareto_k).reshape(-1)
        difference = elpd - pointwise[best]
        rows.append({
            "law": law, "elpd": elpd.sum(), "elpd_se": _sum_se(elpd),
            "elpd_diff": difference.sum(), "dse": _sum_se(difference), "weight": weights[law],
            "k_hat_max": k_hat.max(), "n_bad_k": int((k_hat > GOOD_K).sum()),
            "sigma_run": float(posteriors[law]["sigma_run"].median()),
            "sigma_residual": _median(posteriors[law], "sigma_residual"),
        })
    return pd.DataFrame(rows).sort_values("elpd", ascending=False, ignore_index=True)


def _median(posterior: xr.Dataset, name: str) -> float:
    """Return the median of a variable; NaN under a model that has none of that name."""
    return float(posterior[name].median()) if name in posterior else float("nan")


def _sum_se(values: np.ndarray) -> float:
    return float(np.sqrt(len(values)) * values.std(ddof=1)) if len(values) > 1 else float("nan")
