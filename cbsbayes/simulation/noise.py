r"""Gradient noise that simulated runs log, with a known offset to the noise that slows them.

A probe of P prompts and R rollouts measures |G|², tr Σ_between and tr Σ_within with errors of the
size that real probes show. With the noise spread evenly over `dimensions` directions of parameter
space, the unbiased |G|² of a batch with noise scale N (prompts) has

.. math:: \operatorname{var} = \frac{2}{d}\Big(\frac{N |G|^2}{P}\Big)^2
          + \frac{4}{d}\,\frac{N |G|^4}{P},

so that single probes far below the noise scale come out negative, as in the shipped sweep.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.simulation.sweep import levels
from cbsbayes.simulation.truth import truth_of
from cbsbayes.sweep.dataset import digest, validate
from cbsbayes.sweep.schema import AXES, VARIABLES

__all__ = ["with_gradient_noise", "with_gradient_norms"]

_TRACE = 50.0  # tr Σ_between, about constant along training in the shipped sweep


def with_gradient_noise(
    ds: xr.Dataset, *, every: int = 10, offset: float = 0.0, dimensions: float = 16.0,
    random_seed: int = 0,
) -> xr.Dataset:
    """Return a simulated sweep whose runs logged gradient noise.

    Parameters
    ----------
    ds : xarray.Dataset
        From `cbsbayes.simulation.sweep.simulate_sweep`, of a law of two axes; disturbances of its
        curves are not repeated.
    every : int
        Updates between probes; the first is before update 1.
    offset : float
        Log of measured over true noise scales.
    dimensions : float
        Directions that the noise is spread over; fewer make the measurement worse.
    random_seed : int
        Seed of the errors.

    Raises
    ------
    CBSDataError
        If the sweep was not simulated under a law of two axes, or an argument is not valid.
    """
    if every < 1 or not dimensions > 0:
        raise CBSDataError(f"every is {every} and dimensions {dimensions:g}; valid: 1 and more, "
                           "above 0")
    rng = np.random.default_rng(random_seed)
    updates = np.arange(0.0, ds["step"].values.max(), every)
    prompts, rollouts = (ds[n].values[:, None].astype(float) for n in ("n_prompts", "n_rollouts"))
    scales, divisor = _scales_at(ds, updates, offset)
    signal = _TRACE / scales["B_prompt"]
    within = scales["B_rollout"] * signal * rollouts / divisor
    whole = (scales["B_prompt"] + scales["B_rollout"] / divisor) / prompts
    spread = signal * np.sqrt((2 * whole**2 + 4 * whole) / dimensions)
    relative = np.sqrt(8.0 / (dimensions * prompts))
    sums = {"g_sq": signal + spread * rng.normal(size=signal.shape)}
    for name, value in (("tr_between", np.full_like(signal, _TRACE)), ("tr_within", within)):
        sums[name] = value * (1 + relative * rng.normal(size=signal.shape))
    sums["tr_sigma"] = rollouts * sums["tr_between"] + sums["tr_within"]
    sums["n_samples"] = np.broadcast_to(prompts * rollouts, signal.shape)
    sums["gbar_sq"] = sums["g_sq"] + sums["tr_sigma"] / sums["n_samples"]
    probed = ds.drop_dims("train_step", errors="ignore").assign(
        {f"noise_{key}": (("run", "train_step"), value,
                          {"long_name": f"simulated gradient noise: {key}", "units": "1"})
         for key, value in sums.items()})
    axis = AXES["train_step"]
    probed = probed.assign_coords(train_step=(
        axis.dims, updates + 1, {"long_name": axis.long_name, "units": axis.units}))
    probed.attrs["true_noise_offset"] = float(offset)
    return validate(probed.assign_attrs(digest=digest(probed)))


def with_gradient_norms(
    ds: xr.Dataset, *, offset: float = 0.0, dimensions: float = 64.0, random_seed: int = 0
) -> xr.Dataset:
    """Return a simulated sweep whose runs logged the norm of every update's gradient.

    Its square has the mean |G|² + tr Σ/P at the accuracy in the middle of two evaluations;
    other parameters and errors as for `with_gradient_noise`.
    """
    rng = np.random.default_rng(random_seed)
    step = ds["step"].values
    scales, divisor = _scales_at(ds, (step[1:] + step[:-1]) / 2, offset)
    signal = _TRACE / scales["B_prompt"]
    whole = (scales["B_prompt"] + scales["B_rollout"] / divisor) / ds["n_prompts"].values[:, None]
    freedom = dimensions * np.diff(step)
    norms = signal * (1 + whole * rng.chisquare(freedom, signal.shape) / freedom)
    logged = ds.assign(grad_norm_sq=(
        ("run", "step"), np.insert(norms, 0, np.nan, axis=1),
        {"long_name": VARIABLES["grad_norm_sq"].long_name,
         "units": VARIABLES["grad_norm_sq"].units}))
    logged.attrs["true_noise_offset"] = float(offset)
    return validate(logged.assign_attrs(digest=digest(logged)))


def _scales_at(
    ds: xr.Dataset, updates: np.ndarray, offset: float
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return noise scales after `updates`, shape (run, update) each, and what groups divide by."""
    truth = truth_of(ds)
    if set(truth.scales(truth.start)) != {"B_prompt", "B_rollout"}:
        raise CBSDataError(f"gradient noise is simulated in two parts; law {truth.law!r} has one")
    trained = np.broadcast_to(updates, (ds.sizes["run"], updates.size))
    level = levels(truth, ds, ds["true_run_effect"].values, trained)
    divisor = get_law(truth.law).group_divisor(ds["n_rollouts"].values[:, None].astype(float))
    return ({name: np.exp(offset) * value for name, value in truth.scales(level).items()},
            np.maximum(divisor, 1.0))
