"""Real seeds: one run of every batch redrawn, all runs as the reference.

Real runs have no known truth, but where a batch was run with many seeds, one seed of each makes a
sweep, and the log fit of all of them says what it should have found. Whatever real runs do that no
simulation thought of is in these intervals. The log fit takes exponent 1 where the law leaves it
free: then only S at the middle batch and what doubling buys are compared, which hardly lean on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.thresholds import batch_labels, choose_thresholds
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.sweep.groups import choose_law, group_names
from cbsbayes.validation.coverage import Settings, fitted_runs, interval_rows
from cbsbayes.validation.least_squares import log_estimates
from cbsbayes.validation.reading import Reading, reading_of

__all__ = ["read_table", "redraw", "redrawn_sweep", "reference_values", "table_law",
           "table_thresholds"]

_LEAST_SEEDS = 2


def read_table(path: Path) -> xr.Dataset:
    """Return the sweep in a file: netCDF of `cbsbayes.ingest`, or a table it reads.

    Raises
    ------
    CBSDataError
        If it holds several groups of runs, or no batch that was run more than once.
    """
    from cbsbayes.ingest import ingest
    from cbsbayes.sweep.files import read_sweep

    ds = read_sweep(path) if path.suffix == ".nc" else ingest([str(path)])
    groups = group_names(ds)
    if len(groups) > 1:
        raise CBSDataError(f"{path} holds {len(groups)} groups of runs ({'; '.join(groups)}); "
                           "seeds are redrawn within one: give a file of one group")
    counts = np.unique(batch_labels(ds)[batch_labels(ds) >= 0], return_counts=True)[1]
    if counts.size == 0 or counts.max() < _LEAST_SEEDS:
        raise CBSDataError(f"{path} holds at most one run of each batch; redrawing seeds needs "
                           "batches that were run several times")
    return ds


def table_law(ds: xr.Dataset, name: str) -> str:
    """Return the name of the law to fit: the one asked for, or ``auto`` decided by the axes."""
    return choose_law(ds, name).law.name


def table_thresholds(ds: xr.Dataset, given: Sequence[float] | None) -> tuple[float, ...]:
    """Return the thresholds asked for, or those that enough batches cross."""
    return tuple(given or choose_thresholds(ds).tolist())


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
    true = reference_values(ds, settings, reading)
    return interval_rows(fitted_runs(redraw(ds, random_seed), law), law, reading, settings, true,
                         random_seed)
