"""Simulation-based calibration: whether prior, data and sampler of a model fit together.

Parameters are drawn from the prior, a sweep from the parameters, and the parameters' ranks among
posterior draws given that sweep are uniform where all three do (Talts et al. 2018 [1]_). A model
takes part by a class with `prior_draw` and `posterior`. Uniformity is judged per quantity and
threshold by ArviZ's test.

Of the crossing model, crossings are drawn exactly, without evaluations between which they hide and
without an end of runs: which of two bounds the model drops as implied by the other depends on the
data, and ranks would then measure that rule. Censoring is what the coverage studies are for.

The trajectory model takes from its sweep the scales of updates, how noisy an evaluation is and the
deviations around which runs are linearised. Given those it has a prior and draws curves, so all of
them are taken from one reference sweep and held, runs linearised around no deviation. Priors are
narrowed too: curves drawn from the wide ones look like nothing that training does, and leave
posteriors of several modes. No run is evaluated before training, because that accuracy says how
noisy it is itself. The linearisation of real curves is what the coverage studies are for.

References
----------
.. [1] Talts, Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian inference algorithms with
   simulation-based calibration", arXiv:1804.06788.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.nuts import find_mode, root_of_covariance
from cbsbayes.inference.sampling import sample_crossings, sample_prior
from cbsbayes.inference.trajectory import Laplace, find_laplace, sample_around
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.trajectory import TrajectoryParameters, TrajectoryPriors
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_runs import moments
from cbsbayes.posterior.law_fit import new_runs, replicate_log_steps
from cbsbayes.simulation.sweep import design_table, simulate_sweep
from cbsbayes.sweep.dataset import is_one_axis, new_sweep
from cbsbayes.validation.models import Reading, Settings, fitted_runs, worst_numbers

__all__ = ["COLUMNS", "CrossingCalibration", "TrajectoryCalibration", "calibrated",
           "calibration_sweep", "rank_table", "ranks"]

COLUMNS = ("threshold", "quantity", "truth", "pit")
"""Of a finished sweep's rows; threshold is empty for what holds at all of them."""

_RANKED = 100  # posterior draws that a truth is ranked among, thinned to be nearly independent
_PRIOR_DRAWS = 256  # drawn at once
_REFERENCE_SEED = 0  # of the sweep that the constants are taken from
_PRIORS = TrajectoryPriors(
    start_sd=0.2, ceiling=(0.0, 0.4), level_sd=0.3, shape=(0.0, 0.15), scale_level_sd=0.6,
    scale_trend_sd=0.4, curvature_sd=0.1, alpha=(0.75, 0.12, 0.25, 1.5), sigma_run=(-2.526, 0.3),
    sigma_wander=(-2.659, 0.3), sigma_offset=(-5.298, 0.3), sigma_noise=(-0.3, 0.3),
    sigma_serial=(-4.6, 0.4), memory=(1.3, 0.3), noise_trend=(0.0, 0.2))


class CrossingCalibration:
    """Draws from the crossing model and its posterior, scales of S and batches held.

    Parameters
    ----------
    law : Law
        The law of S(P, G).
    settings : Settings
        Thresholds and sampler.
    """

    scalars: tuple[str, ...] = ("sigma_run", "sigma_residual")

    def __init__(self, law: Law, settings: Settings) -> None:
        self._law, self._settings = law, settings
        runs = design_table("all" if law.two_axis else "batch", 1)
        runs = runs[runs["n_rollouts"] != 1] if law.two_axis else runs
        ones = np.ones((len(runs), len(settings.thresholds)))
        self._design = find_crossings(new_sweep(runs, steps_lower=ones, steps_upper=ones,
                                                threshold=list(settings.thresholds)),
                                      settings.thresholds)
        self._data = self._model_data(self._design)
        self._prior = cache(lambda block: sample_prior(self._data, law, draws=_PRIOR_DRAWS,
                                                       random_seed=block))

    def prior_draw(self, random_seed: int) -> tuple[xr.Dataset, xr.Dataset]:
        """Return a table of crossings, and the parameters it was drawn from, of the prior."""
        block, position = divmod(random_seed, _PRIOR_DRAWS)
        drawn = self._prior(block).isel(draw=[position])
        rng = np.random.default_rng([random_seed, 0])
        stacked = new_runs(drawn.stack(sample=("chain", "draw")), self._data, self._law)
        log_steps = replicate_log_steps(stacked, self._data, rng)[0]
        steps = ("run", "threshold"), np.exp(log_steps)
        return self._design.assign(lower=steps, upper=steps), drawn

    def posterior(self, sweep: xr.Dataset, random_seed: int) -> xr.DataTree:
        """Return the fit of crossings, under the very prior of `prior_draw`."""
        sampler = self._settings.sampler(random_seed)
        return sample_crossings(self._model_data(sweep), self._law, sampler)

    def _model_data(self, crossings: xr.Dataset) -> CrossingData:
        """Return the model's arrays with S in updates: its scale must not follow the data."""
        data = crossing_data(crossings, self._law)
        shift = data.log_steps_scale
        return replace(data, log_steps_scale=0.0, log_lower=data.log_lower + shift,
                       log_upper=data.log_upper + shift, midpoint=data.midpoint + shift)


class TrajectoryCalibration:
    """Draws from the trajectory model and its posterior, all that follows a sweep held.

    Parameters
    ----------
    law : Law
        The law of S(P, G).
    settings : Settings
        The sampler's.
    """

    def __init__(self, law: Law, settings: Settings) -> None:
        self._settings = settings
        self._parameters = _reference(law)
        self.scalars = tuple(map(str, self._named(self._parameters.center[None, None])))

    def prior_draw(self, random_seed: int) -> tuple[xr.Dataset, xr.Dataset]:
        """Return curves, and the parameters they were drawn from, of the prior."""
        rng = np.random.default_rng([random_seed, 0])
        position = self._parameters.prior_draws(1, rng)
        data = self._parameters.data
        sweep = xr.Dataset(
            {"accuracy": ("evaluation", _curves(self._parameters, position[0], rng))},
            coords={"run": data.run, "n_prompts": ("run", data.n_prompts),
                    "n_rollouts": ("run", data.n_rollouts),
                    "run_of": ("evaluation", data.run_of)})
        return sweep, self._named(position[None])

    def posterior(self, sweep: xr.Dataset, random_seed: int) -> xr.DataTree:
        """Return the fit's shared parameters, under the prior of `prior_draw`."""
        data = replace(self._parameters.data, accuracy=sweep["accuracy"].values)
        parameters = replace(self._parameters, data=data)
        mode = find_mode(parameters.log_density, parameters.center, parameters.sd)
        root = root_of_covariance(parameters.log_density, mode, parameters.sd)
        draws = sample_around(Laplace(parameters, mode, root), self._settings.sampler(random_seed))
        return xr.DataTree.from_dict({
            "posterior": self._named(draws.position), "sample_stats": draws.stats})

    def _named(self, position: np.ndarray) -> xr.Dataset:
        """Return every shared parameter, and every term of the bend, under a name of its own."""
        values = self._parameters.variables(position)
        terms = values.pop("item_set")
        values |= {f"item_set_{k + 1}": terms[..., k] for k in range(terms.shape[-1])}
        return xr.Dataset({name: (("chain", "draw"), value) for name, value in values.items()})


def _reference(law: Law) -> TrajectoryParameters:
    """Return the model with the constants of a simulated sweep, linearised around no deviation."""
    design = "all" if law.two_axis else "batch"
    sweep = fitted_runs(simulate_sweep(design, 1, random_seed=_REFERENCE_SEED), law)
    fitted = find_laplace(TrajectoryParameters(trajectory_data(sweep, law, None), law))
    data = fitted.parameters.data
    held = replace(data, reference=np.zeros(len(data.steps)), start=np.full(len(data.run), np.nan))
    return TrajectoryParameters(held, law, _PRIORS)


def _curves(
    parameters: TrajectoryParameters, position: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return evaluations of every run drawn from the shared parameters, shape (evaluation,)."""
    shared = parameters.shared(position)
    curve, drawn = parameters.curve(shared), []
    for i in range(len(parameters.data.run)):
        own = moments(shared, parameters.arrays, i, curve)
        drawn.append(rng.multivariate_normal(own.mean, own.covariance, method="cholesky"))
    return np.concatenate(drawn)


@lru_cache(maxsize=4)
def calibrated(settings: Settings) -> CrossingCalibration | TrajectoryCalibration:
    """Return the model to be calibrated; kept, because building it costs more than a fit."""
    law = get_law(settings.law)
    return (TrajectoryCalibration(law, settings) if settings.model == "trajectory"
            else CrossingCalibration(law, settings))


def calibration_sweep(settings: Settings, random_seed: int) -> dict[str, Any]:
    """Draw parameters and a sweep, fit the sweep, and return the record to keep.

    Returns
    -------
    dict
        ``rows`` (columns `COLUMNS`) and ``sampling``.
    """
    model, law = calibrated(settings), get_law(settings.law)
    sweep, drawn = model.prior_draw(random_seed)
    start = time.perf_counter()
    fit = model.posterior(sweep, random_seed)
    seconds = round(time.perf_counter() - start, 3)
    reading = Reading(1024, 1, one_axis=True) if is_one_axis(sweep) else Reading()

    def everything(draws: xr.Dataset) -> dict[str, xr.DataArray]:
        logs = reading.logs(law, draws) if "S_min" in draws else {}
        return logs | {name: draws[name] for name in model.scalars}

    true, draws = everything(drawn), everything(fit["posterior"].to_dataset())
    rng = np.random.default_rng([random_seed, 1])
    rows = [[threshold, name, value, pit]
            for name in true for threshold, value, pit in ranks(true[name], draws[name], rng)]
    return {"rows": rows, "sampling": {"seconds": seconds, **worst_numbers(fit)}}


def ranks(
    true: xr.DataArray, draws: xr.DataArray, rng: np.random.Generator
) -> Iterator[tuple[float | str, float, float]]:
    """Yield threshold, true value and its rank as a probability, ties and steps made uniform.

    Parameters
    ----------
    true, draws : xarray.DataArray
        Dims chain, draw and, unless one number holds for all, threshold.
    rng : numpy.random.Generator
        Places the truth inside the step of its rank, so that a probability is uniform, not a
        multiple of 1/101.
    """
    flat = draws.stack(sample=("chain", "draw")).transpose("sample", ...).values
    thinned = flat[:: max(len(flat) // _RANKED, 1)]
    values = np.atleast_1d(true.isel(chain=0, draw=0).values)
    labels = true["threshold"].values.tolist() if "threshold" in true.dims else [""]
    below = (thinned.reshape(len(thinned), -1) < values).sum(axis=0)
    pits = (below + rng.random(len(values))) / (len(thinned) + 1)
    yield from zip(labels, values.tolist(), pits.tolist(), strict=True)


def rank_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the test of uniformity by quantity and threshold.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns `COLUMNS`, all sweeps.

    Returns
    -------
    pandas.DataFrame
        ``quantity, threshold, n, mean_pit, p_value`` of uniformity (ArviZ's ``pot_c``), and
        ``cover_50, cover_90`` with Monte Carlo errors ``*_se``: how often central intervals of
        these probabilities hold the truth.
    """
    from arviz_stats.base import array_stats

    out = []
    for (quantity, threshold), part in rows.groupby(["quantity", "threshold"], sort=False):
        pit = part["pit"].to_numpy(float)
        p_value = float(array_stats.uniformity_test(pit)[0]) if len(pit) > 1 else np.nan
        row = {"quantity": quantity, "threshold": threshold, "n": len(pit),
               "mean_pit": pit.mean(), "p_value": p_value}
        for name, probability in (("cover_50", 0.5), ("cover_90", 0.9)):
            share = np.mean(2 * np.abs(pit - 0.5) < probability)
            row |= {name: share, f"{name}_se": np.sqrt(share * (1 - share) / len(pit))}
        out.append(row)
    return pd.DataFrame(out)
