"""The sweep over learning rates, `data/verl_lr`, is what its README and script say, and its fit."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.learning_rate import rate_table
from cbsbayes.sweep.files import read_sweep
from data.verl_lr.build import build
from training.definitions import read_phase


@pytest.fixture(scope="module")
def ds(root):
    return read_sweep(root / "data" / "verl_lr" / "sweep.nc")


def test_it_is_what_the_script_makes_of_the_logs(ds):
    assert build().identical(ds)


def test_it_is_all_runs_of_the_phase(ds):
    cells = {cell.name: cell for cell in read_phase("tinylr").cells}
    assert set(ds["name"].values) == set(cells)
    for name in ("n_prompts", "n_rollouts", "learning_rate", "seed"):
        np.testing.assert_array_equal(
            ds[name], [getattr(cells[run], name) for run in ds["name"].values])
    assert (ds["n_items"] == 512).all()


@pytest.mark.mcmc
def test_the_best_rate_rises_like_the_root_of_the_batch_and_alpha_is_one(ds):
    fit = fit_sweep(ds, thresholds=[0.5, 0.6, 0.7, 0.8], alternatives=False,
                    sampler=SamplerSettings(cores=1, random_seed=3))
    assert fit.law.name == "learning_rate"
    assert fit.verdict["sampling"]["passed"]
    alpha = fit.cbs[fit.cbs["quantity"] == "alpha"].iloc[0]
    assert alpha["ci_lower"] < 1.0 < alpha["ci_upper"]
    rates = rate_table(fit)
    below = rates[rates["quantity"] == "slope_below"].iloc[0]
    assert below["ci_lower"] > 0.35
    assert below["ci_upper"] < 0.8  # low rates cost less than the theory says
    slopes = rates[rates["quantity"] == "rate_slope"]
    assert ((slopes["ci_lower"] > 0.2) & (slopes["ci_upper"] < 0.75)).all()
    at_one = rates[(rates["quantity"] == "apparent_exponent") & (rates["threshold"] == 0.7)]
    medians = at_one[at_one["at"].str.startswith("n_rollouts=16")]["median"].dropna()
    assert medians.is_monotonic_increasing
    assert medians.iloc[0] < 0.65
    assert medians.iloc[-1] > 1.0
