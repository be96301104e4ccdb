"""Least squares beside the posterior: the law it takes, its intervals, and where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from crossing_tables import THRESHOLDS, crossings_table

from cbsbayes.baselines.log_space import fit_log_law
from cbsbayes.models.laws import LAWS, get_law
from cbsbayes.validation.least_squares_intervals import (
    fixed_law,
    least_squares_intervals,
    log_estimates,
)
from cbsbayes.validation.models import Reading

TOTAL = Reading(256, 1, one_axis=True)


def exact(steps):
    """Return crossings at one threshold known exactly, batches 64 … 1024."""
    batch = np.array([64.0, 128, 256, 512, 1024])
    values = np.asarray(steps(batch), dtype=float)[:, None]
    return xr.Dataset(
        {"lower": (("run", "threshold"), values), "upper": (("run", "threshold"), values)},
        coords={"n_prompts": ("run", [-1] * 5), "n_rollouts": ("run", [-1] * 5),
                "total_batch": ("run", batch), "threshold": [1.0]})


@pytest.mark.parametrize("name", list(LAWS))
def test_the_exponent_is_the_laws_or_one(name):
    law = fixed_law(get_law(name))
    assert law.alpha == (LAWS[name].alpha or 1.0)
    assert (law.scales, law.group_baseline) == (LAWS[name].scales, LAWS[name].group_baseline)


def test_without_noise_every_method_finds_the_law():
    law = get_law("total")
    table = exact(lambda batch: 100 * (1 + 500 / batch))
    for method, found in least_squares_intervals(table, table, law, TOTAL).items():
        assert np.exp(found["B_noise"][0]) == pytest.approx([500.0], rel=1e-3), method
        gain = np.exp(found["gain_total"][0, 0])
        assert gain == pytest.approx((1 + 500 / 512) / (1 + 500 / 256)), method
        assert np.exp(found["S(256)"][0]) == pytest.approx(100 * (1 + 500 / 256)), method


def test_the_t_interval_is_that_of_the_log_fit():
    noise = np.exp(np.random.default_rng(3).normal(0, 0.05, 5))
    law = get_law("total")
    table = exact(lambda batch: 100 * (1 + 500 / batch) * noise)
    ours = least_squares_intervals(table, table, law, TOTAL)["log_fit_t"]["B_noise"][:, 0]
    fit = fit_log_law(law, table["total_batch"].values, np.ones(5), table["upper"].values[:, 0])
    half = fit.t_quantile(0.9) * np.sqrt(fit.covariance[1, 1])
    np.testing.assert_allclose(ours, fit.log_parameters[1] + np.array([0, -half, half]), rtol=1e-3)


def test_a_flat_s_has_a_bootstrap_interval_down_to_nothing_and_no_t_interval():
    law = get_law("total")
    table = exact(lambda batch: 100 * np.array([0.99, 1.0, 1.0, 1.0, 1.01]))
    found = least_squares_intervals(table, table, law, TOTAL)
    assert np.isnan(found["log_fit_t"]["B_noise"][1:]).all()
    assert found["log_fit_boot"]["B_noise"][1, 0] == -np.inf


def test_too_few_crossings_give_nothing():
    law, reading = get_law("two_axis"), Reading()
    crossings = crossings_table(law, n_runs=12).isel(run=slice(0, 2))
    for method, found in least_squares_intervals(crossings, crossings, law, reading).items():
        assert found["S_min"].shape == (3, len(THRESHOLDS)), method
        assert np.isnan(found["S_min"][1:]).all(), method


def test_estimates_alone_are_those_of_the_fit():
    law, reading = get_law("two_axis_free"), Reading()
    crossings = crossings_table(law, n_runs=40)
    alone = log_estimates(crossings, law, reading)
    found = least_squares_intervals(crossings, crossings, law, reading)["log_fit_t"]
    for name, logs in alone.items():
        np.testing.assert_allclose(logs, found[name][0], rtol=1e-9)
    assert np.exp(alone["B_prompt"]) == pytest.approx([90.0] * 4, rel=0.5)
