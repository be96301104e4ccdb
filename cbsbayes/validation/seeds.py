"""Real seeds: one run of every batch redrawn, all runs as the reference.

Real runs have no known truth, but where a batch was run with many seeds, one seed of each makes a
sweep, and the log fit of all of them says what it should have found. Whatever real runs do that no
simulation thought of is in these intervals. The log fit takes exponent 1 where the law leaves it
free: then only S at the middle batch and what doubling buys are compared, which depend little on
it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.thresholds import batch_labels
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.sweep.groups import group_names
from cbsbayes.validation.coverage import Settings, fitted_runs, interval_rows
from cbsbayes.validation.least_squares_intervals import log_estimates
from cbsbayes.validation.reading import Reading, reading_of

__all__ = ["check_table", "redraw", "redrawn_sweep", "reference_values"]


def check_table(ds: xr.Dataset, name: str) -> None:
    """Refuse a sweep whose seeds cannot be redrawn.

    Parameters
    ----------
    ds : xarray.Dataset
        The sweep.
    name : str
        Of its file, for the message.

    Raises
    ------
    CBSDataError
        If it holds several groups of runs, or no batch that was run more than once.
    """
    groups, labels = group_names(ds), batch_labels(ds)
    if len(groups) > 1:
        raise CBSDataError(f"{name} holds {len(groups)} groups of runs ({'; '.join(groups)}); "
                           "seeds are redrawn within one: give a file of one group")
    if np.bincount(labels[labels >= 0], minlength=1).max() < 2:
        raise CBSDataError(f"{name} holds at most one run of each batch; redrawing seeds needs "
                           "batches that were run several times")


def redraw(ds: xr.Dataset, random_seed: int) -> xr.Dataset:
    """Return one run of every batch, drawn anew."""
    labels = batch_labels(ds)
    rng = np.random.default_rng(random_seed)
    return ds.isel(run=[int(rng.choice(np.flatnonzero(labels == label)))
                        for label in np.unique(labels[labels >= 0])])


def reference_values(
    ds: xr.Dataset, settings: Settings, reading: Reading
) -> dict[float, dict[str, float]]:
    """Return the logarithms of what all seeds give by the log fit, by threshold and quantity."""
    law = get_law(settings.law)
    found = log_estimates(find_crossings(fitted_runs(ds, law), settings.thresholds), law, reading)
    if law.alpha is None:
        found = {name: logs for name, logs in found.items() if name.startswith(("S(", "gain_"))}
    values = {t: {name: float(logs[k]) for name, logs in found.items() if np.isfinite(logs[k])}
              for k, t in enumerate(settings.thresholds)}
    if not any(values.values()):
        raise CBSDataError("all seeds together give the log fit nothing to estimate; runs must be "
                           "seen to cross a threshold between two evaluations")
    return values


def redrawn_sweep(ds: xr.Dataset, settings: Settings, random_seed: int) -> dict[str, Any]:
    """Redraw one seed per batch, fit by every method, and return the record to keep.

    Parameters
    ----------
    ds : xarray.Dataset
        All runs.
    settings : Settings
        How sweeps are fitted.
    random_seed : int
        Of the redraw, the sampler and the bootstrap.
    """
    law, reading = get_law(settings.law), reading_of(ds)
    return interval_rows(fitted_runs(redraw(ds, random_seed), law), law, reading, settings,
                         reference_values(ds, settings, reading), random_seed)
