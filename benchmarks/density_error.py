"""How exact is the density with run effects integrated out: ``python benchmarks/density_error.py``.

The rule of the package and the five-node Gauss-Hermite rule at each run's peak, which it replaced,
beside brute-force integration: the largest error of a whole sweep's log density over a grid of
scales, by family and evaluation interval. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import minimize_scalar

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.nuts import find_mode
from cbsbayes.inference.sampling import crossing_density
from cbsbayes.models.crossing import run_log_likelihoods
from cbsbayes.models.crossing_data import LOGISTIC_SCALE, crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters, crossing_arrays
from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import PRIORS
from cbsbayes.validation.families import family_sweep, get_family
from cbsbayes.validation.models import THRESHOLDS, fitted_runs

LAW = get_law("two_axis_free")
SCALES = [(None, None), (0.01, None), (1.0, None), (None, 0.01), (1.0, 0.01)]
"""Run effect's and residual's standard deviation; None: that of the mode."""
NODES, WEIGHTS = hermegauss(5)


Integrand = Callable[[np.ndarray], np.ndarray]


def integrands(parameters: CrossingParameters, position: np.ndarray) -> list[Integrand]:
    """Return every run's log integrand over its effect in standard deviations."""
    data = parameters.data
    draw = parameters.unpack(position[None, None]).isel(chain=0, draw=0)
    scales = {name: draw[name].values[None, :] for name in LAW.scales}
    ratio = LAW.log_ratio(data.n_prompts[:, None], data.n_rollouts[:, None], scales,
                          float(draw["alpha"]))
    expected = np.log(draw["S_min"].values) - data.log_steps_scale + ratio
    x = data.threshold_logit
    sd = float(draw["sigma_residual"]) * np.exp(float(draw["residual_trend"]) * x)
    rho = np.exp(-data.gap / float(draw["residual_length"]))
    rows = np.arange(len(expected))[:, None]
    carried = rho * sd / sd[data.previous]
    center = expected + carried * (data.midpoint - expected)[rows, data.previous]
    scale = sd * np.sqrt(1.0 - rho**2) * LOGISTIC_SCALE
    pull = float(draw["sigma_run"]) * (1.0 - carried) / scale
    ends = [(bound - center) / scale for bound in (data.log_lower, data.log_upper)]

    def of_run(i: int) -> Integrand:
        known = data.informative[i]
        a, b, p = ends[0][i, known], ends[1][i, known], pull[i, known]

        def log_integrand(z: np.ndarray) -> np.ndarray:
            low, high = (end[:, None] - p[:, None] * z for end in (a, b))
            inside = np.log(-np.expm1(low - high)) - np.logaddexp(0, -high) - np.logaddexp(0, low)
            return inside.sum(axis=0) - 0.5 * z**2

        return log_integrand

    return [of_run(i) for i in range(len(expected))]


def brute_force(log_integrand: Integrand) -> float:
    """Return the log integral from many nodes over all of the integrand's mass."""
    z = np.linspace(-100.0, 100.0, 20_001)
    value = log_integrand(z)
    mass = z[value > value.max() - 60.0]
    z = np.linspace(mass[0] - 0.01, mass[-1] + 0.01, 6_001)
    value = log_integrand(z)
    return float(value.max() + np.log(np.trapezoid(np.exp(value - value.max()), z)))


def five_nodes(log_integrand: Integrand) -> float:
    """Return the log integral by the rule at the peak, scaled by the curvature there."""
    at = minimize_scalar(lambda z: -log_integrand(np.array([z]))[0], bracket=(-1.0, 1.0),
                         options={"xtol": 1e-6}).x
    h = 1e-3
    left, middle, right = log_integrand(np.array([at - h, at, at + h]))
    width = 1.0 / np.sqrt(max((2 * middle - left - right) / h**2, 1.0))
    terms = log_integrand(at + width * NODES) + 0.5 * NODES**2 + np.log(WEIGHTS)
    return float(np.log(width) + np.logaddexp.reduce(terms))


def errors(family: str, every: int, seed: int) -> tuple[float, float]:
    """Return the largest errors of a sweep's log density: five nodes, the package."""
    chosen = get_family(family)
    chosen = replace(chosen, arguments={**chosen.arguments, "eval_every": every})
    sweep = fitted_runs(family_sweep(chosen, LAW, seed), LAW)
    data = crossing_data(find_crossings(sweep, THRESHOLDS), LAW)
    parameters = CrossingParameters(data, LAW, PRIORS)
    density = crossing_density(parameters)
    mode = find_mode(density, parameters.center, parameters.sd)
    found = []
    for sigma_run, sigma_residual in SCALES:
        position = mode.copy()
        for name, value in (("sigma_run", sigma_run), ("sigma_residual", sigma_residual)):
            if value is not None:
                position[parameters.slices[name]] = np.log(value)
        runs = integrands(parameters, position)
        exact = sum(map(brute_force, runs))
        own = run_log_likelihoods(position[None], crossing_arrays(parameters)).sum()
        own += 0.5 * len(runs) * np.log(2.0 * np.pi)
        found.append((abs(sum(map(five_nodes, runs)) - exact), abs(own - exact)))
    return tuple(np.max(found, axis=0))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="base,sqrt,heavy,correlated,hill,ceiling,wander")
    parser.add_argument("--sweeps", type=int, default=2, help="a family and interval")
    options = parser.parse_args()
    print("| family | evaluations every | five nodes, nats | package, nats |\n|---|---|---|---|")
    for family in options.families.split(","):
        for every in (2, 10, 25, 50):
            found = [errors(family, every, seed) for seed in range(options.sweeps)]
            before, after = np.max(found, axis=0)
            print(f"| {family} | {every} | {before:.2g} | {after:.1g} |", flush=True)


if __name__ == "__main__":
    main()
