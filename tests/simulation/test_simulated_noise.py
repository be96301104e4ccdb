"""Simulated probes of gradient noise: unbiased, with the errors they claim, at a known offset."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.noise.logged import probes_of
from cbsbayes.simulation.noise import with_gradient_noise, with_gradient_norms
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import truth_of


@pytest.fixture(scope="module")
def base():
    constant = {"noise": {"B_prompt": (90.0, 0.0), "B_rollout": (500.0, 0.0)}}
    return simulate_sweep("p1", 2, curve=constant, random_seed=4)


def test_ratios_of_averages_are_the_true_scales_times_the_offset(base):
    ds = with_gradient_noise(base, every=5, offset=0.7, random_seed=1)
    sums = probes_of(ds)[["tr_between", "tr_within", "g_sq"]].mean()
    np.testing.assert_allclose(sums[:2] / sums["g_sq"], np.exp(0.7) * np.array([90, 500 * 8 / 7]),
                               rtol=0.2)


def test_scatter_of_the_signal_is_what_is_stated(base):
    probes = probes_of(with_gradient_noise(base, every=1, dimensions=16.0, random_seed=2))
    small = probes[probes["n_prompts"] == probes["n_prompts"].min()]
    signal, p = 50.0 / 90.0, float(small["n_prompts"].iloc[0])
    whole = (90.0 + 500.0 / 7) / p
    assert small["g_sq"].std() == pytest.approx(
        signal * np.sqrt((2 * whole**2 + 4 * whole) / 16), rel=0.06)
    assert small["g_sq"].mean() == pytest.approx(signal, abs=4 * small["g_sq"].std()
                                                 / np.sqrt(len(small)))


def test_noise_follows_accuracy_and_the_sweep_stays_valid():
    ds = with_gradient_noise(simulate_sweep("p1", 1, random_seed=4), every=25, dimensions=1e9)
    between = ds["noise_tr_between"] / ds["noise_g_sq"]
    truth = truth_of(ds)
    start = float(truth.scales(truth.start)["B_prompt"])
    assert between.isel(train_step=0).values == pytest.approx(start, rel=1e-3)
    assert (np.diff(between.values, axis=1) > 0).all()
    assert ds.attrs["true_noise_offset"] == 0.0


def test_norms_have_the_mean_of_signal_and_noise_over_prompts(base):
    ds = with_gradient_norms(base, offset=0.7, dimensions=1e6, random_seed=1)
    signal = 50.0 / (90.0 * np.exp(0.7))
    whole = np.exp(0.7) * (90.0 + 500.0 / 7) / ds["n_prompts"].values
    norms = ds["grad_norm_sq"].values
    assert np.isnan(norms[:, 0]).all()
    np.testing.assert_allclose(norms[:, 1:], (signal * (1 + whole))[:, None].repeat(
        norms.shape[1] - 1, axis=1), rtol=5e-3)
    assert ds.attrs["true_noise_offset"] == 0.7


def test_what_has_no_two_parts_is_refused(base):
    with pytest.raises(CBSDataError, match="carries no truth"):
        with_gradient_noise(base.assign_attrs(truth="").drop_attrs())
    with pytest.raises(CBSDataError, match="in two parts"):
        with_gradient_noise(simulate_sweep("batch", 1, law="total"))
    with pytest.raises(CBSDataError, match="valid: 1 and more"):
        with_gradient_noise(base, every=0)
