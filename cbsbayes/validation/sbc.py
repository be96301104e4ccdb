"""Simulation-based calibration: whether prior, data and sampler of a model fit together.

Parameters are drawn from the prior, a sweep from the parameters, and the parameters' ranks among
posterior draws given that sweep are uniform where all three do (Talts et al. 2018 [1]_). A model
takes part by two methods, `cbsbayes.validation.calibrated`. Uniformity is judged per quantity and
threshold by ArviZ's test.

References
----------
.. [1] Talts, Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian inference algorithms with
   simulation-based calibration", arXiv:1804.06788.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, get_law
from cbsbayes.validation.calibrated import CalibratedModel
from cbsbayes.validation.coverage import Settings, numbers
from cbsbayes.validation.reading import Reading
from cbsbayes.validation.sbc_crossing import CrossingCalibration
from cbsbayes.validation.sbc_trajectory import TrajectoryCalibration

__all__ = ["COLUMNS", "calibrated", "rank_table", "ranks", "sbc_sweep"]

COLUMNS = ("threshold", "quantity", "truth", "pit")
"""Of a finished sweep's rows; threshold is empty for what holds at all of them."""

_RANKED = 100  # posterior draws that a truth is ranked among, thinned to be nearly independent


_MODELS: dict[str, Callable[[Law, Settings], Any]] = {"crossing": CrossingCalibration,
                                                   "trajectory": TrajectoryCalibration}


@lru_cache(maxsize=4)
def calibrated(settings: Settings) -> CalibratedModel:
    """Return the model to be calibrated; kept, because building it costs more than a fit."""
    if settings.model not in _MODELS:
        raise CBSDataError(f"model {settings.model!r} cannot be calibrated; valid: "
                           f"{', '.join(_MODELS)}")
    return _MODELS[settings.model](get_law(settings.law), settings)


def sbc_sweep(settings: Settings, random_seed: int) -> dict[str, Any]:
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
    seconds = time.perf_counter() - start
    one_axis = bool((drawn.sweep["n_prompts"].values < 0).any())
    reading = Reading(1024, 1, one_axis=True) if one_axis else Reading()
    rng = np.random.default_rng([random_seed, 1])
    true, draws = (_everything(part, law, reading, model.scalars)
                   for part in (drawn.parameters, posterior))
    rows = [[threshold, name, float(value), pit]
            for name in true for threshold, value, pit in ranks(true[name], draws[name], rng)]
    return {"rows": rows,
            "sampling": {"seconds": round(seconds, 3), **numbers(posterior.attrs)}}


def _everything(
    posterior: xr.Dataset, law: Law, reading: Reading, scalars: tuple[str, ...]
) -> dict[str, xr.DataArray]:
    read = reading.logs(law, posterior) if "S_min" in posterior else {}
    return {**read, **{name: posterior[name] for name in scalars}}


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

    groups = rows.groupby(["quantity", "threshold"], sort=False)
    out = []
    for (quantity, threshold), part in groups:
        pit = part["pit"].to_numpy(float)
        p_value = float(array_stats.uniformity_test(pit)[0]) if len(pit) > 1 else np.nan
        away = 2 * np.abs(pit - 0.5)
        covers = {f"cover_{100 * p:.0f}": np.mean(away < p) for p in (0.5, 0.9)}
        errors = {f"{name}_se": np.sqrt(c * (1 - c) / len(pit)) for name, c in covers.items()}
        out.append({"quantity": quantity, "threshold": threshold, "n": len(pit),
                    "mean_pit": pit.mean(), "p_value": p_value, **covers, **errors})
    return pd.DataFrame(out)
