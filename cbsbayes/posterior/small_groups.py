r"""Whether the runs' curves say that small groups saturate lower, before any such model is fitted.

The question is put to the data as the model that has ceilings would: a normal approximation of its
posterior (`cbsbayes.inference.trajectory`) gives λ of :math:`f(G) = e^{-\lambda/G}`, the share of
endless groups' gain that a group of G can reach, and its spread. Alarm is raised where λ is
positive by so many spreads that it hardly happens by chance. It takes no sampling. Runs of one
n_prompts are not asked: there a lower ceiling and a larger noise scale look alike. Of those, and
of a table of crossings, all that can be said is who never arrived.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from cbsbayes.crossings.rules import RIGHT
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.trajectory import find_laplace
from cbsbayes.models.laws import Law
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.variables import SATURATION
from cbsbayes.posterior.ceiling_option import OPTION

__all__ = ["ALARM", "ceiling_loss", "small_group_caution"]

ALARM = 2.0  # spreads of λ above 0; what it misses and what it raises falsely was counted


def ceiling_loss(fitted: xr.Dataset, law: Law, metric: str | None) -> tuple[float, float] | None:
    """Return λ and its spread; None where the runs have nothing to say about it.

    Parameters
    ----------
    fitted : xarray.Dataset
        The runs fitted, and only those.
    law : Law
        The law fitted.
    metric : str or None
        Validation set.
    """
    if not law.two_axis or any(len(np.unique(fitted[axis].values)) < 2
                               for axis in ("n_prompts", "n_rollouts")):
        return None
    try:
        data = trajectory_data(fitted, law, metric)
        found = find_laplace(TrajectoryParameters(data, law, ceiling_by_group=True))
    except (CBSDataError, np.linalg.LinAlgError):  # no curves, or none that the model can follow
        return None
    j = found.parameters.slices[SATURATION].start
    return float(found.mode[j]), float(np.hypot.reduce(found.root[j]))


def small_group_caution(
    fitted: xr.Dataset, law: Law, metric: str | None, crossings: xr.Dataset | None = None
) -> list[str]:
    """Return one sentence where small groups seem to saturate lower, else none.

    Parameters
    ----------
    fitted, law, metric
        As of `ceiling_loss`.
    crossings : xarray.Dataset, optional
        The runs' crossings, which are asked where curves have nothing to say: there it is told
        if only small groups fail the hardest threshold.
    """
    found = ceiling_loss(fitted, law, metric)
    if found is None and crossings is not None:
        return _unreached(crossings)
    if found is None or found[0] < ALARM * found[1]:
        return []
    smallest = int(fitted["n_rollouts"].values.min())
    reach = float(np.exp(-found[0] / smallest))
    return [f"Small groups seem to saturate lower: the curves say that groups of {smallest} can "
            f"gain about {reach:.2f} of what endless groups can (λ {found[0]:.2f}, spread "
            f"{found[1]:.2f}). This fit takes that for a larger B_rollout, and its intervals for "
            "rollouts are then too narrow; a ceiling for every group size is fitted by "
            f"python -m cbsbayes.fit SWEEP --model trajectory {OPTION}."]


def _unreached(crossings: xr.Dataset) -> list[str]:
    """Return one sentence where only small groups fail the hardest threshold, else none."""
    rollouts = crossings["n_rollouts"].values
    if (rollouts < 1).any() or len(np.unique(rollouts)) < 2:
        return []
    from_easy = crossings["status"].transpose("run", "threshold").values
    hardest = -1 if crossings.attrs.get("direction") != "decreasing" else 0
    failed = from_easy[:, hardest] == RIGHT
    if not failed.any() or rollouts[failed].max() >= np.median(rollouts):
        return []
    return [f"Only runs with n_rollouts ≤ {rollouts[failed].max()} never reached the hardest "
            "threshold: small groups may saturate lower, which reads like a larger noise scale."]
