r"""What one new run adds to the typical one: its own effect and what is left over.

A typical run takes S of the law. One new run at the same batch takes
:math:`\log S + u + \varepsilon`, with u drawn from the spread of runs and ε the residual of the
threshold. Both are read off the fit's replicates, so that they are those of the model fitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cbsbayes.surface import Surface

if TYPE_CHECKING:
    from cbsbayes.result import Fit

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
        gets there.
    """
    batches = _batches(fit)
    typical = surface.log_steps(*batches).transpose("sample", "run").values
    steps = fit.predictive["steps"].sel(threshold=threshold, method="nearest")
    replicated = np.log(steps.transpose("sample", "run").values)
    return replicated - typical


def _batches(fit: Fit) -> tuple[xr.DataArray, xr.DataArray]:
    one_axis = (fit.crossings["n_prompts"].values < 0).any()
    prompts = fit.crossings["total_batch" if one_axis else "n_prompts"].values.astype(float)
    rollouts = np.ones_like(prompts) if one_axis else fit.crossings["n_rollouts"].values
    return (xr.DataArray(prompts, dims="run"),
            xr.DataArray(np.asarray(rollouts, dtype=float), dims="run"))
