"""The trajectory model on its own prior: its posteriors are calibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cbsbayes.models.laws import get_law
from cbsbayes.validation.calibration import calibration_sweep
from cbsbayes.validation.coverage import Settings
from cbsbayes.validation.sbc_trajectory import TrajectoryCalibration

QUICK = Settings(model="trajectory", law="two_axis", draws=100, tune=200)


@pytest.fixture(scope="module")
def model():
    return TrajectoryCalibration(get_law(QUICK.law), QUICK)


def test_what_follows_a_sweep_is_held(model):
    first, second = (model.prior_draw(seed).sweep["accuracy"].values for seed in (0, 1))
    assert not np.array_equal(first, second)
    both = [replace(model._parameters, data=replace(model._parameters.data, accuracy=accuracy))
            for accuracy in (first, second)]
    held = both[0].arrays._replace(accuracy=second)
    for one, other in zip(held, both[1].arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def test_parameters_come_from_the_prior(model):
    sigma = np.log([model.prior_draw(seed).parameters["sigma_run"].item() for seed in range(200)])
    center, spread = model._parameters.priors.sigma_run
    assert sigma.mean() == pytest.approx(center, abs=4 * spread / np.sqrt(200))
    assert sigma.std() == pytest.approx(spread, rel=4 / np.sqrt(400))


@pytest.mark.mcmc
def test_posteriors_are_calibrated():
    """Eight sweeps, so mean ranks of single parameters are known to .10, that of all to .03."""
    settings = replace(QUICK, draws=300, tune=300)
    records = [calibration_sweep(settings, seed) for seed in range(8)]
    ranks = np.array([[row[3] for row in record["rows"]] for record in records])
    assert ranks.shape[1] > 25
    assert np.abs(ranks.mean(axis=0) - 0.5).max() < 4 * 0.29 / np.sqrt(8)
    assert ranks.mean() == pytest.approx(0.5, abs=0.12)
    inside = ((ranks > 0.05) & (ranks < 0.95)).mean()
    assert inside == pytest.approx(0.9, abs=0.09)
    assert max(record["sampling"]["r_hat_max"] for record in records) < 1.2
