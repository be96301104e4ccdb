"""The table of quantities: tidy, and empty where the data do not say."""

from __future__ import annotations

import arviz_stats
import numpy as np
import pytest
import xarray as xr

from cbsbayes.posterior.quantities import Quantity
from cbsbayes.posterior.tidy import STATUSES, TIDY_COLUMNS, identify, interval, tidy

CHAINS, DRAWS = 4, 500


def quantity(name, log_draws, *, at="", threshold=(0.6, 0.7)):
    data = xr.DataArray(np.exp(log_draws), dims=("chain", "draw", "threshold"),
                        coords={"threshold": list(threshold)})
    return Quantity(name, at, "updates", data)


@pytest.fixture(scope="module")
def table():
    """Return the table of four quantities of known status at two thresholds."""
    rng = np.random.default_rng(1)
    prior = rng.normal(0, 2, (1, 1000, 2))
    below = -np.abs(rng.normal(0, 2, (CHAINS, DRAWS, 2)))
    after = {"known": 0.1 * rng.normal(size=(CHAINS, DRAWS, 2)), "at_most": below,
             "at_least": -below, "unknown": rng.normal(0, 2, (CHAINS, DRAWS, 2))}
    walk = np.cumsum(0.01 * rng.normal(size=(CHAINS, DRAWS)), axis=1) * 0.98 ** np.arange(DRAWS)
    exponent = xr.DataArray(0.5 + walk, dims=("chain", "draw"))  # draws depend on each other
    before = xr.DataArray(rng.normal(0.75, 0.25, (1, 1000)), dims=("chain", "draw"))
    posterior = [quantity(name, draws, at="n_rollouts=8") for name, draws in after.items()]
    posterior.append(Quantity("alpha", "", "1", exponent, log_scale=False))
    priors = [quantity(name, prior) for name in after]
    priors.append(Quantity("alpha", "", "1", before, log_scale=False))
    return posterior, tidy(posterior, priors, 0.9)


def test_a_row_per_threshold_and_quantity_in_the_order_given(table):
    _, rows = table
    assert list(rows.columns) == TIDY_COLUMNS
    assert list(rows["quantity"]) == [name for name in ("known", "at_most", "at_least", "unknown")
                                      for _ in range(2)] + ["alpha"]
    assert list(rows["threshold"][:4]) == [0.6, 0.7, 0.6, 0.7]
    assert np.isnan(rows["threshold"].iloc[-1])
    assert set(rows["ci_kind"]) == {"eti"}
    assert set(rows["ci_prob"]) == {0.9}
    assert list(rows["at"].unique()) == ["n_rollouts=8", ""]


def test_statuses_and_what_stays_empty(table):
    _, rows = table
    status = rows.groupby("quantity", sort=False)["status"].agg(set).to_dict()
    assert status == {"known": {"identified"}, "at_most": {"upper_bound"},
                      "at_least": {"lower_bound"}, "unknown": {"not_identified"},
                      "alpha": {"identified"}}
    numbers = rows.set_index("quantity")[["median", "mean", "sd", "ci_lower", "ci_upper"]].notna()
    assert numbers.loc["known"].all(axis=None)
    for name, kept in {"at_most": "ci_upper", "at_least": "ci_lower", "unknown": None}.items():
        for column in numbers.columns:
            assert (numbers.loc[name, column] == (column == kept)).all()


def test_numbers_of_an_identified_quantity(table):
    posterior, rows = table
    draws = posterior[0].draws.isel(threshold=1).values.reshape(-1)
    row = rows.iloc[1]
    assert row["median"] == np.median(draws)
    assert row["mean"] == pytest.approx(draws.mean())
    assert row["sd"] == pytest.approx(draws.std(ddof=1))
    assert (row["ci_lower"], row["ci_upper"]) == pytest.approx(np.quantile(draws, [0.05, 0.95]))


def test_convergence_columns_are_arviz_own(table):
    posterior, rows = table
    ds = xr.Dataset({"known": posterior[0].draws, "alpha": posterior[-1].draws})
    tree = xr.DataTree.from_dict({"posterior": ds})
    r_hat, bulk = arviz_stats.rhat(tree), arviz_stats.ess(tree, method="bulk")
    tail = arviz_stats.ess(tree, method="tail", prob=(0.05, 0.95))
    for k in range(2):
        row = rows.iloc[k]
        assert row["r_hat"] == pytest.approx(float(r_hat["known"][k]))
        assert row["ess_bulk"] == pytest.approx(float(bulk["known"][k]))
        assert row["ess_tail"] == pytest.approx(float(tail["known"][k]))
    assert rows.iloc[-1]["ess_bulk"] == pytest.approx(float(bulk["alpha"]))
    assert rows.iloc[-1]["ess_bulk"] < 0.5 * CHAINS * DRAWS  # it sees the autocorrelation
    assert rows.iloc[-1]["r_hat"] == pytest.approx(float(r_hat["alpha"]))


def test_thresholds_keep_their_own_draws_whatever_the_order_of_dims():
    rng = np.random.default_rng(0)
    draws = 0.1 * rng.normal(size=(CHAINS, DRAWS, 2)) + np.log([5.0, 50.0])
    prior = quantity("x", rng.normal(0, 4, (1, 1000, 2)))
    one = quantity("x", draws)
    turned = Quantity("x", "", "updates", one.draws.transpose("threshold", "draw", "chain"))
    first, second = (tidy([q], [prior], 0.8) for q in (one, turned))
    np.testing.assert_allclose(first["median"], [5, 50], rtol=0.02)
    columns = ["median", "ci_lower", "ci_upper", "r_hat", "ess_bulk", "ess_tail"]
    np.testing.assert_allclose(first[columns], second[columns])


def test_quantities_and_their_priors_must_match():
    one = quantity("x", np.random.default_rng(0).normal(size=(CHAINS, DRAWS, 2)))
    with pytest.raises(ValueError, match="zip"):
        tidy([one, one], [one], 0.9)


def test_interval_is_equal_tailed():
    assert interval(np.arange(101.0), 0.8) == pytest.approx((10.0, 90.0))


# What comes from the data and what from the prior ---------------------------------------


SD = 2.0  # of the log prior
SEEDS = range(8)
POOL = 200_000


def prior_draws(rng, size=1000):
    return rng.normal(0.0, SD, size)


def posterior_draws(rng, likelihood, size=4000):
    """Return draws of prior times likelihood by rejection."""
    x = prior_draws(rng, POOL)
    weight = likelihood(x)
    return x[rng.random(POOL) < weight / weight.max()][:size]


def statuses(posterior, *, seeds=SEEDS):
    """Return the statuses over seeds; `posterior` maps a generator to log draws."""
    found = set()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        prior = prior_draws(rng)
        found.add(identify(np.exp(posterior(rng)), np.exp(prior)))
    return found


def falling(edge, width=0.2):
    """Return a likelihood that is flat below `edge` and falls above."""
    return lambda x: 1 / (1 + np.exp(np.clip((x - edge) / width, -50, 50)))


@pytest.mark.parametrize("edge", [-4.0, -2.0, 0.0, 2.0])
@pytest.mark.parametrize(("side", "status"), [(1.0, "upper_bound"), (-1.0, "lower_bound")])
def test_a_likelihood_flat_on_one_side_leaves_a_bound(edge, side, status):
    below = falling(edge)
    assert statuses(lambda rng: posterior_draws(rng, lambda x: below(side * x))) == {status}


def test_the_prior_itself_is_not_identified():
    assert statuses(lambda rng: prior_draws(rng, 4000), seeds=range(40)) == {"not_identified"}


@pytest.mark.parametrize("middle", [-5.0, -4.1, -2.0, 0.0, 2.0, 4.1, 5.0])
def test_a_narrow_posterior_is_identified_even_far_out_in_the_prior(middle):
    assert statuses(lambda rng: rng.normal(middle, 0.2, 4000)) == {"identified"}


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_a_narrow_peak_with_a_flat_stretch_beside_it_is_a_bound(share):
    """The interval's lower end is the prior's, however high the peak."""
    flat = int(4000 * share)

    def peak_and_plateau(rng):
        return np.concatenate([-np.abs(prior_draws(rng, flat)), rng.normal(0, 0.1, 4000 - flat)])

    assert statuses(peak_and_plateau) == {"upper_bound"}


def two_scales(rng, combine):
    """Return log draws of two scales of which only a combination is known, to 15 %."""
    one, two = prior_draws(rng, POOL), prior_draws(rng, POOL)
    kept = np.abs(combine(one, two) - 0.7) < 0.15
    return one[kept][:4000], two[kept][:4000]


def test_two_scales_of_which_the_sum_is_known_are_upper_bounds():
    for k in range(2):
        assert statuses(lambda rng, k=k: two_scales(rng, np.logaddexp)[k]) == {"upper_bound"}


def test_a_scale_known_only_over_one_plus_another_is_a_lower_bound():
    """Rollouts alone: B_rollout/(P + B_prompt) is known, so B_rollout may be anything larger."""
    def known(log_rollout, log_prompt):
        return log_rollout - np.logaddexp(0.0, log_prompt)

    found = statuses(lambda rng: two_scales(rng, known)[0])
    assert found <= {"lower_bound", "not_identified"}
    assert "lower_bound" in found
    assert statuses(lambda rng: two_scales(rng, known)[1]) <= {"upper_bound", "not_identified"}


def test_zeros_and_the_linear_scale():
    rng = np.random.default_rng(3)
    prior = np.maximum(np.exp(prior_draws(rng)) - 0.5, 0.0)  # some batches that never exist
    assert identify(np.zeros(4000), prior) in STATUSES
    assert identify(np.exp(rng.normal(0, 0.1, 4000)), prior) == "identified"
    exponent = np.clip(rng.normal(0.75, 0.25, 1000), 0.25, 1.5)
    assert identify(rng.normal(0.5, 0.05, 4000), exponent, log_scale=False) == "identified"
    assert identify(rng.normal(0.75, 0.24, 4000), exponent, log_scale=False) == "not_identified"


def test_draws_that_are_no_numbers_identify_nothing():
    draws = prior_draws(np.random.default_rng(0))
    broken = np.append(draws[1:], np.nan)
    narrow = 0.1 * draws
    assert identify(narrow, draws, log_scale=False) == "identified"
    assert identify(0.1 * broken, draws, log_scale=False) == "not_identified"
    assert identify(narrow, broken, log_scale=False) == "not_identified"
