"""The crossing model in Stan: ``crossing.stan`` beside this file, sampled through pystan."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.parameters import PRIORS

__all__ = ["HOW_TO_INSTALL", "build", "have_stan", "sample"]

HOW_TO_INSTALL = ("Stan is missing: pip install pystan (3.10, needs g++), in an environment of "
                  "its own if its dependencies disagree with yours")
_ATTEMPTS = 20
_CODE = Path(__file__).with_name("crossing.stan")
_BY_THRESHOLD = ("S_min", "B_prompt", "B_rollout")
_SCALARS = ("alpha", "sigma_run", "sigma_residual")


def have_stan() -> bool:
    """Return whether pystan is there."""
    return importlib.util.find_spec("stan") is not None


@cache
def _folder() -> str:
    """Return an empty folder for what is compiled, gone with this process."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def build(data: CrossingData, seed: int) -> Any:
    """Translate and compile the model, nothing reused from before this process.

    Parameters
    ----------
    data : CrossingData
        At two thresholds and more.
    seed : int
        Of the sampling to come.
    """
    os.environ["XDG_CACHE_HOME"] = _folder()  # where httpstan keeps models and fits
    import stan

    for attempt in range(_ATTEMPTS):
        try:
            with _quiet():
                return stan.build(_CODE.read_text(), data=_stan_data(data), random_seed=seed + 1)
        except RuntimeError as error:  # the translator is given one second, busy or not
            if "TimeoutExpired" not in str(error) or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def sample(model: Any, target_accept: float, draws: int, tune: int, chains: int) -> xr.DataTree:
    """Return Stan's posterior of the shared parameters, in the form of `sample_crossings`."""
    with _quiet():
        fit = model.sample(num_chains=chains, num_samples=draws, num_warmup=tune,
                           delta=target_accept)
    values = {name: (("chain", "draw", "threshold"), _by_chain(fit[name], chains))
              for name in _BY_THRESHOLD}
    values |= {name: (("chain", "draw"), _by_chain(fit[name], chains)[..., 0])
               for name in _SCALARS}
    diverging = _by_chain(fit["divergent__"], chains)[..., 0].astype(bool)
    return xr.DataTree.from_dict({
        "posterior": xr.Dataset(values),
        "sample_stats": xr.Dataset({"diverging": (("chain", "draw"), diverging)})})


def _by_chain(values: np.ndarray, chains: int) -> np.ndarray:
    """Return shape (chain, draw, parameter) from (parameter, draw and chain, chains fastest)."""
    by_draw = values.reshape(values.shape[0], -1, chains)
    return np.moveaxis(by_draw, (0, 1, 2), (2, 1, 0))


def _stan_data(data: CrossingData) -> dict[str, Any]:
    n_runs, n_thresholds = data.log_lower.shape
    arrays = {name: np.asarray(getattr(data, name), dtype=float).tolist() for name in (
        "n_prompts", "n_rollouts", "threshold_logit", "log_lower", "log_upper", "midpoint", "gap")}
    priors = asdict(PRIORS)
    renamed = {"alpha_prior": priors.pop("alpha")} | {
        f"{name}_prior": priors.pop(name)
        for name in ("sigma_run", "sigma_residual", "residual_length")}
    return {"n_runs": n_runs, "n_thresholds": n_thresholds, **arrays,
            "informative": data.informative.astype(int).tolist(),
            "previous": (data.previous + 1).tolist(), "log_steps_scale": data.log_steps_scale,
            "log_batch_scale": [data.log_batch_scale[n] for n in ("B_prompt", "B_rollout")],
            **priors, **renamed}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Stan's progress and the compiler's warnings out of the table."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as said, contextlib.ExitStack() as after:
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            after.callback(os.close, kept)
            after.callback(os.dup2, kept, descriptor)
            os.dup2(said.fileno(), descriptor)
        yield
        sys.stdout.flush()
