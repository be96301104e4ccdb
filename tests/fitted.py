"""Fits for tests whose draws cost nothing.

The quick sampler draws from priors so narrow that the draws look like a posterior. Everything
after the sampler is the package's own. Import the fixtures through `conftest`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.baselines.table import with_comparison
from cbsbayes.fit import main
from cbsbayes.inference.sampling import SamplerSettings, sample_prior
from cbsbayes.models.parameters import PRIORS
from cbsbayes.posterior.fit import Fit, table_to_json
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.verdict import verdict
from cbsbayes.report.folder import write_fit
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import write_sweep

FAILED_CHECKS = {"r_hat_below_1_01": False, "ess_bulk_above_400": True, "no_divergences": True}
NARROW = replace(
    PRIORS, scale_level_sd=0.3, scale_trend_sd=0.1, steps_level_sd=0.05, growth_sd=0.1,
    alpha=(0.75, 0.05, 0.25, 1.5), sigma_run=0.3, sigma_run_sd=0.05, sigma_residual=0.2,
    sigma_residual_sd=0.05, residual_trend_sd=0.05, residual_length_sd=0.1)
SETTINGS = SamplerSettings(draws=200, tune=100, chains=4, cores=1, random_seed=1)


def verdict_of(sentences=(), *, failed=False):
    """Return a verdict of the package with its three lines met, or with sampling failed."""
    checks = {name: passed or not failed for name, passed in FAILED_CHECKS.items()}
    worst = {"r_hat_max": 1.2 if failed else 1.004, "ess_bulk_min": 1212.0, "divergences": 0.0}
    reached = {"passed": True, "sentence": "Reached: every threshold by all 12 runs."}
    identified = {"passed": True, "sentence": "Identified: 9 of 9 quantities."}
    return verdict(checks, worst, reached, identified, notes=sentences)


def narrow_draws(data, law, settings, repeats=None):
    """Return draws of the narrow priors in the form of a posterior.

    By default every half of a chain is the same draws in another order, so the chains agree
    exactly; with one repeat every draw is another.
    """
    repeats = repeats or 2 * settings.chains
    shape = (settings.chains, settings.draws)
    distinct = settings.chains * settings.draws // repeats
    flat = sample_prior(data, law, draws=distinct, random_seed=settings.random_seed,
                        priors=NARROW).isel(chain=0)
    rng = np.random.default_rng(settings.random_seed)
    order = np.concatenate([rng.permutation(distinct) for _ in range(repeats)]).reshape(shape)
    axes = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    order = xr.DataArray(order, dims=("chain", "draw"))
    posterior = flat.drop_vars(["chain", "draw"]).isel(draw=order).assign_coords(axes)
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros(shape, bool)),
                        "energy": (("chain", "draw"), rng.normal(size=shape))}, coords=axes)
    return xr.DataTree.from_dict({"posterior": posterior.transpose("chain", "draw", ...),
                                  "sample_stats": stats})


@contextlib.contextmanager
def quick_sampling(draws=narrow_draws):
    """Replace the sampler of `fit_sweep`, and take few draws from the prior."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cbsbayes.posterior.law_fit.sample_crossings", draws)
        patch.setattr("cbsbayes.posterior.law_fit.PRIOR_DRAWS", 200)
        yield


@contextlib.contextmanager
def few_figures(count=1):
    """Draw only the first figures: tests of the command look at files, not at plots."""
    from cbsbayes.plots import gallery

    everything = gallery.page_figures
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "page_figures", lambda fit, **options: itertools.islice(
            everything(fit, **options), 1, 1 + count))
        yield


def groups_sweep(second=8, few=""):
    """Return a sweep of two groups, the second with `second` batch sizes.

    With `few`, two runs of the first make a group of their own by that name.
    """
    first = simulate_sweep("p1", 1)
    table = {name: first[name].values for name in ("run", "name", "phase", "n_prompts",
                                                   "n_rollouts", "seed")}
    n = first.sizes["run"]
    keep = np.r_[:n, n + np.arange(min(second, n))]
    table = {name: np.concatenate([values, values])[keep] for name, values in table.items()}
    table["run"] = [f"{run}_{k}" for k, run in enumerate(table["run"])]
    models = [few or "small"] * 2 + ["small"] * (n - 2) + ["large / <b>wide</b>"] * n
    table["model"] = np.array(models)[keep]
    accuracy = np.concatenate([first["accuracy"].values] * 2)[keep]
    return new_sweep(table, accuracy=accuracy, step=first["step"].values,
                     metric=first["metric"].values.tolist())


RATES = (3e-7, 1e-6, 2e-6)
PAIR_THRESHOLDS = (0.6, 0.65)
QUICK = ("--sampler", "nutpie", "--draws", "200", "--tune", "100", "--seed", "1")


def run(*arguments):
    """Run the command in this process with the quick sampler and few figures."""
    with quick_sampling(), few_figures():
        return main([*map(str, arguments), *QUICK])


T_0, C_P, C_R = 20.0, 0.05, 0.02  # seconds of a step: alone, per prompt, per sample


def timed_sweep(sweep, sigma=0.05, seed=0):
    """Return a sweep with step times of a known truth."""
    noise = np.random.default_rng(seed).normal(size=sweep.sizes["run"])
    seconds = (T_0 + C_P * sweep["n_prompts"] + C_R * sweep["total_batch"]) * np.exp(sigma * noise)
    return sweep.assign(step_time=sweep["step_time"].copy(data=seconds))


def both_axes_sweep():
    """Return a simulated sweep of both axes with one run marked as not usable."""
    ds = simulate_sweep("p1+p2b", 1, random_seed=3)
    ds["usable"][1] = 0
    ds["remark"] = ds["remark"].astype("<U40")
    ds["remark"][1] = "an orphan tail"
    return ds


@functools.cache
def both_axes_fit():
    """Return a whole fit of that sweep, its draws from the quick sampler."""
    with quick_sampling():
        return with_comparison(fit_sweep(both_axes_sweep(), sampler=SETTINGS))


@functools.cache
def one_axis_fit():
    """Return a whole fit of a sweep of total batches, its draws from the quick sampler."""
    with quick_sampling():
        sweep = simulate_sweep("batch", 2, law="total", random_seed=1)
        return with_comparison(fit_sweep(sweep, sampler=SETTINGS))


def changed(fit, crossings=None, sweep=None, **attrs):
    """Return a copy of a fit with other runs, tables and attributes, given as what they hold.

    Tables are called ``table_cbs`` and the like; what is None is left out.
    """
    tree = fit.tree.copy()
    for name, ds in (("observed_data", crossings), ("sweep", sweep)):
        if ds is not None:
            tree[name] = xr.DataTree(ds)
    for name, value in attrs.items():
        tree.attrs[name] = (table_to_json(value) if isinstance(value, pd.DataFrame) else
                            value if isinstance(value, str) else json.dumps(value))
    tree.attrs = {name: value for name, value in tree.attrs.items() if value != "null"}
    return Fit(tree)


def labelled(fit, **attrs):
    """Return a copy of a fit whose sweep has other attributes."""
    return changed(fit, sweep=fit.sweep.assign_attrs(attrs))


@functools.cache
def timed_fit(design="p1+p2b", *, one_axis=False):
    """Return a fit whose runs have step times."""
    if design == "p1+p2b" and not one_axis:
        return changed(both_axes_fit(), sweep=timed_sweep(both_axes_fit().sweep))
    ds = timed_sweep(simulate_sweep(design, 1, random_seed=3))
    if one_axis:
        for name in ("n_prompts", "n_rollouts", "train_batch_prompts", "mini_batch_prompts"):
            ds[name].values[:] = -1
    with quick_sampling():
        return fit_sweep(ds, sampler=SETTINGS)


@pytest.fixture(scope="session")
def sweep() -> xr.Dataset:
    """The sweep of `fit`."""
    return both_axes_sweep()


@pytest.fixture(scope="session")
def fit() -> Fit:
    """A whole fit of both axes, its draws from the quick sampler."""
    return both_axes_fit()


@pytest.fixture(scope="session")
def one_axis() -> Fit:
    """A whole fit of total batches, its draws from the quick sampler."""
    return one_axis_fit()


@pytest.fixture(scope="session")
def rollouts_alone() -> Fit:
    """A fit of runs that vary rollouts only, its draws from the quick sampler."""
    with quick_sampling():
        return fit_sweep(simulate_sweep("p2b", 1), sampler=SETTINGS, alternatives=False)


@pytest.fixture(scope="session")
def rate_fit() -> Fit:
    """A fit of one group size at several learning rates, its draws from the quick sampler."""
    ds = simulate_sweep("lr", rates=RATES, max_updates=1500, random_seed=1)
    with quick_sampling():
        return fit_sweep(ds, thresholds=[0.65, 0.7], sampler=SETTINGS)


@pytest.fixture(scope="session")
def pair() -> tuple[Fit, Fit]:
    """Two fits of other runs, of models called alpha and beta, their draws from the same."""
    sweeps = [simulate_sweep("p1+p2b", 1, random_seed=seed) for seed in (11, 12)]
    with quick_sampling():
        return tuple(fit_sweep(ds.assign_coords(model=("run", [name] * ds.sizes["run"])),
                               thresholds=PAIR_THRESHOLDS, sampler=SETTINGS, alternatives=False)
                     for name, ds in zip(("alpha", "beta"), sweeps, strict=True))


@pytest.fixture(scope="session")
def timed() -> Fit:
    """The same fit, its runs with step times."""
    return timed_fit()


@pytest.fixture(scope="session")
def prompts_sweep(sweep) -> xr.Dataset:
    """Its prompt axis alone: two laws instead of five, for tests that fit again."""
    return sweep.isel(run=np.flatnonzero(sweep["phase"].values == "p1"))


@pytest.fixture(scope="session")
def sweep_file(prompts_sweep, tmp_path_factory) -> Path:
    """The prompt axis as a file."""
    return write_sweep(prompts_sweep, tmp_path_factory.mktemp("sweep") / "sweep.nc")


@pytest.fixture(scope="session")
def written(fit, tmp_path_factory) -> Path:
    """The folder of a fit, every figure included."""
    folder = tmp_path_factory.mktemp("written") / "fit"
    write_fit(fit, folder, command="python -m cbsbayes.fit sweep.nc")
    return folder
