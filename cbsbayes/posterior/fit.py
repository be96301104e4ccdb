"""The result of a fit: one object from which every table, figure and page is made.

A thin reading of one DataTree, which holds draws, crossings, the sweep, tables and settings.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.errors import CBSDataError, one_line
from cbsbayes.models.laws import LAWS, Law, get_law, run_axes
from cbsbayes.posterior.surface import Condition, Surface
from cbsbayes.sweep.files import read_tree, write_tree

__all__ = ["THINNED", "Fit", "fitted_threshold", "middle_threshold", "stacked",
           "table_to_json", "thinned", "versions"]

THINNED = 1000  # draws kept where draws are multiplied by runs, batches or thresholds
_PACKAGES = ("pymc", "pytensor", "nutpie", "arviz-stats", "xarray", "numpy", "scipy")
_SUMMARY = ["quantity", "at", "unit", "median", "ci_lower", "ci_upper", "status"]


def versions() -> dict[str, str]:
    """Return versions of everything that a number may depend on, Python's first."""
    ours = {"python": platform.python_version(), "cbsbayes": version("cbsbayes")}
    return ours | {name: version(name) for name in _PACKAGES}


def thinned(draws: xr.Dataset, most: int = THINNED) -> xr.Dataset:
    """Return at most about `most` draws, evenly from all chains."""
    total = draws.sizes["chain"] * draws.sizes["draw"]
    return draws.isel(draw=slice(None, None, max(1, round(total / most))))


def stacked(draws: xr.Dataset) -> xr.Dataset:
    """Return draws with chain and draw as one dim ``sample``."""
    return draws.stack(sample=("chain", "draw"), create_index=False).transpose("sample", ...)


def table_to_json(table: pd.DataFrame) -> str:
    """Return a table as JSON text; floats keep every digit, NaN stays NaN."""
    return json.dumps({name: table[name].tolist() for name in table.columns})


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted group of runs.

    Attributes
    ----------
    tree : xarray.DataTree
        Groups ``posterior, sample_stats, prior, posterior_predictive, prior_predictive,
        log_likelihood, observed_data, constant_data, sweep``; attributes hold settings,
        verdict and tables as JSON.
    """

    tree: xr.DataTree

    @property
    def group(self) -> str:
        """Label of the runs fitted together."""
        return str(self.tree.attrs["group"])

    @property
    def law(self) -> Law:
        """The law fitted."""
        return get_law(str(self.tree.attrs["law"]))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that was asked for, and versions."""
        return json.loads(self.tree.attrs["settings"])

    @cached_property
    def verdict(self) -> dict[str, Any]:
        """Of `cbsbayes.posterior.verdict.verdict`."""
        return json.loads(self.tree.attrs["verdict"])

    @cached_property
    def posterior(self) -> xr.Dataset:
        """Posterior draws, dims (chain, draw, threshold, run)."""
        return self.tree["posterior"].to_dataset()

    @cached_property
    def prior(self) -> xr.Dataset:
        """Prior draws of the same quantities."""
        return self.tree["prior"].to_dataset()

    @cached_property
    def sweep(self) -> xr.Dataset:
        """All runs of the group, those left out included."""
        return self.tree["sweep"].to_dataset()

    @cached_property
    def crossings(self) -> xr.Dataset:
        """Crossing intervals of the runs fitted, dims (run, threshold)."""
        return self.tree["observed_data"].to_dataset()

    @property
    def thresholds(self) -> np.ndarray:
        """Targets from easy to hard, shape (threshold,)."""
        return self.posterior["threshold"].values

    @cached_property
    def predictive(self) -> xr.Dataset:
        """Replicated ``steps`` (updates), dims (sample, run, threshold)."""
        return stacked(self.tree["posterior_predictive"].to_dataset())

    @cached_property
    def prior_predictive(self) -> xr.Dataset:
        """The same before seeing the data."""
        return stacked(self.tree["prior_predictive"].to_dataset())

    def _table(self, name: str) -> pd.DataFrame:
        return pd.DataFrame(json.loads(self.tree.attrs[f"table_{name}"]))

    @cached_property
    def cbs(self) -> pd.DataFrame:
        """The table of ``cbs.csv``."""
        return self._table("cbs")

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The table of ``runs.csv``."""
        return self._table("runs")

    @cached_property
    def law_table(self) -> pd.DataFrame:
        """Laws ranked by runs left out one at a time."""
        return self._table("laws")

    @cached_property
    def averaged(self) -> pd.DataFrame:
        """A table like `cbs`, averaged over the laws by their weights in `law_table`."""
        return self._table("averaged")

    @cached_property
    def cross_check(self) -> pd.DataFrame | None:
        """A table like `cbs` by the crossing model, where another model is the fit's."""
        return self._table("cross_check") if "table_cross_check" in self.tree.attrs else None

    @cached_property
    def others(self) -> dict[str, pd.DataFrame]:
        """Tables like `cbs` of the alternative laws, of as many axes first; no diagnostics."""
        names = sorted(LAWS, key=lambda name: LAWS[name].two_axis != self.law.two_axis)
        return {name: self._table(f"other_{name}") for name in names
                if f"table_other_{name}" in self.tree.attrs}

    @cached_property
    def noise_joint(self) -> pd.DataFrame | None:
        """With and without measured noise side by side; None unless noise was data."""
        return self._table("noise_joint") if "table_noise_joint" in self.tree.attrs else None

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """The table of ``comparison.csv``: least squares and posterior.

        Raises
        ------
        CBSDataError
            If `cbsbayes.baselines.table.with_comparison` has not been applied.
        """
        if "table_comparison" not in self.tree.attrs:
            raise CBSDataError("this fit is not compared with least squares yet; use "
                               "cbsbayes.baselines.table.with_comparison(fit)")
        return self._table("comparison")

    def summary(self, threshold: float | None = None) -> pd.DataFrame:
        """Return what is known at one target: gains, critical batch sizes, scales, S_min.

        Parameters
        ----------
        threshold : float, optional
            A fitted one; the middle one unless given.

        Returns
        -------
        pandas.DataFrame
            Some rows and columns of `cbs`.

        Raises
        ------
        CBSDataError
            If the threshold was not fitted.
        """
        level = middle_threshold(self) if threshold is None else fitted_threshold(self, threshold)
        at_level = self.cbs["threshold"].isna() | np.isclose(self.cbs["threshold"], level)
        rows = self.cbs[at_level & (self.cbs["quantity"] != "steps")]
        return rows[_SUMMARY].reset_index(drop=True)

    def __repr__(self) -> str:
        """Return group, law, runs, targets and verdict in one line."""
        return (f"<cbsbayes.Fit of {one_line(self.group)}: {self.law.name}, "
                f"{self.crossings.sizes['run']} runs, thresholds "
                f"{', '.join(f'{t:g}' for t in self.thresholds)}; {self.verdict['title']}>")

    def _repr_html_(self) -> str:
        """Return the verdict and `summary` for a notebook."""
        table = self.summary().to_html(index=False, na_rep="", float_format="{:.3g}".format)
        return (f"<p><b>{escape(self.group)}</b>: {escape(self.law.formula)}, at "
                f"{middle_threshold(self):g}. {escape(self.verdict['title'])}.</p>{table}")

    def log_steps(
        self, n_prompts: ArrayLike, n_rollouts: ArrayLike, threshold: float | None = None, *,
        learning_rate: ArrayLike | None = None, draws: int = THINNED,
    ) -> xr.DataArray:
        """Return draws of log S at batches, for the population of runs.

        Parameters
        ----------
        n_prompts, n_rollouts : array_like
            Batches, shape (batch,) or one number; one-axis data pass the total batch and 1, and
            ``np.inf`` is a batch.
        threshold : float, optional
            One fitted threshold; all unless given.
        learning_rate : array_like, optional
            Of a law that knows it, as the batches; the best rate of each unless given.
        draws : int
            Draws to use, about.

        Returns
        -------
        xarray.DataArray
            Log of updates, dims (sample, [threshold], batch); infinite where never reached.

        Raises
        ------
        CBSDataError
            If the threshold was not fitted, or the law has no value at a batch.
        """
        log_steps = self._surface(threshold, draws).log_steps(
            *self._batches(n_prompts, n_rollouts, learning_rate))
        return log_steps.rename("log_steps").transpose("sample", ..., "batch")

    def solve(
        self, condition: Condition, along: str = "prompts", at: float = 8.0, *,
        threshold: float | None = None,
    ) -> xr.DataArray:
        """Return draws of the batch where a condition on log S is met.

        Parameters
        ----------
        condition : Condition
            Of `cbsbayes.posterior.surface`, or another function of log S along the line and the
            batch that is above 0 before the batch looked for and below 0 beyond it.
        along : {"prompts", "rollouts", "total", "split"}
            What moves (`cbsbayes.posterior.surface.LINES`).
        at : float
            What is held: n_rollouts; n_prompts along ``rollouts``; the total batch along
            ``split``.
        threshold : float, optional
            As of `log_steps`.

        Returns
        -------
        xarray.DataArray
            Prompts, rollouts or samples, dims (sample, [threshold]); infinite where the condition
            holds at every batch, 0 where at none.
        """
        return self._surface(threshold, THINNED).solve(condition, along, at)

    def new_run(
        self, n_prompts: ArrayLike, n_rollouts: ArrayLike, threshold: float | None = None, *,
        learning_rate: ArrayLike | None = None, random_seed: int = 0,
    ) -> xr.DataArray:
        r"""Return draws of log S of one new run at each batch, as it would be observed.

        The population takes S of the law, a new run :math:`\log S + u + \varepsilon` with the
        effect of a run and a residual that holds the noise of evaluations too. Both are read off
        the fit's replicates, in turn from one picked at random for every draw, alike for all
        thresholds. A batch may be given several times, each is a run of its own: as often as
        there are runs, and every replicate is taken once.

        Parameters
        ----------
        n_prompts, n_rollouts, threshold, learning_rate
            As of `log_steps`.
        random_seed : int
            Picks where the replicates begin.

        Returns
        -------
        xarray.DataArray
            Log of updates, dims (sample, [threshold], batch).
        """
        given = np.stack(self._batches(n_prompts, n_rollouts, learning_rate))
        axes, again = np.unique(given, axis=1, return_inverse=True)
        rate = None if learning_rate is None else axes[2]
        log_steps = self.log_steps(axes[0], axes[1], threshold, learning_rate=rate).isel(
            batch=again.reshape(-1))
        deviation, count = self._deviations
        if threshold is not None:
            k = self._index(threshold)
            deviation, count = deviation[:, k], count[:, k]
        first = np.random.default_rng(random_seed).integers(
            deviation.shape[-1], size=(len(log_steps), *[1] * (log_steps.ndim - 1)))
        column = np.broadcast_to(first + np.arange(log_steps.shape[-1]), log_steps.shape)
        drawn = np.take_along_axis(deviation, column % np.maximum(count, 1), axis=-1)
        return log_steps.copy(data=log_steps.values + np.where(count > 0, drawn, np.inf))

    @cached_property
    def _deviations(self) -> tuple[np.ndarray, np.ndarray]:
        """Log S of replicates minus that of the law, and how many are known of each draw.

        Shapes (sample, threshold, run) and (sample, threshold, 1). Infinite where a replicate
        never reaches the threshold; where the law never does at a run's batch it is not known,
        and comes last.
        """
        order = ("sample", "threshold", "run")
        expected = self._surface(None, THINNED).log_steps(
            *(xr.DataArray(axis, dims="run") for axis in run_axes(self.law, self.crossings)))
        log_steps = expected.transpose(*order).values
        unreached = np.isinf(log_steps)
        replicated = np.log(self.predictive["steps"].transpose(*order).values)
        known_first = np.argsort(unreached, axis=-1, kind="stable")
        deviation = replicated - np.where(unreached, 0.0, log_steps)
        return (np.take_along_axis(deviation, known_first, axis=-1),
                (~unreached).sum(axis=-1, keepdims=True))

    def _surface(self, threshold: float | None, draws: int) -> Surface:
        key = (threshold, draws)
        if key not in self._surfaces:
            some = stacked(thinned(self.posterior, draws))
            if threshold is not None:
                some = some.isel(threshold=self._index(threshold))
            self._surfaces[key] = Surface(self.law, some)
        return self._surfaces[key]

    @cached_property
    def _surfaces(self) -> dict[tuple[float | None, int], Surface]:
        return {}

    def _index(self, threshold: float) -> int:
        return int(np.flatnonzero(self.thresholds == fitted_threshold(self, threshold))[0])

    def _batches(self, *given: ArrayLike | None) -> list[xr.DataArray]:
        """Return what is given of a batch with dim ``batch``, broadcast against each other."""
        axes = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, dtype=float))
                                     for v in given if v is not None))
        least = 1.0 if self.law.needs_baseline_group else 0.0
        if not ((axes[0] > 0) & (axes[1] > least)).all():
            raise CBSDataError(f"the law {self.law.name} has no value at n_prompts "
                               f"{np.min(axes[0]):g} with n_rollouts {np.min(axes[1]):g} (the "
                               f"least given); valid: above 0 and above {least:g}")
        return [xr.DataArray(axis, dims="batch") for axis in axes]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fit as one netCDF file, whole or not at all."""
        return write_tree(self.tree, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Fit:
        """Read what `save` wrote.

        Raises
        ------
        CBSDataError
            If the file is not a fit of this package, or its law had other parameters then.
        """
        place = Path(path)
        tree = read_tree(place / "fit.nc" if place.is_dir() else place)
        if "law" not in tree.attrs or "posterior" not in tree.children:
            raise CBSDataError(f"{place} is not a fit; give what python -m cbsbayes.fit wrote")
        get_law(tree.attrs["law"]).require(tree["posterior"].data_vars, str(place))
        return cls(tree)


def fitted_threshold(fit: Fit, threshold: float) -> float:
    """Return the fitted threshold that was asked for.

    Raises
    ------
    CBSDataError
        If it was not fitted; the message lists those that were.
    """
    near = np.flatnonzero(np.isclose(fit.thresholds, threshold))
    if near.size == 0:
        raise CBSDataError(f"threshold {threshold:g} was not fitted; fitted: "
                           f"{', '.join(f'{t:g}' for t in fit.thresholds)}; fit it with "
                           "python -m cbsbayes.fit --thresholds")
    return float(fit.thresholds[near[0]])


def middle_threshold(fit: Fit) -> float:
    """Return the threshold that sentences and figures are about: the middle, the upper of two."""
    ordered = sorted(fit.thresholds.tolist())
    return float(ordered[len(ordered) // 2])
