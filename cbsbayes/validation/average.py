"""What a fit that averages over laws says of a sweep (`cbsbayes.posterior.averaging`)."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.inference.loo import leave_one_run_out
from cbsbayes.models.laws import Law, get_law
from cbsbayes.posterior.averaging import OF_ONE_LAW, law_weights, mixed_draws
from cbsbayes.posterior.fit_sweep import laws_beside
from cbsbayes.validation.reading import Reading

__all__ = ["averaged_logs", "fitted_beside"]

_NOISE = "N("  # a noise scale too, told of one law only


def fitted_beside(
    law: Law, own: xr.DataTree, fitted: xr.Dataset, fit: Callable[[Law], xr.DataTree]
) -> dict[str, xr.DataTree]:
    """Return the fits of a law and of those that a user's fit lays beside it, by name.

    Parameters
    ----------
    law : Law
        The law of `own`.
    own : xarray.DataTree
        Its fit.
    fitted : xarray.Dataset
        The runs.
    fit : callable
        From another law to its fit of the same runs.
    """
    return {law.name: own} | {name: fit(get_law(name)) for name in laws_beside(law, fitted)}


def averaged_logs(
    trees: dict[str, xr.DataTree], reading: Reading
) -> tuple[dict[str, xr.DataArray], dict[str, float]]:
    """Return the logarithms of what is averaged over laws, and the laws' weights.

    Parameters
    ----------
    trees : dict
        Law name to groups ``posterior`` and ``log_likelihood``, the law asked for first.
    reading : Reading
        The batch at which quantities are compared.

    Raises
    ------
    CBSDataError
        If no law has a weight.
    """
    weights = law_weights({name: leave_one_run_out(tree) for name, tree in trees.items()})
    if not any(weights.values()):
        raise CBSDataError("of no law is it known how it predicts runs left out: the importance "
                           "weights overflow")
    logs = {name: reading.logs(get_law(name), tree["posterior"].to_dataset())
            for name, tree in trees.items()}
    first, *_ = logs.values()
    told = [name for name in first if name not in OF_ONE_LAW and not name.startswith(_NOISE)]
    return {name: mixed_draws({law: found[name] for law, found in logs.items()}, weights)
            for name in told}, weights
