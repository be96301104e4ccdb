"""Independent draws for tests of planning: narrow priors, so that weights have something to do."""

from __future__ import annotations

from functools import cache

from fitted import NARROW

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.decisions.simulated_runs import ModelDraws, model_draws
from cbsbayes.inference.sampling import sample_prior
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit import stacked
from cbsbayes.simulate import simulate_sweep

THRESHOLDS = (0.60, 0.65, 0.70)
LAW = "two_axis_free"


@cache
def independent_draws(n_draws: int = 3000, law: str = LAW) -> ModelDraws:
    """Return draws of the crossing model's narrow priors, every one of them another."""
    ds = simulate_sweep("p1+p2b", 1, random_seed=3)
    ds = ds.isel(run=(ds["n_rollouts"].values > 1).nonzero()[0])
    data = crossing_data(find_crossings(ds, THRESHOLDS), get_law(law))
    prior = sample_prior(data, get_law(law), draws=n_draws, random_seed=4, priors=NARROW)
    return model_draws(stacked(prior), get_law(law), data, "increasing")
