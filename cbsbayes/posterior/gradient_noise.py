"""What measured gradient noise as data changes in a fit: its law, alternative laws and cautions.

`cbsbayes.noise.joint.fit_jointly` lays the fit without the measurement next to such a fit.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.law_choice import LawChoice
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.measured_noise import MIN_ROLLOUTS
from cbsbayes.posterior.tidy import interval
from cbsbayes.sweep.dataset import is_one_axis
from cbsbayes.sweep.groups import without_baseline

__all__ = ["LARGE_OFFSET", "LEAST_BATCHES", "joint_laws", "noise_cautions", "noise_of_runs",
           "with_parts"]

LEAST_BATCHES = 1  # one batch and measured noise already say something of the others
LARGE_OFFSET = 1.0  # beyond it curves and gradients disagree


def noise_of_runs(noise: pd.DataFrame, ds: xr.Dataset) -> pd.DataFrame:
    """Return the probes of the runs to be fitted; of snapshots, which name no runs, all.

    Raises
    ------
    CBSDataError
        If these runs have none.
    """
    if "run" not in noise:
        return noise
    kept = noise[noise["run"].isin(ds["run"].values)]
    if kept.empty:
        raise CBSDataError("no gradient noise was logged by the runs fitted; switch the probe on "
                           "during training, or leave --use-gradient-noise out")
    return kept


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
        From `noise_of_runs`.
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
            if (get_law(name).scales, get_law(name).group_baseline)
            == (law.scales, law.group_baseline)]


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
