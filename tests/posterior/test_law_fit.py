"""One law's fit: runs predicted anew; and laws averaged, in mixtures that hold the doubt."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from crossing_plain import run_log_likelihood
from crossing_tables import crossings_table
from fitted import NARROW

from cbsbayes.inference.loo import law_weights
from cbsbayes.inference.sampling import sample_prior
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.law_fit import NewRuns, averaged_table, new_runs, replicate_log_steps
from cbsbayes.posterior.quantities import Design, quantities
from cbsbayes.posterior.tidy import AVERAGE

SELECTED = SimpleNamespace(group="g", options=SimpleNamespace(
    ci_prob=0.9, sampler=SimpleNamespace(random_seed=0)))
TRIED = Design({8: (64, 128)}, {128: (4, 8)}, (512.0, 1024.0), one_axis=False,
                     batches=((64, 8), (128, 4), (128, 8)))


def result(elpd):
    return SimpleNamespace(elpd_i=np.asarray(elpd, dtype=float))


def draws(law, level, n=1000, chains=2, seed=0, wide=0.1):
    rng = np.random.default_rng(seed)
    names = [*law.scales, "S_min"]
    dims = ("chain", "draw", "threshold")
    return xr.Dataset({name: (dims, level * np.exp(wide * rng.standard_normal((chains, n, 1))))
                       for name in names}, coords={"threshold": [0.7]})


def of(name, level, before=None, **kwargs):
    """Return a law's quantities from draws around a level, and from wider prior ones."""
    law = get_law(name)
    prior = draws(law, before or level, seed=1, wide=3.0, **kwargs)
    return SimpleNamespace(quantities=quantities(law, draws(law, level, **kwargs), TRIED),
                           prior_quantities=quantities(law, prior, TRIED))


def test_laws_that_predict_alike_share_the_weight():
    rng = np.random.default_rng(0)
    one = rng.normal(-1, 1, 40)
    weights = law_weights({"a": result(one), "b": result(one), "c": result(one - 1)})
    assert weights["a"] == pytest.approx(0.5, abs=1e-9)
    assert weights["a"] == weights["b"]
    assert weights["c"] < 1e-6
    assert sum(weights.values()) == pytest.approx(1)


def test_a_lead_that_hangs_on_one_run_takes_less_weight_than_the_sum_says():
    gain = np.zeros(20)
    gain[3] = 3.0
    weight = law_weights({"a": result(gain), "b": result(np.zeros(20))})["a"]
    assert 0.5 < weight < 1 / (1 + np.exp(-3.0))


def test_a_mixture_holds_both_laws():
    laws = {name: of(name, level, before=300.0)
            for name, level in (("two_axis", 100.0), ("two_axis_sqrt", 800.0))}
    table = averaged_table(laws, {"two_axis": 0.5, "two_axis_sqrt": 0.5}, SELECTED)
    table = table.set_index(["quantity", "at"])
    assert set(table["law"]) == {AVERAGE}
    row = table.loc[("S_min", "")]
    assert row["ci_lower"] == pytest.approx(100 * np.exp(-0.128), rel=0.05)  # 10 % of each half
    assert row["ci_upper"] == pytest.approx(800 * np.exp(0.128), rel=0.05)
    assert "B_prompt" not in table.index.get_level_values(0)


def test_all_the_weight_on_one_law_gives_that_law():
    laws = {"two_axis": of("two_axis", 100.0), "two_axis_sqrt": of("two_axis_sqrt", 800.0)}
    both = averaged_table(laws, {"two_axis": 1.0, "two_axis_sqrt": 0.0}, SELECTED)
    steps = {q.at: float(np.median(q.draws)) for q in laws["two_axis"].quantities
             if q.name == "steps"}
    assert both[both["quantity"] == "steps"].set_index("at")["median"].to_dict() == steps
    assert averaged_table({"two_axis": laws["two_axis"]}, {"two_axis": 1.0}, SELECTED).empty


def case(law_name, n_thresholds=3, draws=40):
    """Return crossings of every kind of censoring, and draws of a prior."""
    law = get_law(law_name)
    data = crossing_data(crossings_table(law, n_thresholds), law)
    prior = sample_prior(data, law, draws=draws, random_seed=4, priors=NARROW)
    return law, data, prior


def test_at_one_threshold_replicates_fall_into_the_interval_as_often_as_it_is_probable():
    law, data, prior = case("two_axis_free", 1, draws=1)
    one = new_runs(stacked(prior), data, law)
    many = NewRuns(*(np.repeat(part, 200_000, axis=0)
                        for part in (one.log_steps, one.sigma_run, one.sd, one.length)))
    new = replicate_log_steps(many, data, np.random.default_rng(5))
    inside = ((new > data.log_lower) & (new <= data.log_upper))[:, :, 0].mean(axis=0)
    probable = np.exp(run_log_likelihood(one, data))[0]
    known = data.informative[:, 0]
    assert known.sum() >= 10
    se = np.sqrt(probable * (1 - probable) / 200_000)
    assert (np.abs(inside - probable)[known] < 4 * se[known] + 1e-5).all()
    assert (probable[~known] == pytest.approx(1.0, abs=1e-6))


def test_moments_of_replicates():
    _, data, _ = case("two_axis")
    n_draws, sigma_run, sd, length = 100_000, 0.3, np.array([0.1, 0.2, 0.4]), 0.7
    center = np.arange(36.0).reshape(1, 12, 3)
    draws = NewRuns(np.repeat(center, n_draws, axis=0), np.full(n_draws, sigma_run),
                       np.tile(sd, (n_draws, 1)), np.full(n_draws, length))
    new = replicate_log_steps(draws, data, np.random.default_rng(0)) - center
    np.testing.assert_allclose(new.mean(axis=0), 0.0, atol=5 * 0.5 / np.sqrt(n_draws))
    np.testing.assert_allclose(new.std(axis=0), np.tile(np.hypot(sigma_run, sd), (12, 1)),
                               rtol=0.02)
    rho = np.exp(-np.abs(data.threshold_logit[:, None] - data.threshold_logit) / length)
    expected = sigma_run**2 + rho * np.outer(sd, sd)
    np.testing.assert_allclose(np.cov(new[:, 2].T), expected, rtol=0.04)
    between = np.cov(new[:, 0, 0], new[:, 1, 0])[0, 1]
    assert abs(between) < 0.003  # runs are independent


def test_residual_scale_follows_its_trend_and_stands_alone_at_one_threshold():
    law, data, prior = case("total")
    draws = new_runs(stacked(prior), data, law)
    trend, sigma = prior["residual_trend"].values[0], prior["sigma_residual"].values[0]
    np.testing.assert_allclose(
        draws.sd, sigma[:, None] * np.exp(np.outer(trend, data.threshold_logit)))
    np.testing.assert_array_equal(draws.length, prior["residual_length"].values[0])
    law, data, prior = case("total", 1)
    one = new_runs(stacked(prior), data, law)
    np.testing.assert_array_equal(one.sd[:, 0], prior["sigma_residual"].values[0])
    np.testing.assert_array_equal(one.length, 0.0)
