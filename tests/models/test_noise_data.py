"""Measured noise as data: what a range's averages say, and that nothing else is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from crossing_tables import crossings_table
from fieller import fieller
from noise_tables import noise_for
from scipy.stats import multivariate_normal

from cbsbayes.inference.sampling import crossing_density
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters
from cbsbayes.models.laws import LAWS
from cbsbayes.models.parameters import NOISE_PRIORS

LAW = LAWS["total"]


def flat_with(noise, n_thresholds=2):
    data = crossing_data(crossings_table(LAW, n_thresholds), LAW)
    return CrossingParameters(replace(data, noise=noise), LAW)


def one_range(x, y, sd_x, sd_y, freedom=8.0):
    """One range of one part: numerator x, denominator y."""
    noise = noise_for(LAW, 1)
    return replace(noise, estimate=np.array([[x, y]]), freedom=np.array([freedom]),
                   covariance=np.diag([sd_x**2, sd_y**2])[None])


def profile(noise, log_m):
    """Log density along the first range's log noise, the offset moved with it."""
    flat = flat_with(noise, 1)
    density, position = crossing_density(flat), flat.center.copy()
    out = []
    for value in log_m:
        position[flat.slices["log_noise"]] = value
        # The deviation stays zero, so that nothing but the probes and the offset's prior speak.
        scale = flat.data.log_batch_scale["B_noise"] + position[flat.slices["B_noise_level"]]
        position[flat.slices["noise_offset"]] = delta = value - scale
        out.append(density(position)[0] + 0.5 * float(delta[0]) ** 2)
    return np.array(out) - max(out)


def test_a_resolved_range_is_a_bump_at_its_ratio():
    log_m = np.linspace(2.0, 7.0, 2001)
    found = profile(one_range(100.0, 2.0, 1.0, 0.1), log_m)
    assert log_m[found.argmax()] == pytest.approx(np.log(50.0), abs=0.02)
    assert found[[0, -1]].max() < -10.0


def test_an_unresolved_range_bounds_the_noise_from_below_only():
    x, y, sd = 100.0, 0.2, 1.0
    log_m = np.linspace(1.0, 15.0, 2801)
    found = profile(one_range(x, y, 1.0, sd), log_m)
    lower, upper = fieller(x, y, np.diag([1.0, sd**2]), 2.0)
    assert np.isinf(upper)
    assert found[-1] > -0.2  # level: nothing against noise however large
    below = found[log_m < np.log(lower) - 0.7]
    assert below.max() < -2.0
    assert (np.diff(below) > 0).all()


def test_a_negative_denominator_says_as_little():
    found = profile(one_range(100.0, -1.0, 1.0, 1.0), np.linspace(1.0, 15.0, 400))
    assert found[-1] == pytest.approx(0.0, abs=1e-3)
    assert (np.diff(found) > -1e-9).all()


def test_the_likelihood_is_students_t_along_a_line():
    """Against a brute-force integral over the numerators' scale, of many degrees of freedom."""
    noise = replace(noise_for(LAWS["two_axis"], 1), freedom=np.array([1e10]))
    z, covariance, total = noise.estimate[0], noise.covariance[0], noise.total

    def brute(m):
        h = np.append(m, 1.0)
        x = np.linspace(-4000, 4000, 400001)
        weight = total @ m
        density = multivariate_normal(z, covariance).pdf(x[:, None] / weight * h)
        return np.log(np.trapezoid(density, x))

    law = LAWS["two_axis"]
    data = replace(crossing_data(crossings_table(law, 1), law), noise=noise)
    flat = CrossingParameters(data, law)
    silent = CrossingParameters(replace(data, noise=replace(noise, freedom=np.zeros(1))), law)
    position = flat.center.copy()
    differences = []
    for m in ([20.0, 100.0], [60.0, 100.0], [25.0, 400.0], [200.0, 3000.0]):
        position[flat.slices["log_noise"]] = np.log(m)
        ours = crossing_density(flat)(position)[0] - crossing_density(silent)(position)[0]
        differences.append(ours - brute(np.array(m)))
    assert differences == pytest.approx([differences[0]] * 4, abs=2e-3)


def test_noise_without_probes_leaves_the_fit_as_it_is():
    """Its density integrates to the chance that momentary noise is positive, near one."""
    noise = replace(noise_for(LAW, 2), freedom=np.zeros(2))
    flat = flat_with(noise)
    density, base = crossing_density(flat), flat.center.copy()
    plain = CrossingParameters(replace(flat.data, noise=None), LAW)
    without = crossing_density(plain)(base[: plain.n_dim])[0]
    offset = density(base)[0]
    step = 0.05
    grid = np.arange(-4.0, 4.0, step)
    scale = flat.data.log_batch_scale["B_noise"]
    total = 0.0
    for a in scale + grid:
        for b in scale + grid:
            position = base.copy()
            position[flat.slices["log_noise"]] = a, b
            total += np.exp(density(position)[0] - offset) * step**2
    normalisers = sum(0.5 * np.log(2 * np.pi) + np.log(flat.sd[flat.slices[name]][0])
                      for name in ("noise_offset", "noise_scatter"))
    log_mass = np.log(total) + offset + normalisers - without
    rng = np.random.default_rng(0)
    rho, s = noise.correlation(flat.data.threshold_logit)[1], NOISE_PRIORS.scatter
    first = s * rng.normal(size=100_000)
    second = rho * first + s * np.sqrt(1 - rho**2) * rng.normal(size=100_000)
    growth = np.exp(base[flat.slices["log_growth"]][0])
    positive = np.mean(second + growth > first)  # S M must increase
    assert np.exp(log_mass) == pytest.approx(positive, abs=0.01)


def test_resolved_ranges_and_starts():
    noise = noise_for(LAWS["two_axis"], 4)
    assert noise.resolved().tolist() == [bool(y > 2) for y in _signals(noise)]
    start = noise.start()
    assert start.shape == (2, 4)
    assert np.isfinite(start).all()  # a range without probes lies between its neighbours
    assert noise.labels(np.array([0.4, 0.5, 0.6, 0.7, 0.8]))[:2] == ["B_prompt up to 0.4",
                                                                   "B_prompt up to 0.5"]


def _signals(noise):
    """Denominators in their errors, 0 where nothing was measured (t quantile about 1.9)."""
    return [noise.estimate[k, -1] / np.sqrt(noise.covariance[k, -1, -1])
            if noise.freedom[k] else 0.0 for k in range(noise.n_ranges)]
