"""The true values that intervals are held to, S from the integral of the simulated training."""

from __future__ import annotations

import numpy as np

from cbsbayes.models.laws import get_law, noise_in_prompts
from cbsbayes.simulation.truth import Truth, mean_noise, progress_at, true_steps
from cbsbayes.validation.reading import Reading

__all__ = ["true_values"]

_PROMPTS = np.linspace(np.log(1e-2), np.log(1e6), 41)
_FINER = 25  # points inside the bracket; log S is smooth in log P: interpolation is exact there
_ENDLESS = 1e12


def true_values(truth: Truth, threshold: float, reading: Reading) -> dict[str, float]:
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
    here, more_prompts, more_rollouts, endless = np.log(true_steps(
        truth, [p, 2 * p, p, _ENDLESS], [g, g, 2 * g, g], threshold))
    cbs = _log_prompts_at(truth, threshold, g, np.log(2.0) + endless)
    values = {"S_min": float(np.log(progress_at(truth, threshold))), f"S({p},{g})": here,
              "gain_prompts": more_prompts - here, "gain_rollouts": more_rollouts - here,
              f"cbs_prompts({g})": cbs, "alpha": float(np.log(truth.alpha))}
    return values | _scales(truth, threshold, g)


def _log_prompts_at(truth: Truth, threshold: float, n_rollouts: int, log_steps: float) -> float:
    """Return the log n_prompts that take so many updates: found on a grid, then on a finer one."""
    grid = _PROMPTS
    for points in (_FINER, 0):
        along = np.log(true_steps(truth, np.exp(grid), n_rollouts, threshold))
        above = int(np.clip(np.sum(along > log_steps), 1, len(grid) - 1))
        if points:
            grid = np.linspace(grid[above - 1], grid[above], points)
    return float(np.interp(-log_steps, -along, grid))


def _scales(truth: Truth, threshold: float, n_rollouts: int) -> dict[str, float]:
    law, means = get_law(truth.law), mean_noise(truth, threshold)
    noise = (noise_in_prompts(n_rollouts, means["B_prompt"], means["B_rollout"], plain=law.plain)
             if law.two_axis else means["B_noise"] / n_rollouts)
    return {name: float(np.log(value)) for name, value in means.items()} | {
        f"N({n_rollouts})": float(np.log(noise))}
