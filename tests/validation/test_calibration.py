"""Calibration on the model's own prior: draws, ranks, and a test that sees a wrong posterior."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.priors import PRIORS
from cbsbayes.validation.calibration import (
    COLUMNS,
    calibrated,
    calibration_sweep,
    rank_table,
    ranks,
)
from cbsbayes.validation.coverage import Settings
from cbsbayes.validation.study import rows_of

QUICK = Settings(law="two_axis", draws=100, tune=150, thresholds=(0.62, 0.68))


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
    drawn = [model.prior_draw(seed) for seed in range(200)]
    sigma = np.log([d.parameters["sigma_run"].item() for d in drawn])
    assert sigma.mean() == pytest.approx(np.log(PRIORS.sigma_run), abs=0.15)
    assert sigma.std() == pytest.approx(PRIORS.sigma_run_sd, abs=0.1)
    assert (np.diff(drawn[0].parameters["S_min"].values[0, 0]) > 0).all()
    assert drawn[0].sweep.sizes == {"run": 17, "threshold": 2}
    again = calibrated(Settings(**{**QUICK.as_dict(), "thresholds": QUICK.thresholds}))
    assert again.prior_draw(7).sweep.equals(drawn[7].sweep)
    assert not drawn[7].sweep.equals(drawn[8].sweep)


@pytest.mark.mcmc
@pytest.mark.parametrize("law", ["two_axis", "total"])
def test_a_few_sweeps_from_prior_to_table(law):
    settings = Settings(law=law, draws=100, tune=150, thresholds=(0.62, 0.68))
    records = [{"seed": seed, **calibration_sweep(settings, seed)} for seed in range(3)]
    rows = rows_of(records, COLUMNS)
    assert rows["pit"].between(0, 1).all()
    table = rank_table(rows)
    assert set(table["quantity"]) >= {"S_min", "sigma_run", "sigma_residual"}
    assert (table["n"] == 3).all()
    # A posterior that had nothing to do with its data would rank S where its prior puts it.
    known = rows[rows["quantity"].str.startswith("S(")]
    assert known["pit"].between(0.001, 0.999).all()


def test_an_unknown_model_is_refused():
    with pytest.raises(CBSDataError, match="unknown model 'other'; valid: crossing, trajectory"):
        Settings(model="other")
