"""The table of quantities: tidy, and empty where the data do not say."""

from __future__ import annotations

import arviz_stats
import numpy as np
import pytest
import xarray as xr

from cbsbayes.models.laws import get_law
from cbsbayes.posterior.quantities import Quantity
from cbsbayes.posterior.tidy import CBS_COLUMNS, cbs_table, interval

CHAINS, DRAWS = 4, 500


def autocorrelated(rng, sd, size):
    """Return chains of an AR(1) process, so that effective draws differ from draws."""
    noise = rng.normal(size=(CHAINS, DRAWS, size))
    out = noise.copy()
    for k in range(1, DRAWS):
        out[:, k] = 0.6 * out[:, k - 1] + 0.8 * noise[:, k]
    return sd * out


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
    exponent = xr.DataArray(0.5 + autocorrelated(rng, 0.05, 1)[..., 0], dims=("chain", "draw"))
    before = xr.DataArray(rng.normal(0.75, 0.25, (1, 1000)), dims=("chain", "draw"))
    posterior = [quantity(name, draws, at="n_rollouts=8") for name, draws in after.items()]
    posterior.append(Quantity("alpha", "", "1", exponent, log_scale=False))
    priors = [quantity(name, prior) for name in after]
    priors.append(Quantity("alpha", "", "1", before, log_scale=False))
    return posterior, cbs_table(posterior, priors, law=get_law("two_axis_free"), group="tiny",
                                ci_prob=0.9)


def test_a_row_per_threshold_and_quantity_in_the_order_given(table):
    _, rows = table
    assert list(rows.columns) == CBS_COLUMNS
    assert list(rows["quantity"]) == [name for name in ("known", "at_most", "at_least", "unknown")
                                      for _ in range(2)] + ["alpha"]
    assert list(rows["threshold"][:4]) == [0.6, 0.7, 0.6, 0.7]
    assert np.isnan(rows["threshold"].iloc[-1])
    assert set(rows["group"]) == {"tiny"}
    assert set(rows["law"]) == {"two_axis_free"}
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
    kwargs = {"law": get_law("total"), "group": "", "ci_prob": 0.8}
    first, second = (cbs_table([q], [prior], **kwargs) for q in (one, turned))
    np.testing.assert_allclose(first["median"], [5, 50], rtol=0.02)
    columns = ["median", "ci_lower", "ci_upper", "r_hat", "ess_bulk", "ess_tail"]
    np.testing.assert_allclose(first[columns], second[columns])


def test_quantities_and_their_priors_must_match():
    one = quantity("x", np.random.default_rng(0).normal(size=(CHAINS, DRAWS, 2)))
    with pytest.raises(ValueError, match="zip"):
        cbs_table([one, one], [one], law=get_law("total"), group="", ci_prob=0.9)


def test_interval_is_equal_tailed():
    assert interval(np.arange(101.0), 0.8) == pytest.approx((10.0, 90.0))
