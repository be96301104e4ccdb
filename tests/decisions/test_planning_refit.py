"""What weighting says a run will tell, against fitting again with the run's data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.decisions.candidates import Candidate
from cbsbayes.decisions.information import normal_scores, posterior_moments
from cbsbayes.decisions.next_runs import Judge
from cbsbayes.decisions.simulated_runs import (
    crossing_bounds,
    evaluations,
    model_draws,
    new_log_steps,
)
from cbsbayes.inference.sampling import SamplerSettings, sample_crossings
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.conditions import steps_ratio
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.surface import Surface
from cbsbayes.simulate import simulate_sweep

pytestmark = pytest.mark.mcmc
THRESHOLDS, LAW, EVERY = (0.60, 0.65, 0.70), get_law("two_axis"), 25
SETTINGS = SamplerSettings(draws=1000, tune=600, chains=4, random_seed=1)


def quantity(posterior):
    critical = Surface(LAW, posterior).solve(steps_ratio(2.0), "prompts", 8)
    return np.log(critical.sel(threshold=0.70).values)


def fitted(crossings):
    data = crossing_data(crossings, LAW)
    return data, stacked(sample_crossings(data, LAW, SETTINGS)["posterior"].to_dataset())


def with_run(crossings, cell, lower, upper, status):
    dims = ("run", "threshold")
    run = xr.Dataset(
        {"lower": (dims, lower[None]), "upper": (dims, upper[None]),
         "status": (dims, status[None])},
        coords={"run": ["planned"], "threshold": crossings["threshold"].values,
                "n_prompts": ("run", [cell[0]]), "n_rollouts": ("run", [cell[1]]),
                "total_batch": ("run", [float(cell[0] * cell[1])])})
    kept = crossings[["lower", "upper", "status", "n_prompts", "n_rollouts", "total_batch"]]
    kept = kept.drop_vars([name for name in kept.coords if name not in run.coords])
    return xr.concat([kept, run], "run").assign_attrs(crossings.attrs)


@pytest.fixture(scope="module")
def start():
    ds = simulate_sweep("p1+p2b", 1, random_seed=5)
    ds = ds.isel(run=np.flatnonzero(ds["n_rollouts"].values > 1))
    crossings = find_crossings(ds, THRESHOLDS)
    data, posterior = fitted(crossings)
    return crossings, model_draws(posterior, LAW, data, "increasing")


@pytest.mark.parametrize("cell", [(32, 8, 900), (64, 4, 600), (1024, 8, 150)])
def test_weighted_draws_have_the_variance_of_a_new_fit(start, cell):
    """Five data sets a candidate: spread after the run, by weights and by sampling again."""
    crossings, draws = start
    values = quantity(draws.posterior)
    place = np.linspace(0, draws.size - 1, 5).astype(int)
    rest = np.setdiff1d(np.arange(draws.size), place)
    judge = Judge(draws.part(place), draws.part(rest), normal_scores(values[rest]), EVERY, 3)
    option = Candidate(*map(float, cell), 1, 1.0, 0, False, 1.0)
    weights = judge.weights(option, replicate=1)
    by_weights = posterior_moments(weights, values[rest])
    assert np.median(by_weights.effective) > 200
    log_steps = new_log_steps(draws.part(place), *cell[:2], np.random.default_rng([3, 1]))
    bounds = crossing_bounds(log_steps, evaluations(EVERY, cell[2]))
    again = [quantity(fitted(with_run(crossings, cell, *(part[k] for part in bounds)))[1])
             for k in range(len(place))]
    ratio = np.sqrt(by_weights.variance) / [found.std() for found in again]
    assert np.exp(np.log(ratio).mean()) == pytest.approx(1.0, abs=0.08)
    assert (np.abs(np.log(ratio)) < 0.35).all()
    share = np.exp(weights - weights.max(axis=1, keepdims=True))
    means = (share @ values[rest]) / share.sum(axis=1)
    spread = values.std()
    assert (np.abs(means - [found.mean() for found in again]) < 0.25 * spread).all()
