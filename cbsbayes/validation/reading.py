"""Which quantities are compared, at which batch, and their true values in a simulated sweep.

Posterior draws, bootstrap draws and varied estimates all go through
`cbsbayes.posterior.surface`, so that no method is read by formulas of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import brentq

from cbsbayes.models.laws import Law, get_law
from cbsbayes.posterior.quantities import design_of
from cbsbayes.posterior.surface import Surface, steps_ratio
from cbsbayes.simulation.truth import Truth, mean_noise, progress_at, true_steps

__all__ = ["Reading", "reading_of", "true_logs"]

_ENDLESS = 1e12
_LOG_PROMPTS = (np.log(1e-2), np.log(1e6))  # where the true critical batch is looked for


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
    def noise_name(self) -> str:
        """Name of the noise scale in prompts at the group size."""
        return f"N({self.n_rollouts})"

    def logs(self, law: Law, posterior: xr.Dataset) -> dict[str, xr.DataArray]:
        """Return the logarithm of every quantity compared, by name.

        Parameters
        ----------
        law : Law
            The law of the draws.
        posterior : xarray.Dataset
            ``S_min``, the law's scales and, where free, ``alpha``; dims chain, draw, threshold.
        """
        p, g = self.n_prompts, self.n_rollouts
        surface = Surface(law, posterior)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # limits 0 and inf
            found = {name: _log(posterior[name]) for name in ("S_min", *law.scales)}
            if self.one_axis:
                found |= {f"S({p})": surface.log_steps(p, 1),
                          "gain_total": surface.log_steps(2 * p, 1) - surface.log_steps(p, 1)}
            else:
                here = surface.log_steps(p, g)
                found |= {self.noise_name: _log(_noise(law, g, posterior)), f"S({p},{g})": here,
                          "gain_prompts": surface.log_steps(2 * p, g) - here,
                          "gain_rollouts": surface.log_steps(p, 2 * g) - here,
                          f"cbs_prompts({g})": _log(surface.solve(steps_ratio(2.0), "prompts", g))}
            if law.alpha is None:
                found["alpha"] = _log(posterior["alpha"])
        return found


def reading_of(ds: xr.Dataset) -> Reading:
    """Return the reading at the middle of the batches of a dataset."""
    design = design_of(ds)
    if design.one_axis:
        return Reading(round(design.total[(len(design.total) - 1) // 2]), 1, one_axis=True)
    groups = design.groups or sorted({g for _, g in design.cells})
    group = groups[len(groups) // 2]
    prompts = sorted({p for p, g in design.cells if g == group})
    return Reading(prompts[(len(prompts) - 1) // 2], group)


def true_logs(truth: Truth, threshold: float, reading: Reading) -> dict[str, float]:
    """Return the logarithms of the true quantities at one threshold.

    S at batches, gains and the critical batch come from integrating the training, at any exponent
    and with ceilings; noise scales are averages over progress. A quantity that this truth does not
    have (B_prompt where only the total batch counts) is absent.

    Parameters
    ----------
    truth : Truth
        Of the simulated sweep.
    threshold : float
        Target, on the scale of the validation set where one is fixed.
    reading : Reading
        The batch of two axes at which quantities are stated.
    """
    p, g = reading.n_prompts, reading.n_rollouts
    law, means = get_law(truth.law), mean_noise(truth, threshold)
    here, more_prompts, more_rollouts, endless = np.log(true_steps(
        truth, [p, 2 * p, p, _ENDLESS], [g, g, 2 * g, g], threshold)).tolist()

    def above_critical(log_prompts: float) -> float:
        steps = true_steps(truth, np.exp(log_prompts), g, threshold)
        return float(np.log(steps)) - endless - np.log(2.0)

    found = all(above_critical(end) * sign > 0 for end, sign in zip(_LOG_PROMPTS, (1, -1),
                                                                    strict=True))
    values = {"S_min": float(np.log(progress_at(truth, threshold))), f"S({p},{g})": here,
              "gain_prompts": more_prompts - here, "gain_rollouts": more_rollouts - here,
              f"cbs_prompts({g})": brentq(above_critical, *_LOG_PROMPTS) if found else np.nan,
              "alpha": float(np.log(truth.alpha))}
    means[reading.noise_name] = _noise(law, g, means)
    return values | {name: float(np.log(value)) for name, value in means.items()}


def _log(values: xr.DataArray) -> xr.DataArray:
    return values.copy(data=np.log(values.values))


def _noise(law: Law, n_rollouts: int, scales: Any) -> Any:
    """Return the noise scale in prompts at a group size."""
    if not law.two_axis:
        return scales["B_noise"] / n_rollouts
    return law.noise_in_prompts(n_rollouts, scales["B_prompt"], scales["B_rollout"])
