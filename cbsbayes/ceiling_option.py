"""Whether ceilings by group size can be fitted, and the option's name where it is spoken of."""

from __future__ import annotations

import numpy as np

from cbsbayes.errors import CBSDataError
from cbsbayes.laws import Law

__all__ = ["OPTION", "check_ceilings"]

OPTION = "--ceiling-by-group"


def check_ceilings(model: str, law: Law, n_rollouts: np.ndarray | None = None) -> None:
    """Refuse what cannot have a ceiling for every group size.

    Parameters
    ----------
    model : str
        Name of the model.
    law : Law
        The law to be fitted.
    n_rollouts : numpy.ndarray, optional
        Group sizes of the runs to be fitted, where they are known already.

    Raises
    ------
    CBSDataError
        If the model has no curves, the law no group size, or all runs one group size.
    """
    if model != "trajectory":
        raise CBSDataError(f"{OPTION} was given with --model {model}, which knows no curves and so "
                           "no ceilings; use --model trajectory, or leave it out")
    if not law.two_axis:
        raise CBSDataError(f"{OPTION} was given with the law {law.name}, which has no group size; "
                           "use a two-axis law, such as --law two_axis_free, or leave it out")
    if n_rollouts is not None and len(np.unique(n_rollouts)) < 2:
        raise CBSDataError(f"{OPTION} was given, but all runs fitted have n_rollouts = "
                           f"{n_rollouts[0]:g}: one group size cannot be told from another; add "
                           "runs with other n_rollouts, or leave it out")
