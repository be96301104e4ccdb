"""The trajectory model from a sweep to a fit: refusals without sampling, a real posterior with."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.inference.trajectory import find_laplace
from cbsbayes.models.laws import get_law
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_read import read_thresholds
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.surface import Surface
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import true_steps

QUICK = SamplerSettings(draws=400, tune=400, chains=2, cores=1)
LAW = get_law("two_axis")


@pytest.fixture(scope="module")
def sweep():
    full = simulate_sweep("all", 1, random_seed=5)
    return full.isel(run=np.flatnonzero(full["n_rollouts"].values >= 2))


def test_evaluations_are_free_of_units(sweep):
    data = trajectory_data(sweep, LAW, None)
    assert data.count.sum() == len(data.seen_steps) == 24 * sweep.sizes["run"]
    stretched = sweep.assign_coords(step=sweep["step"] * 1000.0)
    other = trajectory_data(stretched, LAW, None)
    np.testing.assert_allclose(other.steps, data.steps)
    np.testing.assert_allclose(other.log_tau, data.log_tau)
    assert other.log_steps_scale == pytest.approx(data.log_steps_scale + np.log(1000))
    assert (np.diff(data.log_tau) > 0).all()


def test_the_mode_is_near_the_truth(sweep):
    thresholds = np.array([0.62, 0.68])
    found = find_laplace(TrajectoryParameters(trajectory_data(sweep, LAW, None), LAW))
    at_mode = read_thresholds(found.parameters, found.mode[None, None], thresholds, seed=0)
    steps = np.exp(Surface(LAW, at_mode).log_steps(128, 8)).values.ravel()
    np.testing.assert_allclose(steps, true_steps(sweep, 128, 8, thresholds), rtol=0.15)


@pytest.mark.parametrize(("change", "said"), [
    (lambda ds: ds.assign(accuracy=ds["accuracy"] * 3), "values from 0 to 1"),
    (lambda ds: ds.assign_attrs(direction="decreasing"), "reached from above"),
    (lambda ds: ds.drop_vars("accuracy"), "table of crossings"),
    (lambda ds: ds.isel(step=[0]), "no run was evaluated after its start"),
])
def test_what_is_no_curve_of_accuracy_is_refused(sweep, change, said):
    with pytest.raises(CBSDataError, match=said):
        trajectory_data(change(sweep), LAW, None)


@pytest.mark.mcmc
def test_a_real_posterior_holds_the_truth(sweep):
    fit = fit_sweep(sweep, model="trajectory", law="two_axis", thresholds=[0.62, 0.68],
                    alternatives=False, sampler=QUICK)
    assert fit.settings["model"] == "trajectory"
    assert fit.posterior["run_effect"].sizes["run"] == sweep.sizes["run"]
    steps = np.exp(fit.log_steps(128, 8))
    truth = true_steps(sweep, 128, 8, [0.62, 0.68])
    low, high = np.quantile(steps.values, [0.005, 0.995], axis=0)
    assert (low.ravel() < truth).all()
    assert (truth < high.ravel()).all()
    held = fit.cbs.query("quantity == 'cbs_prompts' and at == 'n_rollouts=8'")
    assert len(held) == 2
    replicated = np.log(fit.predictive["steps"])
    assert np.isfinite(replicated.values).all()
    assert 0.05 < float(replicated.std("sample").median()) < 0.6
