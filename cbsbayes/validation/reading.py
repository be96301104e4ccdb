"""Which quantities are compared, and at which batch: one reading for every method.

Posterior draws, bootstrap draws and moved estimates all go through
`cbsbayes.posterior.quantities`, so that no method is read by formulas of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cbsbayes.models.laws import Law, noise_in_prompts
from cbsbayes.posterior.quantities import Quantity, TriedBatches, quantities, tried_batches

__all__ = ["Reading", "reading_of"]


@dataclass(frozen=True)
class Reading:
    """The batch at which S, gains and critical batch sizes are compared.

    Attributes
    ----------
    n_prompts, n_rollouts : int
        Of two axes; the total batch and 1 where there is one.
    one_axis : bool
        Whether batches are total batches.
    """

    n_prompts: int = 128
    n_rollouts: int = 8
    one_axis: bool = False

    @property
    def tried(self) -> TriedBatches:
        """The batch and its doubles, in the form `cbsbayes.posterior.quantities` asks for."""
        p, g = self.n_prompts, self.n_rollouts
        if self.one_axis:
            return TriedBatches({}, {}, (float(p), 2.0 * p), one_axis=True)
        return TriedBatches({g: (p, 2 * p)}, {p: (g, 2 * g)}, (float(p * g),), one_axis=False,
                            cells=((p, g),))

    def label(self, quantity: Quantity) -> str:
        """Return the name used in the tables, empty for quantities that are not compared."""
        p, g = self.n_prompts, self.n_rollouts
        cell = f"total_batch={p}" if self.one_axis else f"n_prompts={p},n_rollouts={g}"
        labels = {("steps", cell): f"S({p})" if self.one_axis else f"S({p},{g})",
                  ("gain_total", cell): "gain_total", ("gain_prompts", cell): "gain_prompts",
                  ("gain_rollouts", cell): "gain_rollouts",
                  ("cbs_prompts", f"n_rollouts={g}"): f"cbs_prompts({g})",
                  **{(name, ""): name for name in ("S_min", "B_prompt", "B_rollout", "B_noise",
                                                   "alpha")}}
        return labels.get((quantity.name, quantity.at), "")

    def logs(self, law: Law, posterior: xr.Dataset) -> dict[str, xr.DataArray]:
        """Return the logarithm of every quantity compared.

        Parameters
        ----------
        law : Law
            The law of the draws.
        posterior : xarray.Dataset
            ``S_min``, the law's scales and, where free, ``alpha``; dims chain, draw, threshold.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # limits 0 and inf
            found = {self.label(q): _log(q.draws)
                     for q in quantities(law, posterior, self.tried) if self.label(q)}
            if not self.one_axis:
                found[f"N({self.n_rollouts})"] = _log(_noise(law, posterior, self.n_rollouts))
        return {name: found[name] for name in sorted(found, key=self._place)}

    def _place(self, name: str) -> int:
        order = ("S_min", "B_noise", "B_prompt", "B_rollout", "N", "S", "gain_total",
                 "gain_prompts", "gain_rollouts", "cbs_prompts", "alpha")
        return order.index(name.partition("(")[0])


def _log(values: xr.DataArray) -> xr.DataArray:
    return values.copy(data=np.log(values.values))


def _noise(law: Law, posterior: xr.Dataset, n_rollouts: int) -> xr.DataArray:
    if not law.two_axis:
        return posterior["B_noise"] / n_rollouts
    return noise_in_prompts(n_rollouts, posterior["B_prompt"], posterior["B_rollout"],
                            plain=law.plain)


def reading_of(ds: xr.Dataset) -> Reading:
    """Return the reading at the middle of the batches of a dataset."""
    tried = tried_batches(ds)
    if tried.one_axis:
        return Reading(round(tried.total[(len(tried.total) - 1) // 2]), 1, one_axis=True)
    cells = tried.cells
    groups = tried.groups or sorted({g for _, g in cells})
    group = groups[len(groups) // 2]
    prompts = sorted({p for p, g in cells if g == group})
    return Reading(prompts[(len(prompts) - 1) // 2], group)
