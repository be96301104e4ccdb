r"""One law fitted to the runs selected, by either model, and one answer from several laws.

Crossings of new runs are drawn with the run effect anew: a run that was observed is predicted as
if it were another run at the same batch. Predicting it with its own fitted effect would hide a
wrong law behind that effect.

Laws are averaged with pseudo-BMA weights of the Bayesian bootstrap [1]_: over Dirichlet weights of
the runs,

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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.inference.loo import run_log_likelihoods
from cbsbayes.inference.nuts import SamplerSettings
from cbsbayes.inference.sampling import (
    crossing_log_likelihoods,
    sample_crossings,
    sample_prior,
)
from cbsbayes.inference.trajectory import TrajectoryDraws, sample_curves
from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData, crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.measured_noise import noise_data
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import TrajectoryData, trajectory_data
from cbsbayes.models.trajectory_read import read_thresholds, replicated_log_steps
from cbsbayes.posterior.fit import stacked, thinned
from cbsbayes.posterior.quantities import OF_ONE_LAW, Design, Quantity, design_of, quantities
from cbsbayes.posterior.selection import Selection
from cbsbayes.posterior.surface import Surface
from cbsbayes.posterior.tidy import AVERAGE, CBS_COLUMNS, tidy

__all__ = ["PRIOR_DRAWS", "LawFit", "NewRuns", "averaged_table", "curves_tree", "fit_law",
           "mixed_draws", "new_runs", "replicate_log_steps", "with_log_likelihood"]

PRIOR_DRAWS = 2000  # 1,000 leave a status near its line to chance

Replicate = Callable[[xr.Dataset, np.random.Generator], np.ndarray]
"""From draws (dim ``sample``) and a random generator to log S (updates) of one new run per draw
and run, shape (sample, run, threshold)."""


@dataclass(frozen=True)
class LawFit:
    """One law's draws on the same runs as the others.

    Attributes
    ----------
    law : Law
        The law.
    tree : xarray.DataTree
        Groups ``posterior, sample_stats, log_likelihood``.
    prior : xarray.Dataset
        Prior draws, dims (chain, draw, run, threshold).
    replicate : callable
        New runs from draws.
    constants : xarray.Dataset
        What the model was given besides the data.
    design : Design
        The batches at which quantities are read off.
    """

    law: Law
    tree: xr.DataTree
    prior: xr.Dataset
    replicate: Replicate
    constants: xr.Dataset
    design: Design

    @cached_property
    def posterior(self) -> xr.Dataset:
        """Draws, dims (chain, draw, run, threshold)."""
        return self.tree["posterior"].to_dataset()

    @cached_property
    def quantities(self) -> list[Quantity]:
        """Everything that is read off the posterior."""
        return quantities(self.law, self.posterior, self.design)

    @cached_property
    def prior_quantities(self) -> list[Quantity]:
        """The same of the prior."""
        return quantities(self.law, self.prior, self.design)

    def table(self, selected: Selection, *, diagnostics: bool = True) -> pd.DataFrame:
        """Return a table like ``cbs.csv``, with or without r_hat and effective draws."""
        return tidy(self.quantities, self.prior_quantities, selected.options.ci_prob,
                    diagnostics=diagnostics).assign(group=selected.group,
                                                    law=self.law.name)[CBS_COLUMNS]

    def replicates(self, draws: xr.Dataset, random_seed: int) -> xr.Dataset:
        """Return S (updates) of new runs at the runs' batches, dims (chain, draw, run, threshold).

        Parameters
        ----------
        draws : xarray.Dataset
            Of the posterior or the prior.
        random_seed : int
            Of the new runs.
        """
        some = thinned(draws)
        log_steps = self.replicate(stacked(some), np.random.default_rng(random_seed))
        shape = (some.sizes["chain"], some.sizes["draw"], *log_steps.shape[1:])
        steps = np.exp(np.minimum(log_steps, 700.0)).reshape(shape)
        about = {"long_name": "replicated S of another run", "units": "updates"}
        return xr.Dataset({"steps": (("chain", "draw", "run", "threshold"), steps, about)},
                          coords={"run": self.constants["run"], "threshold": draws["threshold"],
                                  "chain": some["chain"], "draw": some["draw"]})


def fit_law(law: Law, selected: Selection, model: str | None = None) -> LawFit:
    """Return a law fitted to the runs selected.

    Parameters
    ----------
    law : Law
        The law of S(P, G).
    selected : Selection
        Runs, targets and options.
    model : {"crossing", "trajectory"}, optional
        That of the options unless given.
    """
    fit = _fit_crossings if (model or selected.options.model) == "crossing" else _fit_curves
    return fit(law, selected, selected.options.sampler)


def _fit_crossings(law: Law, selected: Selection, sampler: SamplerSettings) -> LawFit:
    crossings, noise = selected.crossings, selected.noise
    data = crossing_data(crossings, law)
    if noise is not None:
        sign = 1.0 if crossings.attrs.get("direction", "increasing") == "increasing" else -1.0
        data = replace(data, noise=noise_data(noise, law, sign * data.threshold))
    tree = with_log_likelihood(sample_crossings(data, law, sampler), data, law)
    prior = sample_prior(data, law, draws=PRIOR_DRAWS, random_seed=sampler.random_seed)
    parts_known = data.noise is not None and law.two_axis and data.noise.parts == law.scales

    def replicate(draws: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
        return replicate_log_steps(new_runs(draws, data, law), data, rng) + data.log_steps_scale

    return LawFit(law, tree, prior, replicate, _constants(data),
                  replace(design_of(crossings), parts_known=parts_known))


def _fit_curves(law: Law, selected: Selection, sampler: SamplerSettings) -> LawFit:
    targets, seed = np.sort(selected.crossings["threshold"].values), sampler.random_seed
    ceilings = selected.options.ceiling_by_group and law.two_axis
    data = trajectory_data(selected.fitted, law, selected.metric)
    draws = sample_curves(TrajectoryParameters(data, law, ceiling_by_group=ceilings), sampler)
    parameters = draws.parameters
    position = parameters.prior_draws(PRIOR_DRAWS, np.random.default_rng(seed))
    prior = read_thresholds(parameters, position[None], targets, seed)

    def replicate(draws: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
        return replicated_log_steps(parameters, draws, rng)

    return LawFit(law, curves_tree(draws, targets, seed), prior, replicate, _constants(data),
                  design_of(selected.fitted))


def curves_tree(draws: TrajectoryDraws, thresholds: np.ndarray, random_seed: int) -> xr.DataTree:
    """Return groups ``posterior`` at thresholds, ``sample_stats`` and ``log_likelihood``.

    Parameters
    ----------
    draws : TrajectoryDraws
        Of the shared parameters and the run effects.
    thresholds : numpy.ndarray
        Accuracies, rising, shape (threshold,).
    random_seed : int
        For waves of the item set that are added from their prior.
    """
    parameters = draws.parameters
    run = parameters.data.run
    posterior = read_thresholds(parameters, draws.position, thresholds, random_seed)
    posterior = posterior.assign_coords(run=run)
    posterior["run_effect"] = (("chain", "draw", "run"), draws.run_effect)
    log_p = parameters.run_log_likelihoods(draws.position.reshape(-1, parameters.n_dim))
    return xr.DataTree.from_dict({
        "posterior": posterior, "sample_stats": draws.stats.assign_attrs(note=draws.note),
        "log_likelihood": run_log_likelihoods(log_p, posterior, run)})


def with_log_likelihood(tree: xr.DataTree, data: CrossingData, law: Law) -> xr.DataTree:
    """Return the tree of a crossing fit with a group ``log_likelihood`` of whole runs."""
    posterior = tree["posterior"].to_dataset()
    log_p = crossing_log_likelihoods(CrossingParameters(data, law), stacked(posterior))
    tree["log_likelihood"] = xr.DataTree(run_log_likelihoods(log_p, posterior, data.run))
    return tree


def _constants(data: CrossingData | TrajectoryData) -> xr.Dataset:
    """Return what a model is given besides the data: batches, and what measured noise there is."""
    constants = xr.Dataset(
        {"n_prompts": ("run", data.n_prompts), "n_rollouts": ("run", data.n_rollouts),
         "log_steps_scale": ((), data.log_steps_scale)}, coords={"run": data.run})
    noise = data.noise if isinstance(data, CrossingData) else None
    return constants if noise is None else constants.assign(
        noise_probes=("noise_range", noise.n_probes), noise_runs=((), noise.n_runs),
        noise_resolved=("noise_range", noise.resolved().astype(np.int8)))


@dataclass(frozen=True)
class NewRuns:
    """What new runs are drawn from under the crossing model, first axis draw.

    Attributes
    ----------
    log_steps : numpy.ndarray
        log S of the law over the scale of S, shape (draw, run, threshold).
    sigma_run : numpy.ndarray
        Sd of the run effect, shape (draw,).
    sd : numpy.ndarray
        Sd of the residual, shape (draw, threshold).
    length : numpy.ndarray
        Distance in logit over which residuals stay alike, shape (draw,); 0 for one threshold.
    """

    log_steps: np.ndarray
    sigma_run: np.ndarray
    sd: np.ndarray
    length: np.ndarray

    def rho(self, gap: np.ndarray) -> np.ndarray:
        """Return the correlation of residuals `gap` apart, shape (draw, *gap)."""
        length = np.maximum(self.length, 1e-12).reshape(-1, *[1] * np.ndim(gap))
        return np.exp(-np.asarray(gap) / length)


def new_runs(posterior: xr.Dataset, data: CrossingData, law: Law) -> NewRuns:
    """Return what new runs are drawn from.

    Parameters
    ----------
    posterior : xarray.Dataset
        Draws of a posterior or prior, dims (sample, threshold).
    data : CrossingData
        The crossings, which say which runs and thresholds.
    law : Law
        The law of the posterior.
    """
    rates = [np.exp(data.log_rate + data.log_rate_scale)] if law.learning_rate else []
    axes = (xr.DataArray(axis, dims="run") for axis in (data.n_prompts, data.n_rollouts, *rates))
    log_steps = Surface(law, posterior).log_steps(*axes).transpose("sample", "run", "threshold")
    sd, length = posterior["sigma_residual"].values[:, None], np.zeros(posterior.sizes["sample"])
    if "residual_trend" in posterior:
        sd = sd * np.exp(posterior["residual_trend"].values[:, None] * data.threshold_logit)
        length = posterior["residual_length"].values
    return NewRuns(log_steps.values - data.log_steps_scale, posterior["sigma_run"].values, sd,
                   length)


def replicate_log_steps(
    draws: NewRuns, data: CrossingData, rng: np.random.Generator
) -> np.ndarray:
    """Return log S over its scale of one new run per draw and run, shape (draw, run, threshold)."""
    n_draws, n_runs, n_thresholds = draws.log_steps.shape
    effect = rng.normal(size=(n_draws, n_runs)) * draws.sigma_run[:, None]
    noise = rng.logistic(scale=LOGISTIC_SCALE, size=draws.log_steps.shape)
    residual = np.zeros_like(noise)
    rho = draws.rho(np.diff(data.threshold_logit, prepend=-np.inf))
    for k in range(n_thresholds):
        here = rho[:, k, None]
        before = residual[:, :, k - 1] / draws.sd[:, k - 1, None] if k else 0.0
        innovation = np.sqrt(1.0 - here**2) * noise[:, :, k]
        residual[:, :, k] = draws.sd[:, k, None] * (here * before + innovation)
    return draws.log_steps + effect[:, :, None] + residual


def averaged_table(
    fits: Mapping[str, LawFit], weights: Mapping[str, float], selected: Selection
) -> pd.DataFrame:
    """Return a table like ``cbs.csv`` of quantities averaged over laws, law ``average``.

    A quantity that some law does not state (the best group size under the total-batch law) is
    averaged over those that do. Laws without a learning rate say what holds at the rates used, not
    at the best ones, and are not mixed with those that know it.

    Parameters
    ----------
    fits : mapping
        Law name to its fit, the quantities of the first among them; empty for one law alone.
    weights : mapping
        Of `cbsbayes.inference.loo.law_weights`.
    selected : Selection
        The runs fitted.
    """
    first = next(iter(fits), "")
    fits = {name: fit for name, fit in fits.items()
            if get_law(name).learning_rate == get_law(first).learning_rate}
    seed = selected.options.sampler.random_seed
    posterior, prior = (_mixtures(of_laws, weights, seed) if len(fits) > 1 else [] for of_laws in (
        {name: fit.quantities for name, fit in fits.items()},
        {name: fit.prior_quantities for name, fit in fits.items()}))
    return tidy(posterior, prior, selected.options.ci_prob).assign(
        group=selected.group, law=AVERAGE)[CBS_COLUMNS]


def _mixtures(
    of_laws: Mapping[str, Sequence[Quantity]], weights: Mapping[str, float], random_seed: int
) -> list[Quantity]:
    """Return the quantities of the first law, each a mixture over the laws that state it."""
    least = min(found[0].draws.sizes["draw"] for found in of_laws.values())
    stated = {name: {(q.name, q.at): q.draws.isel(draw=slice(-least, None)) for q in found}
              for name, found in of_laws.items()}
    out = []
    for quantity in next(iter(of_laws.values())):
        key = (quantity.name, quantity.at)
        parts = {name: found[key] for name, found in stated.items() if key in found}
        if quantity.name not in OF_ONE_LAW and any(weights[name] > 0 for name in parts):
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
