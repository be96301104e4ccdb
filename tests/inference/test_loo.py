"""Leaving out one run at a time: an exactly solvable case, the ranking, and a wrong law."""

from __future__ import annotations

from types import SimpleNamespace

import arviz_stats
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.thresholds import choose_thresholds
from cbsbayes.inference.loo import GOOD_K, compare_laws, law_weights, leave_one_run_out
from cbsbayes.inference.sampling import SamplerSettings, crossing_log_likelihoods, sample_crossings
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit import stacked
from cbsbayes.simulation.sweep import simulate_sweep


def normal_tree(y, n_draws=4000, seed=0):
    """Return exact posterior draws of the mean of normal data with sd 1, prior sd 10."""
    precision = len(y) + 0.01
    rng = np.random.default_rng(seed)
    mu = rng.normal(y.sum() / precision, precision**-0.5, size=(4, n_draws // 4))
    log_p = norm.logpdf(y, mu[..., None], 1.0)
    return xr.DataTree.from_dict({
        "posterior": xr.Dataset({"mu": (("chain", "draw"), mu)}),
        "log_likelihood": xr.Dataset({"run_log_likelihood": (("chain", "draw", "run"), log_p)},
                                     coords={"run": [f"r{k}" for k in range(len(y))]})})


def test_exact_for_normal_data():
    y = np.random.default_rng(1).normal(2.0, 1.0, size=25)
    precision = len(y) - 1 + 0.01
    exact = norm.logpdf(y, (y.sum() - y) / precision, np.sqrt(1 + 1 / precision))
    found = leave_one_run_out(normal_tree(y))
    np.testing.assert_allclose(np.asarray(found.elpd_i), exact, atol=0.02)
    assert found.elpd == pytest.approx(exact.sum(), abs=0.1)
    assert np.asarray(found.pareto_k).shape == (25,)
    assert np.asarray(found.pareto_k).max() < GOOD_K


def test_same_as_arviz_and_silent_about_bad_weights():
    y = np.append(np.random.default_rng(2).normal(size=8), 60.0)  # one run carries all the weight
    tree = normal_tree(y)
    found = leave_one_run_out(tree)
    with pytest.warns(UserWarning, match="Pareto"):
        expected = arviz_stats.loo(tree, var_name="run_log_likelihood", pointwise=True)
    np.testing.assert_array_equal(found.elpd_i, expected.elpd_i)
    assert float(np.asarray(found.pareto_k)[-1]) > GOOD_K


def result(elpd, k=0.1):
    elpd = np.asarray(elpd, dtype=float)
    return SimpleNamespace(elpd_i=elpd, pareto_k=np.broadcast_to(k, elpd.shape))


def draws(sigma_run=0.1, sigma_residual=0.2):
    return xr.Dataset({"sigma_run": ("draw", [sigma_run] * 3),
                       "sigma_residual": ("draw", [sigma_residual] * 3)})


def test_laws_are_ranked_by_what_they_predict():
    table = compare_laws(
        {"total": result([-3, -4, -2], [0.1, 0.8, 0.71]), "two_axis": result([-1, -1, -1])},
        {"total": draws(0.23, 0.3), "two_axis": draws(0.08, 0.1)})
    assert list(table.columns) == ["law", "elpd", "elpd_se", "elpd_diff", "dse", "weight",
                                   "k_hat_max", "n_bad_k", "sigma_run", "sigma_residual"]
    best, other = table.to_dict("records")
    assert (best["law"], best["elpd"], best["elpd_diff"], best["dse"]) == ("two_axis", -3, 0, 0)
    assert (other["law"], other["elpd"], other["elpd_diff"]) == ("total", -9, -6)
    assert other["dse"] == pytest.approx(np.sqrt(3) * np.std([-2, -3, -1], ddof=1))
    assert other["elpd_se"] == pytest.approx(np.sqrt(3) * np.std([-3, -4, -2], ddof=1))
    assert (other["n_bad_k"], other["k_hat_max"]) == (2, 0.8)
    assert (other["sigma_run"], best["sigma_residual"]) == pytest.approx((0.23, 0.1))


@pytest.mark.parametrize("order", [("total", "power"), ("power", "total")])
def test_a_law_of_unknown_score_comes_last_and_spoils_no_other(order):
    scores = {"total": result([np.nan, -1]), "power": result([-2, -2])}
    table = compare_laws({law: scores[law] for law in order},
                         {law: draws() for law in order}).set_index("law")
    assert list(table.index) == ["power", "total"]
    assert table.loc["power", ["elpd", "elpd_diff"]].tolist() == [-4, 0]
    assert table.loc["total", ["elpd", "elpd_diff", "dse"]].isna().all()
    assert table["weight"].to_dict() == {"power": 1.0, "total": 0.0}
    assert law_weights({"total": scores["total"]}) == {"total": 0.0}


def test_one_run_has_no_standard_error():
    table = compare_laws({"total": result([-2.0])}, {"total": draws()})
    assert table["elpd"].item() == -2
    assert table[["elpd_se", "dse"]].isna().all(axis=None)


@pytest.mark.mcmc
def test_pooling_prompts_and_rollouts_loses_where_they_differ():
    """The run effect hides a wrong law point by point, but not over runs left out."""
    ds = simulate_sweep("all", 2, eval_every=10, random_seed=2, curve={
        "noise": {"B_prompt": (200.0, 2.0), "B_rollout": (300.0, 2.0)}})
    ds = ds.isel(run=np.flatnonzero(ds["n_rollouts"].values > 1))
    crossings = find_crossings(ds, choose_thresholds(ds, max_thresholds=3))
    results, posteriors = {}, {}
    for name in ("two_axis", "total"):
        law = get_law(name)
        data = crossing_data(crossings, law)
        tree = sample_crossings(data, law, SamplerSettings(draws=500, tune=500, cores=1))
        posterior = tree["posterior"].to_dataset()
        log_p = crossing_log_likelihoods(CrossingParameters(data, law), stacked(posterior))
        tree["log_likelihood"] = xr.DataTree(xr.Dataset({"run_log_likelihood": (
            ("chain", "draw", "run"), log_p.reshape(4, 500, -1))}))
        results[name], posteriors[name] = leave_one_run_out(tree), posterior
    table = compare_laws(results, posteriors).set_index("law")
    assert table.index[0] == "two_axis"
    assert table.loc["total", "elpd_diff"] < -3 * table.loc["total", "dse"]
    assert table.loc["total", "sigma_run"] > 1.5 * table.loc["two_axis", "sigma_run"]
