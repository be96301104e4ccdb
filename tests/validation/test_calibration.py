"""Calibration on the models' own priors: draws, ranks, and a test that sees a wrong posterior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot

from cbsbayes.models.parameters import PRIORS
from cbsbayes.validation.calibration import (
    COLUMNS,
    calibrated,
    calibration_sweep,
    rank_table,
    ranks,
)
from cbsbayes.validation.engine import rows_of
from cbsbayes.validation.models import Settings
from cbsbayes.validation.page import plot_ranks

QUICK = Settings(law="two_axis", draws=100, tune=150, thresholds=(0.62, 0.68))
CURVES = Settings(model="trajectory", law="two_axis", draws=150, tune=150)


def draws_of(values):
    return xr.DataArray(values, dims=("chain", "draw", "threshold"),
                        coords={"threshold": [0.6, 0.7][: values.shape[2]]})


def rank_rows(spread, n=300):
    """Return ranks of standard normal truths among draws whose sd is off by a factor."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(n):
        true = draws_of(rng.normal(size=(1, 1, 1)))
        posterior = draws_of(spread * rng.normal(size=(2, 100, 1)))
        rows += [[t, "q", value, pit] for t, value, pit in ranks(true, posterior, rng)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_ranks_of_known_places():
    posterior = draws_of(np.arange(1000.0).reshape(2, 500, 1).repeat(2, axis=2))
    true = draws_of(np.array([[[-1.0, 1e6]]]))
    (low, high) = ranks(true, posterior, np.random.default_rng(0))
    assert low[:2] == (0.6, -1.0)
    assert 0 < low[2] < 1 / 101
    assert 100 / 101 < high[2] < 1
    scalar = draws_of(np.full((1, 1, 1), 499.5)).isel(threshold=0, drop=True)
    ((label, _, middle),) = ranks(scalar, posterior.isel(threshold=0, drop=True),
                                  np.random.default_rng(0))
    assert label == ""
    assert middle == pytest.approx(0.5, abs=0.01)


def test_a_right_posterior_passes_and_a_narrow_one_does_not():
    right, narrow = (rank_table(rank_rows(spread)).iloc[0] for spread in (1.0, 0.7))
    assert right["n"] == 300
    assert right["p_value"] > 0.01
    assert right["cover_90"] == pytest.approx(0.9, abs=3 * right["cover_90_se"])
    assert narrow["p_value"] < 1e-3
    assert narrow["cover_90"] < 0.85


def test_parameters_come_from_the_prior_and_sweeps_from_the_parameters():
    model = calibrated(QUICK)
    sweeps, drawn = zip(*(model.prior_draw(seed) for seed in range(200)), strict=True)
    sigma = np.log([parameters["sigma_run"].item() for parameters in drawn])
    assert sigma.mean() == pytest.approx(np.log(PRIORS.sigma_run), abs=0.15)
    assert sigma.std() == pytest.approx(PRIORS.sigma_run_sd, abs=0.1)
    assert (np.diff(drawn[0]["S_min"].values[0, 0]) > 0).all()
    assert sweeps[0].sizes == {"run": 17, "threshold": 2}
    again = calibrated(replace(QUICK, chains=3)).prior_draw(7)[0]
    assert again.equals(sweeps[7])
    assert not sweeps[7].equals(sweeps[8])


@pytest.mark.mcmc
@pytest.mark.parametrize("law", ["two_axis", "total"])
def test_a_few_sweeps_from_prior_to_table(law):
    settings = replace(QUICK, law=law)
    records = [{"seed": seed, **calibration_sweep(settings, seed)} for seed in range(3)]
    rows = rows_of(records, COLUMNS)
    assert rows["pit"].between(0, 1).all()
    table = rank_table(rows)
    assert set(table["quantity"]) >= {"S_min", "sigma_run", "sigma_residual"}
    assert (table["n"] == 3).all()
    # A posterior that had nothing to do with its data would rank S where its prior puts it.
    known = rows[rows["quantity"].str.startswith("S(")]
    assert known["pit"].between(0.001, 0.999).all()


@pytest.fixture(scope="module")
def curves():
    return calibrated(CURVES)


def test_what_follows_a_sweep_of_curves_is_held(curves):
    first, second = (curves.prior_draw(seed)[0]["accuracy"].values for seed in (0, 1))
    assert not np.array_equal(first, second)
    model = curves._parameters
    one, other = (replace(model, data=replace(model.data, accuracy=accuracy)).arrays
                  for accuracy in (first, second))
    for held, found in zip(one._replace(accuracy=second), other, strict=True):
        np.testing.assert_array_equal(held, found)


def test_parameters_of_curves_come_from_the_prior(curves):
    sigma = np.log([curves.prior_draw(seed)[1]["sigma_run"].item() for seed in range(200)])
    center, spread = curves._parameters.priors.sigma_run
    assert sigma.mean() == pytest.approx(center, abs=4 * spread / np.sqrt(200))
    assert sigma.std() == pytest.approx(spread, rel=4 / np.sqrt(400))


@pytest.mark.mcmc
def test_posteriors_are_calibrated():
    """Eight sweeps, so mean ranks of single parameters are known to .10, that of all to .03."""
    records = [calibration_sweep(CURVES, seed) for seed in range(8)]
    ranks = np.array([[row[3] for row in record["rows"]] for record in records])
    assert ranks.shape[1] > 25
    assert np.abs(ranks.mean(axis=0) - 0.5).max() < 4 * 0.29 / np.sqrt(8)
    assert ranks.mean() == pytest.approx(0.5, abs=0.12)
    inside = ((ranks > 0.05) & (ranks < 0.95)).mean()
    assert inside == pytest.approx(0.9, abs=0.09)
    assert max(record["sampling"]["r_hat_max"] for record in records) < 1.2


def test_ranks_are_drawn_in_an_envelope_a_panel_per_quantity():
    rows = rank_rows(1.0, n=60).assign(sweep=range(60))
    figure = plot_ranks(pd.concat([rows, rows.assign(quantity="other")]))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["q", "other"]
    assert all(len(ax.collections) == 1 for ax in figure.axes)
    (alone,) = plot_ranks(rows[:1]).axes
    assert not alone.collections
    pyplot.close("all")
