r"""One answer from several laws, weighted by how well each predicts runs left out.

Weights are pseudo-BMA with the Bayesian bootstrap [1]_: over Dirichlet weights of the runs,

.. math:: w_k = E\left[\frac{\exp(n \sum_i \pi_i \, elpd_{ki})}
          {\sum_l \exp(n \sum_i \pi_i \, elpd_{li})}\right],\quad \pi \sim Dirichlet(1, …, 1),

so that two laws that the runs do not tell apart share the weight, instead of the luckier one taking
it all. A quantity's draws are then a mixture of the laws' draws: its interval holds the doubt about
the law. Noise scales and the exponent are no numbers without their law and are not averaged.

References
----------
.. [1] Yao, Vehtari, Simpson & Gelman, "Using stacking to average Bayesian predictive
   distributions", Bayesian Analysis 13 (2018), section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.models.laws import Law
from cbsbayes.posterior.quantities import Quantity
from cbsbayes.posterior.tidy import cbs_table

__all__ = ["AVERAGE", "OF_ONE_LAW", "averaged_table", "mixed_draws"]

AVERAGE = "average"
OF_ONE_LAW = ("alpha", "B_noise", "B_prompt", "B_rollout", "E_min")
"""Quantities that are no numbers without their law."""


def averaged_table(
    of_laws: Mapping[str, tuple[Law, list[Quantity], list[Quantity]]],
    weights: Mapping[str, float], *, group: str, ci_prob: float, random_seed: int = 0,
) -> pd.DataFrame:
    """Return a table like ``cbs.csv`` of quantities averaged over laws, law ``average``.

    A quantity that some law does not state (the best group size under the total-batch law) is
    averaged over those that do.

    Parameters
    ----------
    of_laws : mapping
        Law name to law, and its quantities from posterior and prior, dims (chain, draw, …).
    weights : mapping
        Of `cbsbayes.inference.loo.law_weights`.
    group : str
        Label of the runs fitted.
    ci_prob : float
        Probability of the equal-tailed intervals.
    random_seed : int
        Decides which law each draw is taken from.
    """
    posterior = _mixtures({name: after for name, (_, after, _) in of_laws.items()}, weights,
                          random_seed)
    prior = _mixtures({name: before for name, (_, _, before) in of_laws.items()}, weights,
                      random_seed)
    law = next(iter(of_laws.values()))[0]
    return cbs_table(posterior, prior, law=law, group=group, ci_prob=ci_prob).assign(law=AVERAGE)


def _mixtures(
    of_laws: Mapping[str, list[Quantity]], weights: Mapping[str, float], random_seed: int
) -> list[Quantity]:
    """Return the quantities of the first law, each a mixture over the laws that state it."""
    first, *_ = of_laws.values()
    least = min(found[0].draws.sizes["draw"] for found in of_laws.values())
    stated = {name: {(q.name, q.at): q.draws.isel(draw=slice(-least, None)) for q in found}
              for name, found in of_laws.items()}
    out = []
    for quantity in first:
        if quantity.name in OF_ONE_LAW:
            continue
        key = (quantity.name, quantity.at)
        parts = {name: found[key] for name, found in stated.items() if key in found}
        if any(weights[name] > 0 for name in parts):
            out.append(replace(quantity, draws=mixed_draws(parts, weights, random_seed)))
    return out


def mixed_draws(
    parts: Mapping[str, xr.DataArray], weights: Mapping[str, float], random_seed: int = 0
) -> xr.DataArray:
    """Return draws, each from one law taken at random; all quantities take the same ones.

    Parameters
    ----------
    parts : mapping
        Law name to draws of one quantity, dims (chain, draw, …), as many of each.
    weights : mapping
        Of `cbsbayes.inference.loo.law_weights`; not all of `parts` may have 0.
    random_seed : int
        Decides which law each draw is taken from.
    """
    odds = np.array([weights[law] for law in parts])
    by_law = [part.transpose("chain", "draw", ...) for part in parts.values()]
    values = np.stack([part.values for part in by_law])
    at_random = np.random.default_rng(random_seed).random(values.shape[1:3])
    law = np.searchsorted(np.cumsum(odds / odds.sum())[:-1], at_random, side="right")
    chain, draw = np.indices(law.shape)
    return by_law[0].copy(data=values[law, chain, draw])
