"""A fit with measured gradient noise as data, compared with the fit without it.

`fit_jointly` is ``python -m cbsbayes.fit --use-gradient-noise``. The joint fit is the one returned
and written; what the same runs say without the measurement stands next to it in `Fit.noise_joint`,
so that nothing is put in another's place unseen. Runs of a single batch, of which no law can be
fitted, have a joint fit only.

The table has the rows of ``cbs.csv``, the offset δ and the scatter of the measurement, and S
predicted at batches around those that were run, for the population and for one new run. Rows of
batches that were not run say so: they are extrapolated along the law.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.noise.logged import norms_at_accuracy, probes_at_accuracy
from cbsbayes.posterior.fit import Fit, table_to_json
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.quantities import Quantity, design_of, exp_of
from cbsbayes.posterior.tidy import tidy

__all__ = ["JOINT_COLUMNS", "fit_jointly", "joint_table"]

JOINT_COLUMNS = ["group", "law", "threshold", "quantity", "at", "unit", "tried", "with_median",
                 "with_lower", "with_upper", "with_status", "without_median", "without_lower",
                 "without_upper", "without_status", "ci_prob", "verdict"]
_KEY = ["threshold", "quantity", "at"]
_SIDE = {"median": "median", "ci_lower": "lower", "ci_upper": "upper", "status": "status"}
_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def fit_jointly(sweep: xr.Dataset, *, noise: bool | pd.DataFrame = True, **options: Any) -> Fit:
    """Fit one group of runs with measured gradient noise as data, and without it.

    Parameters
    ----------
    sweep : xarray.Dataset
        A sweep whose runs logged gradient noise, unless a table is given.
    noise : bool or DataFrame
        True: what the fitted runs logged, probes or else gradient norms; or a table of snapshots
        with standard errors (`cbsbayes.models.measured_noise.SNAPSHOT_COLUMNS`).
    **options
        Of `cbsbayes.posterior.fit_sweep.fit_sweep`.

    Returns
    -------
    Fit
        The joint fit; `Fit.noise_joint` compares it with the one without the measurement.

    Raises
    ------
    CBSDataError
        If no gradient noise was logged, or the runs cannot be fitted.
    """
    if not isinstance(noise, pd.DataFrame):
        if "accuracy" not in sweep:
            raise CBSDataError("a table of crossings has no curves, so the accuracy at which "
                               "gradient noise was measured is unknown; leave "
                               "--use-gradient-noise out")
        noise = _logged(sweep, options.get("metric"))
    joint = fit_sweep(sweep, noise=noise, **options)
    alone, missing = None, ""
    options.get("stage", lambda text: None)("fitting without measured noise, to compare")
    same = {"law": joint.law.name, "thresholds": np.sort(joint.thresholds).tolist(),
            "alternatives": False, "stage": lambda text: None}
    try:
        alone = fit_sweep(sweep, **{**options, **same})
    except CBSDataError as error:
        missing = str(error)
    joint.tree.attrs["table_noise_joint"] = table_to_json(joint_table(joint, alone))
    joint.tree.attrs["noise_joint_missing"] = missing
    return joint


def _logged(sweep: xr.Dataset, metric: str | None) -> pd.DataFrame:
    """Return the probes that were logged; gradient norms where there are none."""
    try:
        return probes_at_accuracy(sweep, metric)
    except CBSDataError as no_probes:
        try:
            return norms_at_accuracy(sweep, metric)
        except CBSDataError as no_norms:
            raise CBSDataError(f"{no_probes}; {no_norms}; leave --use-gradient-noise out") from None


def joint_table(joint: Fit, alone: Fit | None) -> pd.DataFrame:
    """Return quantities of both fits side by side.

    Parameters
    ----------
    joint : Fit
        With measured noise as data.
    alone : Fit, optional
        The same runs under the same law without it; None where that cannot be fitted.

    Returns
    -------
    DataFrame
        Columns `JOINT_COLUMNS`. ``tried`` is 1 where the row speaks of batches between those that
        were run, 0 where it extrapolates; ``steps`` is S of the population, ``steps_new_run`` S of
        one new run. ``verdict`` is ``agree`` (either median lies in the other's interval),
        ``differ`` (the intervals do not touch), ``not_resolved`` otherwise; empty with one side.
    """
    rows = _rows_of(joint)
    others = rows[:0] if alone is None else _rows_of(alone)
    table = rows.rename(columns={name: f"with_{side}" for name, side in _SIDE.items()}).merge(
        others[[*_KEY, *_SIDE]].rename(columns={name: f"without_{side}"
                                                for name, side in _SIDE.items()}),
        on=_KEY, how="left")
    table["without_status"] = table["without_status"].fillna("")
    return table.assign(group=joint.group, law=joint.law.name, verdict=_verdicts(table),
                        ci_prob=float(joint.settings["ci_prob"]))[JOINT_COLUMNS]


def _verdicts(table: pd.DataFrame) -> np.ndarray:
    """Return ``agree``, ``differ`` or ``not_resolved`` per row; empty without both intervals."""
    low, high, middle = ({side: table[f"{side}_{name}"] for side in ("with", "without")}
                         for name in ("lower", "upper", "median"))
    known = np.isfinite([*low.values(), *high.values()]).all(axis=0)
    apart = (low["with"] > high["without"]) | (low["without"] > high["with"])
    agree = (middle["with"].between(low["without"], high["without"])
             & middle["without"].between(low["with"], high["with"]))
    return np.select([~known, apart, agree], ["", "differ", "agree"], "not_resolved")


def _rows_of(fit: Fit) -> pd.DataFrame:
    """Return one fit's rows in the order to print them."""
    stated = [Quantity(name, "", "log", fit.posterior[name])
              for name in ("noise_offset", "noise_scatter") if name in fit.posterior]
    tried: dict[str, int] = {}
    if fit.law.two_axis:  # S at batches around those that were run
        were_run = design_of(fit.crossings).batches
        around = _around(were_run, fit.law)
        found = {"steps": fit.log_steps(*np.transpose(around)),
                 "steps_new_run": fit.new_run(*np.transpose(around))}
        for b, batch in enumerate(around):
            at = f"n_prompts={batch[0]:g},n_rollouts={batch[1]:g}"
            tried[at] = int(_inside(batch, were_run))
            stated += [Quantity(name, at, "updates", exp_of(draws.isel(batch=b)))
                       for name, draws in found.items()
                       if name != "steps" or batch not in were_run]  # those are in cbs.csv
    tables = [fit.cbs]
    if stated:
        tables.append(tidy(stated, None, float(fit.settings["ci_prob"]), diagnostics=False))
    rows = pd.concat([table[[*_KEY, "unit", *_SIDE]] for table in tables], ignore_index=True)
    return rows.assign(tried=rows["at"].map(tried).fillna(1).astype(int))


def _around(were_run: Sequence[tuple[int, int]], law: Law) -> list[tuple[int, int]]:
    """Return batches a quarter to four times one that was run, along either axis.

    That one is where most batches lie on its two lines, the middle one of several.
    """
    least = 1 if law.needs_baseline_group else 0
    on_lines = [sum(p == other[0] or g == other[1] for other in were_run) for p, g in were_run]
    best = [batch for batch, n in zip(were_run, on_lines, strict=True) if n == max(on_lines)]
    prompts, rollouts = best[len(best) // 2]
    found = {(round(f * prompts), rollouts) for f in _FACTORS}
    found |= {(prompts, round(f * rollouts)) for f in _FACTORS}
    return sorted((p, g) for p, g in found if p >= 1 and g > least)


def _inside(batch: tuple[int, int], were_run: Sequence[tuple[int, int]]) -> bool:
    """Return whether a batch lies on a line between two batches that were run."""
    lines = [[other[axis] for other in were_run if other[1 - axis] == batch[1 - axis]]
             for axis in (0, 1)]
    return any(line and min(line) <= batch[axis] <= max(line) for axis, line in enumerate(lines))
