"""The posterior beside the least-squares fits that people use today."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cbsbayes.baselines import BaselineFit, comparison_rows
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.ceilings import LOSS

__all__ = ["comparison_table"]

_AXES = {"prompts": "cbs_prompts", "rollouts": "cbs_rollouts"}


def comparison_table(
    baselines: Iterable[BaselineFit], cbs: pd.DataFrame, total: pd.DataFrame | None, group: str,
    *, n_runs: int,
) -> pd.DataFrame:
    """Return the table of ``comparison.csv``.

    `B_noise` is, for every method, the batch on that axis at which S is twice its limit. The
    posterior's rows on the prompt and rollout axes are the default law's, those on the total
    batch the total-batch law's, which is the hyperbola that least squares fits. `S_min` is the
    limit of S on that axis; the posterior's stays empty where that is not the law's S_min: on the
    rollout axis of a two-axis law, and on the prompt axis where group sizes have ceilings.

    Parameters
    ----------
    baselines : iterable of BaselineFit
        Least-squares fits.
    cbs : pandas.DataFrame
        Table of the law fitted.
    total : pandas.DataFrame or None
        Table of the total-batch law, where it was fitted beside.
    group : str
        Label of the runs.
    n_runs : int
        Runs that the posterior was fitted to; all of them inform every axis.
    """
    rows = comparison_rows(baselines, group)
    axes = rows[["threshold", "axis", "at"]].drop_duplicates()
    found = [_posterior_row(cbs if total is None or axis != "total" else total, group, threshold,
                            axis, at, n_runs)
             for threshold, axis, at in axes.itertuples(index=False)]
    posterior = pd.DataFrame([row for row in found if row is not None], columns=rows.columns)
    both = pd.concat([rows, posterior], ignore_index=True) if len(posterior) else rows
    order = {axis: k for k, axis in enumerate(("total", "prompts", "rollouts"))}
    return both.sort_values(["threshold", "axis", "at"], kind="stable", ignore_index=True,
                            key=lambda c: c.map(order) if c.name == "axis" else c)


def _posterior_row(
    cbs: pd.DataFrame, group: str, threshold: float, axis: str, at: str, n_runs: int
) -> dict[str, object] | None:
    """Return the posterior's row; the numbers of a bound or of nothing stay empty as in `cbs`."""
    law = str(cbs["law"].iloc[0])
    quantity = _AXES.get(axis, "B_noise" if law == "total" else "cbs_samples")
    here = cbs[cbs["threshold"] == threshold]
    row = here[(here["quantity"] == quantity) & (here["at"] == at)]
    if row.empty:
        return None
    s_min = here[here["quantity"] == "S_min"]["median"].iloc[0]
    by_group = LOSS in set(cbs["quantity"])
    if get_law(law).two_axis and (axis == "rollouts" or by_group):
        s_min = np.nan
    return {"group": group, "threshold": threshold, "axis": axis, "at": at, "method": "posterior",
            "S_min": float(s_min), "B_noise": float(row["median"].iloc[0]),
            "ci_lower": float(row["ci_lower"].iloc[0]), "ci_upper": float(row["ci_upper"].iloc[0]),
            "n_runs_used": n_runs, "n_runs_dropped": 0, "r2": float("nan")}
