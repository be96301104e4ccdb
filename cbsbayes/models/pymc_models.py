r"""The definition of the crossing model in PyMC: S(P, G; t) of all runs and thresholds at once.

.. math::

    \log S_{i,t} &= \log S_{law}(P_i, G_i; t) + u_i + \varepsilon_{i,t} \\
    u_i &\sim N(0, \sigma_{run}) \\
    \varepsilon_{i,t} &\sim \mathrm{Logistic}(\rho\,\varepsilon_{i,t-1}, \sigma_t\sqrt{1-\rho^2})

What is observed is the interval in which each crossing lies, possibly open on one side. With
:math:`a = (\log lower - \mu)/s` and :math:`b = (\log upper - \mu)/s` its probability is exact and
without branches,

.. math:: \log[\sigma(b) - \sigma(a)] = \mathrm{log1mexp}(a - b) - \mathrm{softplus}(-b)
          - \mathrm{softplus}(a),

a far bound standing for a missing one. The run
effect u_i is shared by all thresholds of a run; the residuals of neighbouring thresholds are
correlated, :math:`\rho = e^{-\Delta x/\ell}` over their distance x in logit accuracy,
because a run that is late at .8 is mostly still late at .9 though it was not at .5. Without the
first every threshold counts as new evidence on the run, without the second on the law; either
makes intervals too narrow. The autoregression is driven by the midpoint of the run's previous
crossing interval, which keeps the likelihood exact in closed form (Cox 1981, observation-driven).

Thresholds share one law: S_min(t) increases with t, and each noise scale is a level, a trend in x
and shrunken deviations. The sampled level of S is that at the middle of the batches tried, which
the data know well, not S_min, which is strongly anticorrelated with the noise scales.

References
----------
.. [1] McCandlish et al., arXiv:1812.06162, equation 2.11 (the law).
.. [2] Cox, "Statistical analysis of time series: some recent developments", Scand. J. Statist.
   8:93-115 (1981).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData
from cbsbayes.models.laws import Law, Tuning
from cbsbayes.models.noise_data import NoiseData
from cbsbayes.models.parameters import PRIORS, Priors

__all__ = ["DATA_NAMES", "build_crossing_model", "model_data"]

_RUN, _PAIR = ("run",), ("run", "threshold")
DATA_NAMES = {"n_prompts": _RUN, "n_rollouts": _RUN, "log_rate": _RUN, "log_lower": _PAIR,
              "log_upper": _PAIR, "informative": _PAIR, "midpoint": _PAIR, "previous": _PAIR,
              "gap": _PAIR, "threshold_logit": ("threshold",), "log_steps_scale": ()}


def model_data(data: CrossingData) -> dict[str, np.ndarray]:
    """Return the arrays that may be swapped in a compiled model of the same shape."""
    values = {name: np.asarray(getattr(data, name), dtype=float) for name in DATA_NAMES}
    values["previous"] = np.asarray(data.previous, dtype=np.int64)
    values |= {f"log_scale_{name}": np.asarray(v) for name, v in data.log_batch_scale.items()}
    return values


def build_crossing_model(data: CrossingData, law: Law, priors: Priors = PRIORS) -> pm.Model:
    """Return the PyMC model of the crossings.

    Parameters
    ----------
    data : CrossingData
        Crossings of the runs to be fitted.
    law : Law
        The law of S(P, G).
    priors : Priors
        Documented in `cbsbayes.models.parameters`.

    Returns
    -------
    pymc.Model
        Coords ``run, threshold``; named quantities in the user's units (updates, prompts,
        samples).
    """
    coords = {"run": data.run, "threshold": data.threshold}
    if data.noise is not None:
        coords["noise"] = np.array(data.noise.labels(data.threshold))
    with pm.Model(coords=coords) as model:
        d = {name: pm.Data(name, value, dims=DATA_NAMES.get(name, ()))
             for name, value in model_data(data).items()}
        scales = {name: _noise_scale(name, d, priors) for name in law.scales}
        alpha = _exponent(law, priors)
        tuning = _tuning(law, data, scales, d, priors) if law.learning_rate else None
        log_s_min = _log_s_min(law, scales, (alpha, tuning), d, len(data.threshold), priors)
        law_ratio = law.log_ratio(d["n_prompts"][:, None], d["n_rollouts"][:, None],
                                  {k: v[None, :] for k, v in scales.items()}, alpha, tuning, xp=pt)
        expected = log_s_min[None, :] + law_ratio + _run_effect(priors)[:, None]
        center, scale = _residual(expected, d, len(data.threshold), priors)
        log_p = _log_interval((d["log_lower"] - center) / scale,
                              (d["log_upper"] - center) / scale)
        pm.Potential("crossings", pt.switch(d["informative"] > 0, log_p, 0.0), dims=_PAIR)
        if data.noise is not None:
            growth = model["log_growth"] if len(data.threshold) > 1 else pt.zeros(0)
            _add_measured_noise(data.noise, data.threshold_logit,
                                pt.stack([scales[name] for name in law.scales]), growth)
    return model


def _noise_scale(name: str, d: dict[str, Any], priors: Priors) -> Any:
    """Return a noise scale per threshold: level, trend in logit, shrunken deviations."""
    log_scale = d[f"log_scale_{name}"] + pm.Normal(f"{name}_level", 0.0, priors.scale_level_sd)
    if d["threshold_logit"].eval().size > 1:
        trend = pm.Normal(f"{name}_trend", 0.0, priors.scale_trend_sd)
        deviation = pm.Normal(f"{name}_deviation", 0.0, 1.0, dims="threshold")
        log_scale = log_scale + trend * d["threshold_logit"] + priors.scale_deviation * deviation
    else:
        log_scale = log_scale + 0.0 * d["threshold_logit"]
    return pm.Deterministic(name, pt.exp(log_scale), dims="threshold")


def _exponent(law: Law, priors: Priors) -> Any:
    if law.alpha is not None:
        return law.alpha
    mean, sd, lower, upper = priors.exponent(tuned=law.learning_rate)
    return pm.TruncatedNormal("alpha", mean, sd, lower=lower, upper=upper)


def _tuning(
    law: Law, data: CrossingData, scales: dict[str, Any], d: dict[str, Any], priors: Priors
) -> Tuning:
    """Return every run's learning rate beside the best one, shapes (run, 1) and (threshold,)."""
    gamma = pm.Normal("gamma", priors.gamma, priors.gamma_sd)
    steepness = pm.LogNormal("steepness", np.log(priors.steepness), priors.steepness_sd)
    slope_below = pm.LogNormal("slope_below", np.log(priors.slope_below), priors.slope_below_sd)
    log_best = pm.Normal("rate_level", 0.0, priors.rate_level_sd) + 0.0 * d["threshold_logit"]
    if len(data.threshold) > 1:
        log_best += pm.Normal("rate_trend", 0.0, priors.rate_trend_sd) * d["threshold_logit"]
    at_middle = {name: value[len(data.threshold) // 2] for name, value in scales.items()}
    log_best += gamma * law.log_noise(*_middle_batch(d), at_middle, xp=pt)
    pm.Deterministic("rate_max", pt.exp(log_best + data.log_rate_scale), dims="threshold")
    return Tuning(d["log_rate"][:, None], log_best, gamma, steepness, slope_below)


def _log_s_min(
    law: Law, scales: dict[str, Any], shape: tuple[Any, Tuning | None], d: dict[str, Any],
    n_thresholds: int, priors: Priors,
) -> Any:
    """Return log S_min over the scale of S, increasing with the threshold."""
    middle = n_thresholds // 2
    alpha, tuning = shape
    if tuning is not None:
        tuning = replace(tuning, log_rate=0.0, log_best=tuning.log_best[middle])
    at_middle = {name: value[middle] for name, value in scales.items()}
    level = pm.Normal("log_S_level", 0.0, priors.steps_level_sd)
    log_s_min = level - law.log_ratio(*_middle_batch(d), at_middle, alpha, tuning, xp=pt)
    if n_thresholds > 1:
        expected = np.log(priors.growth) + pt.log(pt.diff(d["threshold_logit"]))
        growth = pm.Normal("log_growth", expected, priors.growth_sd, shape=n_thresholds - 1)
        climb = pt.concatenate([[0.0], pt.cumsum(pt.exp(growth))])
        log_s_min = log_s_min + climb - climb[middle]
    else:
        log_s_min = pt.reshape(log_s_min, (1,))
    pm.Deterministic("S_min", pt.exp(log_s_min + d["log_steps_scale"]), dims="threshold")
    return log_s_min


def _middle_batch(d: dict[str, Any]) -> tuple[Any, Any]:
    prompts, rollouts = (pt.exp(pt.mean(pt.log(d[axis]))) for axis in ("n_prompts", "n_rollouts"))
    return prompts, rollouts


def _run_effect(priors: Priors) -> Any:
    sigma = pm.LogNormal("sigma_run", np.log(priors.sigma_run), priors.sigma_run_sd)
    standard = pm.Normal("run_effect_z", 0.0, 1.0, dims="run")
    return pm.Deterministic("run_effect", sigma * standard, dims="run")


def _residual(
    expected: Any, d: dict[str, Any], n_thresholds: int, priors: Priors
) -> tuple[Any, Any]:
    """Return centre and logistic scale of each crossing given the run's previous one."""
    sigma = pm.LogNormal("sigma_residual", np.log(priors.sigma_residual), priors.sigma_residual_sd)
    if n_thresholds == 1:
        return expected, sigma * LOGISTIC_SCALE
    trend = pm.Normal("residual_trend", 0.0, priors.residual_trend_sd)
    length = pm.LogNormal("residual_length", np.log(priors.residual_length),
                          priors.residual_length_sd)
    sd = sigma * pt.exp(trend * d["threshold_logit"])
    rho = pt.exp(-d["gap"] / length)
    rows = pt.arange(d["previous"].shape[0])[:, None]
    deviation = (d["midpoint"] - expected)[rows, d["previous"]]
    center = expected + rho * sd[None, :] / sd[d["previous"]] * deviation
    return center, sd[None, :] * pt.sqrt(1.0 - rho**2) * LOGISTIC_SCALE


def _log_interval(a: Any, b: Any) -> Any:
    """Return log P(a < Z <= b) of a standard logistic Z."""
    return pt.log1mexp(a - b) - pt.softplus(-b) - pt.softplus(a)


def _add_measured_noise(
    noise: NoiseData, threshold_logit: np.ndarray, target: Any, log_growth: Any
) -> None:
    """Add measured noise to the model of the current context (`cbsbayes.models.noise_data`)."""
    priors, n = noise.priors, noise.n_ranges
    offset = pm.Normal("noise_offset", 0.0, priors.offset_sd)
    scatter = pm.LogNormal("noise_scatter", np.log(priors.scatter), priors.scatter_sd)
    log_noise = pm.Flat("log_noise", dims="noise")
    moment = pt.reshape(log_noise, (len(noise.parts), n))
    growth = pt.exp(log_growth[: n - 1])
    log_average, log_jacobian = _noise_averages(moment, growth, n)
    expected = pt.log(pt.dot(noise.mix, target[:, :n]))
    deviation = log_average - expected - offset
    pm.Potential("noise_deviation",
                 _log_deviations(deviation, scatter, noise.correlation(threshold_logit)))
    pm.Potential("noise_jacobian", pt.sum(log_jacobian))
    pm.Potential("noise_probes", _log_probes(noise, pt.exp(moment)))


def _noise_averages(moment: Any, growth: Any, n: int) -> tuple[Any, Any]:
    """Return log averages over progress, (part, range), and the log Jacobian's terms."""
    average, logs = pt.exp(moment[:, 0]), []
    jacobian = [pt.zeros_like(average)]
    logs.append(pt.log(average))
    for k in range(1, n):
        kept = pt.exp(-growth[k - 1])
        average = kept * average + (1.0 - kept) * pt.exp(moment[:, k])
        logs.append(pt.log(average))
        jacobian.append(pt.log1p(-kept) + moment[:, k] - logs[-1])
    return pt.stack(logs, axis=1), pt.stack(jacobian, axis=1)


def _log_deviations(deviation: Any, scatter: Any, correlation: np.ndarray) -> Any:
    """Return the log density of the autoregression along the ranges, summed."""
    before = pt.concatenate([pt.zeros_like(deviation[:, :1]), deviation[:, :-1]], axis=1)
    sd = scatter * np.sqrt(1.0 - correlation**2)[None, :]
    return pt.sum(pm.logp(pm.Normal.dist(correlation[None, :] * before, sd), deviation))


def _log_probes(noise: NoiseData, moment: Any) -> Any:
    precision, d = noise.precision(), len(noise.parts)
    log_p = []
    for k in np.flatnonzero(noise.known):
        z, w, freedom = noise.estimate[k], precision[k], noise.freedom[k]
        h = pt.concatenate([moment[:, k], [1.0]])
        along = pt.dot(h, pt.dot(w, h))
        misfit = float(z @ w @ z) - pt.dot(h, w @ z) ** 2 / along
        log_p.append(pt.log(pt.dot(noise.total, moment[:, k])) - 0.5 * pt.log(along)
                     - 0.5 * (freedom + d) * pt.log1p(misfit / freedom))
    return pt.sum(pt.stack(log_p))
