"""Which law the runs of a group allow: the axes they vary and their estimator decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, get_law
from cbsbayes.sweep.dataset import is_one_axis
from cbsbayes.sweep.groups import without_baseline

__all__ = ["LawChoice", "choose_law"]


@dataclass(frozen=True)
class LawChoice:
    """A law and the sentence that says why it is fitted."""

    law: Law
    reason: str


def choose_law(ds: xr.Dataset, name: str = "auto") -> LawChoice:
    """Return the law to fit to the runs of a group.

    Where only prompts vary, the total-batch law is the two-axis law of exponent 1, its B_noise
    N·n_rollouts. Where only rollouts vary it is not: S falls with 1/(G - 1), and towards
    S_min (1 + B_prompt/P) instead of S_min. The two-axis law then tells what rollouts buy and the
    rollout CBS, though its two scales and S_min stay bounds at
    best.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs that will be fitted.
    name : str
        A law's name, or ``auto``: the varied axes decide.

    Raises
    ------
    CBSDataError
        If the named law needs axes that the data do not have.
    """
    one_axis = is_one_axis(ds)
    if name != "auto":
        law = get_law(name)
        if law.two_axis and one_axis:
            raise CBSDataError(f"law {name!r} needs n_prompts and n_rollouts, the data give only "
                               "total_batch; valid: total, power")
        return LawChoice(law, f"The {law.name} law was asked for.")
    if one_axis:
        return LawChoice(get_law("total"), "The data give total batches only: the total-batch law.")
    prompts = len(np.unique(ds["n_prompts"].values))
    rollouts = len(np.unique(ds["n_rollouts"].values))
    if rollouts == 1:
        return LawChoice(get_law("total"), "Only n_prompts varies: the total-batch law. B_prompt "
                         "and B_rollout cannot be told apart at one n_rollouts.")
    return _two_axis(group_baseline=not without_baseline(ds), prompts_vary=prompts > 1)


def _two_axis(*, group_baseline: bool, prompts_vary: bool) -> LawChoice:
    what = "Prompts and rollouts both vary" if prompts_vary else "Only n_rollouts varies"
    reason = f"{what}: the two-axis law, its exponent free"
    reason += "." if group_baseline else ", in 1/G because the estimator has no group baseline."
    if not prompts_vary:
        reason += (" B_prompt, B_rollout and S_min cannot be told apart at one n_prompts; what "
                   "rollouts buy can.")
    return LawChoice(get_law("two_axis_free" if group_baseline else "two_axis_free_plain"), reason)
