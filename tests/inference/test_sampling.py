"""Sampling: what is refused, what comes back, and that both samplers agree."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import numpy as np
import pytest
from crossing_tables import crossings_table

from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SAMPLERS, SamplerSettings, sample_crossings, sample_prior
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import LAWS

QUICK = SamplerSettings(draws=100, tune=200, chains=2, cores=1)


def data_of(law, n_thresholds=2, n_runs=12):
    return crossing_data(crossings_table(law, n_thresholds, n_runs), law)


@pytest.mark.parametrize(("setting", "message"), [
    ({"sampler": "stan"}, "unknown sampler 'stan'; valid: nutpie, pymc"),
    ({"draws": 49}, "draws is 49; valid: at least 50"),
    ({"tune": 0}, "tune is 0; valid: at least 100"),
    ({"chains": 1}, "chains is 1; valid: at least 2"),
])
def test_settings_that_cannot_be_sampled_with_are_refused(setting, message):
    with pytest.raises(CBSDataError, match=message):
        SamplerSettings(**setting)


@pytest.mark.parametrize(("name", "n_thresholds"), [("two_axis_free", 4), ("total", 1)])
def test_draws_have_names_dims_and_coordinates_and_no_chain_repeats_another(name, n_thresholds):
    law = LAWS[name]
    data = data_of(law, n_thresholds)
    tree = sample_crossings(data, law, QUICK)
    posterior = tree["posterior"].to_dataset()
    assert posterior.sizes["chain"] == 2
    assert posterior.sizes["draw"] == 100
    assert posterior["S_min"].dims == ("chain", "draw", "threshold")
    assert posterior["run_effect"].dims == ("chain", "draw", "run")
    assert posterior["run"].values.tolist() == data.run.tolist()
    assert posterior["threshold"].values.tolist() == data.threshold.tolist()
    assert {"diverging", "n_steps", "energy"} <= set(tree["sample_stats"].data_vars)
    assert all(np.isfinite(v).all() for v in posterior.data_vars.values())
    assert not np.array_equal(*posterior["S_min"].values)
    prior = sample_prior(data, law, draws=50)
    assert {n: v.dims for n, v in prior.data_vars.items()} == {
        n: v.dims for n, v in posterior.data_vars.items()}


def test_a_seed_gives_the_same_draws_and_another_seed_others():
    law = LAWS["two_axis"]
    data = data_of(law)
    first, again, other = (
        sample_crossings(data, law, SamplerSettings(draws=50, tune=100, chains=2, random_seed=s))
        ["posterior"]["S_min"].values for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_draws_do_not_depend_on_how_many_chains_are_drawn_at_once(monkeypatch):
    """Those of a cheap density are drawn one after the other; here both at once all the same."""
    monkeypatch.setattr("cbsbayes.inference.nuts.SHORT", 0.0)
    law = LAWS["two_axis"]
    one, both = (sample_crossings(data_of(law), law, replace(QUICK, cores=cores))
                 ["posterior"]["S_min"].values for cores in (1, 2))
    np.testing.assert_array_equal(one, both)


@pytest.mark.mcmc
def test_all_samplers_agree_within_monte_carlo_error():
    law = LAWS["two_axis_free"]
    data = data_of(law, 2, 14)
    trees = {sampler: sample_crossings(data, law, SamplerSettings(
        sampler, draws=400, tune=400, chains=2, cores=1, random_seed=5)) for sampler in SAMPLERS}
    first, *others = (trees[s]["posterior"].to_dataset() for s in SAMPLERS)
    for other in others:
        assert {n: v.dims for n, v in first.data_vars.items()} == {
            n: v.dims for n, v in other.data_vars.items()}
        for probability in (0.1, 0.5, 0.9):
            apart_at_most(first, other, probability)


def apart_at_most(first, second, probability, errors=4.5):
    """Quantiles of every variable are no more than some Monte Carlo errors apart."""
    error = [az.mcse(draws, method="quantile", prob=probability) for draws in (first, second)]
    for variable in first.data_vars:
        apart = np.subtract(*(d[variable].quantile(probability, ("chain", "draw")).values
                              for d in (first, second)))
        allowed = errors * np.hypot(*(np.asarray(e[variable]) for e in error))
        np.testing.assert_array_less(np.abs(apart), allowed,
                                     err_msg=f"{variable} at {probability}")
