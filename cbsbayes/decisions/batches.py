"""What decisions share: which fit is meant, where a batch lies, and draws as columns."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import batch_axes
from cbsbayes.posterior.fit import Fit, fitted_threshold, middle_threshold
from cbsbayes.posterior.surface import LINES
from cbsbayes.posterior.tidy import quantiles
from cbsbayes.sweep.output_folder import named_files

__all__ = ["COLUMNS", "NEW_RUN", "POPULATION", "Line", "as_fit", "batches_run", "evenly",
           "find_fits", "find_row", "fitted_threshold", "interval_columns", "label_fits",
           "middle_threshold", "one_threshold", "positive", "range_of", "share_least",
           "table_of_fit"]

POPULATION, NEW_RUN = "population", "new run"
"""What a statement is about: the population of runs, or one run with an effect of its own."""
COLUMNS: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))
"""Columns of every table of decisions by the name of its CSV file."""
_JOIN = " · "  # between the parts of a group's label


def as_fit(fit: Fit | str | os.PathLike[str]) -> Fit:
    """Return the fit meant: itself, or what a folder or a fit.nc holds.

    Raises
    ------
    CBSDataError
        If it is neither, or the file is not a fit.
    """
    if isinstance(fit, str | os.PathLike):
        return Fit.load(fit)
    if not isinstance(fit, Fit):
        raise CBSDataError(f"{type(fit).__name__} is no fit; give what cbsbayes.fit(…) returned, "
                           "or the folder that python -m cbsbayes.fit wrote")
    return fit


def find_fits(paths: Sequence[Path]) -> list[Path]:
    """Return the files of all fits meant, those of a folder of several groups in their order.

    Parameters
    ----------
    paths : sequence of Path
        ``fit.nc`` files, folders that hold one, or folders whose folders do.

    Raises
    ------
    CBSDataError
        If a path holds no fit, or the same file is meant twice.
    """
    found = [path for given in paths for path in _fits_at(given)]
    places = [path.resolve() for path in found]
    for path, place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise CBSDataError(f"{path} was given twice; a fit says nothing against itself: give "
                               "each fit once")
    return found


def _fits_at(given: Path) -> list[Path]:
    if not given.exists():
        raise CBSDataError(f"{given} does not exist; give folders or fit.nc files that "
                           "python -m cbsbayes.fit wrote")
    if not given.is_dir():
        return [given]
    named = named_files(given)
    if named is None:
        inside = sorted([*given.glob("fit.nc")] or given.glob("*/fit.nc"))
    else:
        inside = [given / name for name in named if Path(name).name == "fit.nc"]
    if not inside:
        raise CBSDataError(f"{given} holds no fit.nc, nor does any folder in it; give a folder "
                           "that python -m cbsbayes.fit wrote")
    return inside


def label_fits(fits: Sequence[Fit], paths: Sequence[Path] = ()) -> list[str]:
    """Return a short name for every fit: what sets its group apart, else its folder or number.

    Parts that all group labels share are left out; where labels do not tell the fits apart the
    law, then the folder, is added.
    """
    split = [fit.group.split(_JOIN) for fit in fits]
    shared = set(split[0]).intersection(*split[1:]) if len(fits) > 1 else set()
    labels = [_JOIN.join(part for part in parts if part not in shared) for parts in split]
    laws = [_JOIN.join(filter(None, (label, fit.law.name)))
            for label, fit in zip(labels, fits, strict=True)]
    folders = [path.parent.name or str(path) if path.name == "fit.nc" else path.stem
               for path in paths] or ["fit"] * len(fits)
    for names in (labels, laws, folders):
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{k}. {folder}" for k, folder in enumerate(folders, start=1)]


def one_threshold(fit: Fit, threshold: float | None) -> float:
    """Return the fitted threshold asked for, or the middle one."""
    return middle_threshold(fit) if threshold is None else fitted_threshold(fit, threshold)


def find_row(
    table: pd.DataFrame, quantity: str, threshold: float | None = None, at: str | None = None,
) -> pd.Series | None:
    """Return the first row of a quantity in a table like ``cbs.csv``, None where there is none.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``quantity, at, threshold`` and others.
    quantity : str
        Its name.
    threshold : float, optional
        At which it holds; a row without a threshold (the exponent) holds at every one.
    at : str, optional
        What is held fixed there.
    """
    here = table["quantity"] == quantity
    if at is not None:
        here &= table["at"] == at
    if threshold is not None:
        level = table["threshold"].to_numpy(dtype=float)
        here &= np.isclose(level, threshold) | np.isnan(level)
    return table.iloc[int(here.argmax())] if here.any() else None


def positive(name: str, value: float | None) -> None:
    """Refuse a number that is not positive and finite; None, which was not given, passes.

    Raises
    ------
    CBSDataError
        With the name and the value.
    """
    if value is not None and not (np.isfinite(value) and value > 0):
        raise CBSDataError(f"{name} is {value:g}; valid: above 0 and finite")


def batches_run(runs: xr.Dataset) -> np.ndarray:
    """Return the batches that were run, sorted, shape (batch, 2).

    n_prompts and n_rollouts; one-axis data give the total batch and 1.
    """
    return np.unique(np.column_stack(batch_axes(runs)), axis=0)


def range_of(batches: ArrayLike, tried: np.ndarray) -> np.ndarray:
    """Return ``tried``, ``inside`` or ``extrapolated`` for each batch, shape (batch,).

    Inside means between the least and the largest value tried of prompts, of rollouts and of
    samples.

    Parameters
    ----------
    batches, tried : array_like
        n_prompts and n_rollouts, shape (batch, 2).
    """
    batches = np.asarray(batches, dtype=float)
    known = (batches[:, None] == tried).all(axis=-1).any(axis=1)
    values, limits = (np.column_stack([pairs, pairs.prod(axis=1)]) for pairs in (batches, tried))
    inside = ((values >= limits.min(axis=0)) & (values <= limits.max(axis=0))).all(axis=1)
    return np.where(known, "tried", np.where(inside, "inside", "extrapolated"))


def evenly(values: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many values, the first and the last among them."""
    return values[np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


@dataclass(frozen=True)
class Line:
    """Batches along one axis, the other held.

    Attributes
    ----------
    axis : {"prompts", "rollouts", "total"}
        What moves.
    fixed : int or None
        Rollouts (along prompts) or prompts (along rollouts) held fixed; None along the total.
    least : float
        The smallest value of the axis at which the law holds (2 rollouts where groups need a
        baseline).
    """

    axis: str
    fixed: int | None = None
    least: float = 0.0

    @property
    def column(self) -> str:
        """The axis as a coordinate of runs."""
        return "total_batch" if self.axis == "total" else f"n_{self.axis}"

    @property
    def held(self) -> str:
        """The other axis as a coordinate of runs, '' along the total."""
        return {"prompts": "n_rollouts", "rollouts": "n_prompts"}.get(self.axis, "")

    @property
    def at(self) -> str:
        """What is held fixed, as in the column ``at`` of tables."""
        return f"{self.held}={self.fixed}" if self.held else ""

    def batches(self, sizes: ArrayLike) -> np.ndarray:
        """Return n_prompts and n_rollouts at sizes along the line, shape (batch, 2)."""
        axes = LINES[self.axis](np.asarray(sizes, dtype=float), self.fixed or 1.0)
        return np.column_stack(np.broadcast_arrays(*axes))


def interval_columns(name: str, draws: np.ndarray, ci_prob: float) -> dict[str, np.ndarray]:
    """Return columns ``name, name_lower, name_upper``: median and interval of draws.

    Parameters
    ----------
    name : str
        Of the columns.
    draws : numpy.ndarray
        Shape (sample, …).
    ci_prob : float
        Probability of the equal-tailed interval.
    """
    found = quantiles(draws, [0.5, (1 - ci_prob) / 2, (1 + ci_prob) / 2], axis=0)
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), found, strict=True))


def share_least(values: np.ndarray) -> np.ndarray:
    """Return how often each column is the least; none is where all are infinite, shape (batch,)."""
    best = values.argmin(axis=1)[np.isfinite(values.min(axis=1))]
    return np.bincount(best, minlength=values.shape[1]) / len(values)


def table_of_fit(fit: Fit, parts: Iterable[pd.DataFrame], name: str, **shared: Any) -> pd.DataFrame:
    """Return tables below one another, with the fit's group, law and ci_prob and what is shared.

    Parameters
    ----------
    fit : Fit
        The fit.
    parts : iterable of DataFrame
        At least one.
    name : str
        Of its file, whose columns are in `COLUMNS`; one that no part has is empty.
    **shared
        Columns of one value.
    """
    return pd.concat(parts, ignore_index=True).assign(
        group=fit.group, law=fit.law.name, ci_prob=float(fit.settings["ci_prob"]), **shared,
    ).reindex(columns=COLUMNS[name])
