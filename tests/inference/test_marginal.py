"""Run effects integrated out: against plain numpy, drawn back, and when NUTS takes over."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import numpy as np
import pytest
from crossing_plain import run_log_likelihood
from crossing_tables import all_left, crossings_table
from noise_tables import with_noise

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.marginal import marginal_log_likelihood, sample_marginal
from cbsbayes.inference.sampling import SAMPLERS, SamplerSettings, sample_crossings, sample_prior
from cbsbayes.models import crossing_kernel as kernel
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.crossing_flat import FlatCrossing
from cbsbayes.models.crossing_words import data_words
from cbsbayes.models.laws import LAWS
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.predictive import parameters
from cbsbayes.posterior.quantities import quantities, tried_batches
from cbsbayes.sweep.files import read_sweep
from cbsbayes.sweep.shipped import default_sweep_path
from cbsbayes.validation.coverage import THRESHOLDS, fitted_runs
from cbsbayes.validation.families import family_sweep, get_family

CASES = [("two_axis_free", 4), ("two_axis", 2), ("power", 4), ("total", 1), ("two_axis_sqrt", 1)]


def flat_of(name, n_thresholds, n_runs=12):
    law = LAWS[name]
    data = crossing_data(crossings_table(law, n_thresholds, n_runs), law)
    return FlatCrossing(data, law, marginal=True)


def near(flat, n, far=0.3):
    rng = np.random.default_rng(0)
    return flat.center + far * flat.sd * rng.standard_normal((n, flat.n_dim))


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_runs_are_as_probable_as_plain_numpy_says(name, n_thresholds):
    flat = flat_of(name, n_thresholds)
    draws = flat.unpack(near(flat, 40)[None])
    plain = run_log_likelihood(parameters(stacked(draws), flat.data, flat.law), flat.data)
    found = kernel.log_densities(near(flat, 40), data_words(flat))[1]
    probable = plain > -30  # an effect far out has a lopsided peak, which five nodes do not see
    assert probable.mean() > 0.4
    np.testing.assert_allclose(found[probable], plain[probable], atol=0.02)
    assert np.sqrt(((found - plain)[probable] ** 2).mean()) < 2e-3
    np.testing.assert_allclose(marginal_log_likelihood(flat, stacked(draws)), found, atol=1e-9)


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_density_is_that_of_priors_and_runs(name, n_thresholds):
    """With no run effect to speak of, marginal and full density are the same thing."""
    flat = flat_of(name, n_thresholds)
    full = replace(flat, marginal=False)
    rows = near(flat, 5)
    rows[:, flat.slices["sigma_run"]] = np.log(1e-6)
    effects = full.slices["run_effect_z"]
    at = np.zeros((5, full.n_dim))
    at[:, np.r_[:effects.start, effects.stop:full.n_dim]] = rows
    constant = 0.5 * (effects.stop - effects.start) * np.log(2 * np.pi)
    for marginal, whole in zip(rows, at, strict=True):
        assert kernel.log_density(marginal, data_words(flat))[0] == pytest.approx(
            kernel.log_density(whole, data_words(full))[0] + constant, rel=1e-6)


@pytest.mark.parametrize(("name", "n_thresholds"), [*CASES, ("two_axis_free+noise", 4)])
def test_gradient_is_the_slope_of_the_value_but_for_the_rule_s_error(name, n_thresholds):
    name, _, noise = name.partition("+")
    flat = flat_of(name, n_thresholds)
    if noise:
        flat = replace(flat, data=with_noise(flat.data, flat.law, parts=noise))
    words, step = data_words(flat), 1e-5
    for position in near(flat, 3, far=0.2):
        value, gradient = kernel.log_density(position, words)
        slopes = np.array([kernel.log_density(position + m, words)[0]
                           - kernel.log_density(position - m, words)[0]
                           for m in step * np.eye(flat.n_dim)]) / (2 * step)
        np.testing.assert_allclose(gradient, slopes, rtol=5e-3, atol=5e-3 * np.abs(slopes).max())
        together = kernel.gradients(np.stack([position, position]), words)
        np.testing.assert_array_equal(together[0], [value, value])
        np.testing.assert_array_equal(together[1], [gradient, gradient])


@pytest.mark.parametrize("table", [crossings_table(LAWS["two_axis"]), all_left(LAWS["two_axis"])])
def test_run_effects_are_drawn_from_what_the_data_leave(table):
    law = LAWS["two_axis"]
    flat = FlatCrossing(crossing_data(table, law), law, marginal=True)
    full, words = replace(flat, marginal=False), data_words(flat)
    position = near(flat, 1)[0]
    position[flat.slices["sigma_run"]] = np.log(0.3)
    n = 20_000
    drawn = kernel.run_effects(np.tile(position, (n, 1)), words, np.random.default_rng(1))
    effects = full.slices["run_effect_z"]
    z = np.linspace(-8, 8, 801)
    at = np.zeros(full.n_dim)
    at[np.r_[:effects.start, effects.stop:full.n_dim]] = position
    for run in range(drawn.shape[1]):
        rows = np.tile(at, (len(z), 1))
        rows[:, effects.start + run] = z
        log_p = kernel.gradients(rows, data_words(full))[0]
        weight = np.exp(log_p - log_p.max())
        weight /= weight.sum()
        mean = weight @ z
        sd = np.sqrt(weight @ (z - mean) ** 2)
        assert drawn[:, run].mean() / 0.3 == pytest.approx(mean, abs=4.5 * sd / np.sqrt(n))
        assert drawn[:, run].std() / 0.3 == pytest.approx(sd, rel=0.03)
        below = (drawn[:, run] / 0.3 < z[400 + 25]).mean()
        assert below == pytest.approx(weight[:425].sum(), abs=0.02)


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_packing_is_the_way_back_from_unpacking(name, n_thresholds):
    flat = flat_of(name, n_thresholds)
    position = near(flat, 6)
    draws = stacked(flat.unpack(position.reshape(2, 3, -1)))
    np.testing.assert_allclose(flat.pack(draws), position, atol=1e-9)


def test_too_few_draws_are_left_to_nuts_and_the_tree_says_so():
    """Two walkers of 50 draws do not agree on thirty parameters."""
    law = LAWS["two_axis_free"]
    data = crossing_data(crossings_table(law, 4, 30), law)
    settings = SamplerSettings(draws=50, tune=200, chains=2)
    alone = sample_marginal(FlatCrossing(data, law), chains=2, draws=50, cores=1, random_seed=0)
    assert alone[2].startswith("r_hat")
    tree = sample_crossings(data, law, settings)
    assert tree["sample_stats"].attrs["fell_back"] == alone[2]
    assert tree["posterior"].sizes["draw"] == 50
    assert "depth" in tree["sample_stats"]  # NUTS's trees


def test_enough_draws_are_kept():
    law = LAWS["two_axis"]
    data = crossing_data(crossings_table(law, 2, 20), law)
    tree = sample_crossings(data, law, SamplerSettings(draws=500, chains=2))
    assert "fell_back" not in tree["sample_stats"].attrs
    assert {"energy", "diverging", "n_steps"} <= set(tree["sample_stats"].data_vars)
    prior = sample_prior(data, law, draws=50)
    assert set(prior.data_vars) == set(tree["posterior"].data_vars)


@pytest.mark.mcmc
def test_every_quantity_of_the_shipped_sweep_is_that_of_nuts_within_monte_carlo_error():
    law = LAWS["two_axis_free"]
    sweep = read_sweep(default_sweep_path())
    crossings = find_crossings(sweep, (0.4, 0.6, 0.8, 0.9))
    data = crossing_data(crossings, law)
    trees = [sample_crossings(data, law, SamplerSettings(sampler)) for sampler in SAMPLERS[:2]]
    assert "fell_back" not in trees[0]["sample_stats"].attrs
    found = [quantities(law, tree["posterior"].to_dataset(), tried_batches(crossings))
             for tree in trees]
    apart = []
    for first, second in zip(*found, strict=True):
        for probability in (0.05, 0.5, 0.95):
            values = [np.log(q.draws) for q in (first, second)]
            errors = [np.asarray(az.mcse(v, method="quantile", prob=probability)) for v in values]
            quantile = [v.quantile(probability, ("chain", "draw")).values for v in values]
            apart.append(np.ravel(np.subtract(*quantile) / np.hypot(*errors)))
    apart = np.concatenate(apart)
    assert len(apart) > 500
    # neighbours share their draws: a few standard errors at worst, one on average
    assert np.abs(apart).max() < 5.0
    assert 0.5 < np.sqrt((apart**2).mean()) < 1.5


@pytest.mark.mcmc
@pytest.mark.parametrize("name", ["two_axis_free", "two_axis_free_plain"])
def test_no_walker_stays_where_it_began(name):
    """Some begin on a cliff in this sweep; one of forty would hardly show in r_hat."""
    law = LAWS[name]
    sweep = fitted_runs(family_sweep(get_family("total"), law, 1), law)
    flat = FlatCrossing(crossing_data(find_crossings(sweep, THRESHOLDS), law), law)
    for seed in (1, 2):
        _, stats, failed = sample_marginal(flat, chains=4, draws=1000, cores=1, random_seed=seed)
        lp = stats["lp"].values
        assert not failed
        assert lp.min() > np.median(lp) - 40
