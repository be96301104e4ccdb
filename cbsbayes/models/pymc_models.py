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
the data know well, not S_min, which is strongly anticorrelated with the noise scales. Variables,
their priors and what is derived from them are those of `cbsbayes.models.crossing_parameters`.

References
----------
.. [1] McCandlish et al., arXiv:1812.06162, equation 2.11 (the law).
.. [2] Cox, "Statistical analysis of time series: some recent developments", Scand. J. Statist.
   8:93-115 (1981).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData
from cbsbayes.models.crossing_parameters import CrossingParameters
from cbsbayes.models.laws import Law, Tuning
from cbsbayes.models.noise_data import NoiseData
from cbsbayes.models.parameters import PRIORS, Block, Priors

__all__ = ["build_crossing_model"]


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
    parameters = CrossingParameters(data, law, priors)
    between = {"log_growth_dim_0": np.arange(len(data.threshold) - 1)}
    with pm.Model(coords=parameters.coords | between) as model:
        v = {block.name: _variable(block) for block in parameters.blocks}
        derived = parameters.derived(v, xp=pt)
        of_threshold = {name: pm.Deterministic(name, pt.exp(value), dims="threshold")
                        for name, value in derived.items()}
        scales = [of_threshold[name] for name in law.scales]
        effect = v["sigma_run"] * pm.Normal("run_effect_z", 0.0, 1.0, dims="run")
        pm.Deterministic("run_effect", effect, dims="run")
        tuning = Tuning((data.log_rate + data.log_rate_scale)[:, None], derived["rate_max"],
                        v["gamma"], v["steepness"], v["slope_below"]
                        ) if law.learning_rate else None
        law_ratio = law.log_ratio(
            data.n_prompts[:, None], data.n_rollouts[:, None],
            dict(zip(law.scales, scales, strict=True)), v.get("alpha"), tuning, xp=pt)
        expected = derived["S_min"] - data.log_steps_scale + law_ratio + effect[:, None]
        center, scale = _residual(expected, data, v)
        log_p = _log_interval((data.log_lower - center) / scale, (data.log_upper - center) / scale)
        pm.Potential("crossings", pt.switch(data.informative, log_p, 0.0),
                     dims=("run", "threshold"))
        if data.noise is not None:
            _add_measured_noise(data.noise, data.threshold_logit, pt.stack(scales), v)
    return model


def _variable(block: Block) -> Any:
    """Return a variable of the current model under its prior."""
    dims = block.dims or None
    if block.truncated is not None:
        mean, sd, lower, upper = block.truncated
        return pm.TruncatedNormal(block.name, mean, sd, lower=lower, upper=upper)
    if block.name == "log_noise":  # its prior is that of the deviations
        return pm.Flat(block.name, dims=dims)
    of = pm.LogNormal if block.transform == "log" else pm.Normal
    return of(block.name, block.center, block.sd, dims=dims)


def _residual(expected: Any, data: CrossingData, v: dict[str, Any]) -> tuple[Any, Any]:
    """Return centre and logistic scale of each crossing given the run's previous one."""
    if len(data.threshold) == 1:
        return expected, v["sigma_residual"] * LOGISTIC_SCALE
    sd = v["sigma_residual"] * pt.exp(v["residual_trend"] * data.threshold_logit)
    rho = pt.exp(-data.gap / v["residual_length"])
    rows = np.arange(len(data.run))[:, None]
    deviation = (data.midpoint - expected)[rows, data.previous]
    center = expected + rho * sd[None, :] / sd[data.previous] * deviation
    return center, sd[None, :] * pt.sqrt(1.0 - rho**2) * LOGISTIC_SCALE


def _log_interval(a: Any, b: Any) -> Any:
    """Return log P(a < Z <= b) of a standard logistic Z."""
    return pt.log1mexp(a - b) - pt.softplus(-b) - pt.softplus(a)


def _add_measured_noise(
    noise: NoiseData, threshold_logit: np.ndarray, target: Any, v: dict[str, Any]
) -> None:
    """Add measured noise to the model of the current context (`cbsbayes.models.noise_data`)."""
    n = noise.n_ranges
    moment = pt.reshape(v["log_noise"], (len(noise.parts), n))
    log_average, log_jacobian = _noise_averages(moment, v, n)
    expected = pt.log(pt.dot(noise.mix, target[:, :n]))
    deviation = log_average - expected - v["noise_offset"]
    pm.Potential("noise_deviation", _log_deviations(deviation, v["noise_scatter"],
                                                    noise.correlation(threshold_logit)))
    pm.Potential("noise_jacobian", pt.sum(log_jacobian))
    pm.Potential("noise_probes", _log_probes(noise, pt.exp(moment)))


def _noise_averages(moment: Any, v: dict[str, Any], n: int) -> tuple[Any, Any]:
    """Return log averages over progress, (part, range), and the log Jacobian's terms."""
    average, logs = pt.exp(moment[:, 0]), [moment[:, 0]]
    jacobian = [pt.zeros_like(average)]
    for k in range(1, n):
        kept = pt.exp(-pt.exp(v["log_growth"][k - 1]))
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
