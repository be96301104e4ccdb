r"""What one new run adds to the typical one: its own effect and what is left over.

A typical run takes S of the law. One new run at the same batch takes
:math:`\log S + u + \varepsilon`, with u drawn from the spread of runs and ε the residual of the
threshold. Both are read off the fit's replicates, so that they are those of the model fitted.
What is predicted is the crossing as it would be observed: ε holds the noise of evaluations too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cbsbayes.posterior.surface import Surface

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["new_run_noise"]


def new_run_noise(fit: Fit, surface: Surface, threshold: float) -> np.ndarray:
    """Return draws of log S of a new run minus that of a typical one, shape (sample, run).

    Parameters
    ----------
    fit : Fit
        The fit; its replicates hold a new run at the batch of every run fitted.
    surface : Surface
        Of the same draws as the replicates, one threshold, dim ``sample``.
    threshold : float
        One that was fitted.

    Returns
    -------
    numpy.ndarray
        As many columns as runs: all are draws from one spread, infinite where a replicate never
        gets there. Where the typical run never does, the draw's other columns stand in.
    """
    batches = _batches(fit)
    typical = surface.log_steps(*batches).transpose("sample", "run").values
    steps = fit.predictive["steps"].sel(threshold=threshold, method="nearest")
    replicated = np.log(steps.transpose("sample", "run").values)
    never = np.isinf(typical)
    if not never.any():
        return replicated - typical
    return _stood_in(np.where(never, np.inf, replicated - np.where(never, 0.0, typical)), never)


def _stood_in(off: np.ndarray, never: np.ndarray) -> np.ndarray:
    """Return the columns, (sample, run), those that never arrive filled with others of the row."""
    own = np.arange(never.shape[1])
    arriving = np.argsort(never, axis=1, kind="stable")
    count = np.maximum((~never).sum(axis=1, keepdims=True), 1)
    others = np.take_along_axis(arriving, own % count, axis=1)
    return np.take_along_axis(off, np.where(never, others, own), axis=1)


def _batches(fit: Fit) -> tuple[xr.DataArray, xr.DataArray]:
    one_axis = (fit.crossings["n_prompts"].values < 0).any()
    prompts = fit.crossings["total_batch" if one_axis else "n_prompts"].values.astype(float)
    rollouts = np.ones_like(prompts) if one_axis else fit.crossings["n_rollouts"].values
    return (xr.DataArray(prompts, dims="run"),
            xr.DataArray(np.asarray(rollouts, dtype=float), dims="run"))
