"""A fit with measured gradient noise as data, with the fit without it beside.

`fit_jointly` is ``python -m cbsbayes.fit --use-gradient-noise``. The joint fit is the one returned
and written; what the same runs say without the measurement stands beside it in `Fit.noise_joint`,
so that nothing is put in another's place unseen. Runs of a single batch, of which no law can be
fitted, have a joint fit only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.measured_noise import MIN_ROLLOUTS
from cbsbayes.posterior.tidy import interval
from cbsbayes.sweep.dataset import is_one_axis
from cbsbayes.sweep.groups import LawChoice, without_baseline

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["LARGE_OFFSET", "LEAST_BATCHES", "fit_jointly", "joint_laws", "measured_table",
           "noise_cautions", "with_parts"]

LEAST_BATCHES = 1  # one batch and measured noise already say something of the others
LARGE_OFFSET = 1.0  # beyond it curves and gradients disagree


def fit_jointly(sweep: xr.Dataset, *, noise: bool | pd.DataFrame = True, **options: Any) -> Fit:
    """Fit one group of runs with measured gradient noise as data, and without it beside.

    Parameters
    ----------
    sweep : xarray.Dataset
        A sweep whose runs logged gradient noise, unless a table is given.
    noise : bool or DataFrame
        True: what the fitted runs logged; or a table of snapshots with standard errors
        (`cbsbayes.models.measured_noise.SNAPSHOT_COLUMNS`).
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
    from cbsbayes.posterior.fit import table_to_json
    from cbsbayes.posterior.fit_sweep import fit_sweep
    from cbsbayes.posterior.joint_table import joint_table

    joint = fit_sweep(sweep, use_gradient_noise=noise, **options)
    plain, missing = None, ""
    stage = options.get("stage", lambda text: None)
    stage("fitting without measured noise, to lay beside")
    same: dict[str, Any] = {"law": joint.law.name, "thresholds": np.sort(joint.thresholds).tolist(),
                            "beside": False, "stage": lambda text: None}
    try:
        plain = fit_sweep(sweep, **{**options, **same})
    except CBSDataError as error:
        missing = str(error)
    joint.tree.attrs["table_noise_joint"] = table_to_json(joint_table(joint, plain))
    joint.tree.attrs["noise_joint_missing"] = missing
    return joint


def measured_table(
    ds: xr.Dataset, metric: str | None, noise: bool | pd.DataFrame
) -> pd.DataFrame | None:
    """Return the probes of the runs to be fitted, the table given, or None where none is wanted.

    Raises
    ------
    CBSDataError
        If noise is wanted and these runs logged none, or have no curves to place it on.
    """
    if isinstance(noise, pd.DataFrame):
        return noise
    if not noise:
        return None
    from cbsbayes.noise.probes import probes_at_accuracy

    if "accuracy" not in ds:
        raise CBSDataError("a table of crossings has no curves, so the accuracy at which gradient "
                           "noise was measured is unknown; leave --use-gradient-noise out")
    return probes_at_accuracy(ds, metric)


def with_parts(choice: LawChoice, asked: str, ds: xr.Dataset, noise: pd.DataFrame) -> LawChoice:
    """Return the two-axis law where noise measured in two parts allows it at one group size.

    Parameters
    ----------
    choice : LawChoice
        What the axes varied allow.
    asked : str
        The law asked for; only ``auto`` is changed.
    ds : xarray.Dataset
        The runs to be fitted.
    noise : DataFrame
        From `measured_table`.
    """
    groups = noise["n_rollouts"] >= MIN_ROLLOUTS
    parts = noise.loc[groups, ["tr_between", "tr_within"]].notna().all(axis=1).any()
    if asked != "auto" or choice.law.two_axis or is_one_axis(ds) or not parts:
        return choice
    ending = "_plain" if without_baseline(ds) else ""
    return LawChoice(get_law(f"two_axis_free{ending}"), "Gradient noise was measured between and "
                     "within prompts: the two-axis law, its exponent free.")


def joint_laws(law: Law, names: list[str]) -> list[str]:
    """Return the laws that the same measurement serves: those of the same scales."""
    return [name for name in names
            if get_law(name).scales == law.scales and get_law(name).plain == law.plain]


def noise_cautions(posterior: xr.Dataset, constants: xr.Dataset, n_batches: int) -> list[str]:
    """Return what to know of a joint fit, a sentence each; nothing where there was no noise."""
    if "noise_offset" not in posterior:
        return []
    delta = posterior["noise_offset"].values.reshape(-1)
    low, high = interval(delta, 0.9)
    offset = (f"measured noise is exp(δ) times the fitted one, δ = {np.median(delta):.2f} (90 % "
              f"from {low:.2f} to {high:.2f})")
    out = [f"Gradient noise is data of this fit: {offset}."]
    if abs(np.median(delta)) > LARGE_OFFSET:
        out = [f"Curves and gradients disagree: {offset}, beyond {LARGE_OFFSET:g}; prefer the fit "
               "without it."]
    probed = constants["noise_probes"].values > 0
    resolved = constants["noise_resolved"].values[probed] == 1
    if not resolved.all():
        out.append(f"In {np.sum(~resolved)} of {len(resolved)} accuracy ranges the measured |G|² "
                   "is not told from zero: they bound the noise from below only.")
    if n_batches < 3:
        out.append(f"The runs have {n_batches} batch size(s): S at other batches rests on the "
                   "measured noise, its offset's prior and the exponent's.")
    return out
