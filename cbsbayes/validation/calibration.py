"""Simulation-based calibration: whether prior, data and sampler of a model fit together.

Parameters are drawn from the prior, a sweep from the parameters, and the parameters' ranks among
posterior draws given that sweep are uniform where all three do (Talts et al. 2018 [1]_). A model
takes part by two methods, `cbsbayes.validation.models.CalibratedModel`. Uniformity is judged per
quantity and threshold by ArviZ's test.

Of the crossing model, crossings are drawn exactly, without evaluations between which they hide and
without an end of runs: which of two bounds the model drops as implied by the other depends on the
data, and ranks would then measure that rule. Censoring is what the coverage studies are for.

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
from cbsbayes.inference.sampling import sample_crossings, sample_prior
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.laws import Law, get_law
from cbsbayes.posterior.law_fit import new_runs, replicate_log_steps
from cbsbayes.simulation.designs import design_table
from cbsbayes.sweep.dataset import is_one_axis, new_sweep
from cbsbayes.validation.coverage import Settings, numbers
from cbsbayes.validation.models import CalibratedModel, PriorDraw, with_checks
from cbsbayes.validation.reading import Reading
from cbsbayes.validation.sbc_trajectory import TrajectoryCalibration

__all__ = ["COLUMNS", "CrossingCalibration", "calibrated", "calibration_sweep", "rank_table",
           "ranks"]

COLUMNS = ("threshold", "quantity", "truth", "pit")
"""Of a finished sweep's rows; threshold is empty for what holds at all of them."""

_RANKED = 100  # posterior draws that a truth is ranked among, thinned to be nearly independent
_PRIOR_DRAWS = 256  # drawn at once


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

    def prior_draw(self, random_seed: int) -> PriorDraw:
        """Return parameters drawn from the prior, and a table of crossings drawn from them."""
        block, position = divmod(random_seed, _PRIOR_DRAWS)
        drawn = self._prior(block).isel(draw=[position])
        rng = np.random.default_rng([random_seed, 0])
        stacked = new_runs(drawn.stack(sample=("chain", "draw")), self._data, self._law)
        log_steps = replicate_log_steps(stacked, self._data, rng)[0]
        steps = ("run", "threshold"), np.exp(log_steps)
        return PriorDraw(self._design.assign(lower=steps, upper=steps), drawn)

    def posterior(self, sweep: xr.Dataset, random_seed: int) -> xr.Dataset:
        """Return posterior draws given crossings, under the very prior of `prior_draw`."""
        sampler = self._settings.sampler(random_seed)
        return with_checks(sample_crossings(self._model_data(sweep), self._law, sampler))

    def _model_data(self, crossings: xr.Dataset) -> CrossingData:
        """Return the model's arrays with S in updates: its scale must not follow the data."""
        data = crossing_data(crossings, self._law)
        shift = data.log_steps_scale
        return replace(data, log_steps_scale=0.0, log_lower=data.log_lower + shift,
                       log_upper=data.log_upper + shift, midpoint=data.midpoint + shift)


@lru_cache(maxsize=4)
def calibrated(settings: Settings) -> CalibratedModel:
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
    drawn = model.prior_draw(random_seed)
    start = time.perf_counter()
    posterior = model.posterior(drawn.sweep, random_seed)
    seconds = round(time.perf_counter() - start, 3)
    reading = Reading(1024, 1, one_axis=True) if is_one_axis(drawn.sweep) else Reading()

    def everything(draws: xr.Dataset) -> dict[str, xr.DataArray]:
        logs = reading.logs(law, draws) if "S_min" in draws else {}
        return logs | {name: draws[name] for name in model.scalars}

    true, draws = everything(drawn.parameters), everything(posterior)
    rng = np.random.default_rng([random_seed, 1])
    rows = [[threshold, name, value, pit]
            for name in true for threshold, value, pit in ranks(true[name], draws[name], rng)]
    return {"rows": rows, "sampling": {"seconds": seconds, **numbers(posterior.attrs)}}


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
