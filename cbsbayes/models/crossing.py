r"""Log density and gradient of the crossing model, its run effects integrated out.

`cbsbayes.models.pymc_models` defines the model; tests hold this compiled restatement to it, and
its integral to brute force. A run's crossings are independent given its effect, z standard
deviations: crossing k lies in its interval with probability :math:`\sigma(b_k - p_k z) -
\sigma(a_k - p_k z)`, log-concave in z, so the integrand has one peak. The integral is a trapezoid
sum over the stretch around it outside of which the integrand is below e^-13 of the peak. Its step
is set by the sharpest bend the integrand can have: for analytic functions the sum then converges
exponentially, and the slope of the sum at fixed nodes is that of the integral.

Everything compiled stands in this file: numba's cache does not notice changes in another one.
"""

from __future__ import annotations

from math import ceil, exp, expm1, log, log1p, sqrt

import numpy as np
from numba import njit

from cbsbayes.models.crossing_arrays import CrossingArrays

__all__ = ["log_density", "run_effects", "run_log_likelihoods"]

_DROP = 13.0  # nats below the peak, where the sum begins and ends
_MOST_NODES, _MOST_STEPS = 4096, 40  # of a run's sum, of a search: some 12 and 3 are usual
_FAR, _SMALL = 40.0, 1e-250  # logistic scales that weigh nothing; a product about to underflow
_FINER = 4  # nodes of the integral cut in so many when run effects are drawn

Shared = tuple[np.ndarray, np.ndarray, np.ndarray]  # log S, carried, 1/scale: see _expected, _links

_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def log_density(position: np.ndarray, d: CrossingArrays) -> tuple[float, np.ndarray]:
    """Return the log density of the unconstrained position, and its gradient, shape (n_dim,).

    Parameters
    ----------
    position : numpy.ndarray
        Shape (n_dim,).
    d : CrossingArrays
        The data.
    """
    gradient = -d.precision * (position - d.center)
    value = d.constant + 0.5 * np.dot(gradient, position - d.center)
    alpha, alpha_slope, log_p = _exponent(position, d, gradient)
    scales, noise, ratio = _law(position, alpha, d)
    carried, inverse_scale = _links(position, d)
    shared = _expected(position, ratio, d), carried, inverse_scale
    curve_bar, links_bar = np.zeros_like(ratio), np.zeros((len(d.gaps), 2))
    sigma = exp(position[d.sigma_run_at])
    value += log_p + _runs(sigma, shared, d, curve_bar, links_bar, gradient)
    _reverse_links(position, carried, links_bar, d, gradient)
    _reverse_expected(position, curve_bar, d, gradient)
    alpha_bar = _reverse_law(scales, alpha, noise, curve_bar, d, gradient)
    if d.alpha_at >= 0:
        gradient[d.alpha_at] += alpha_slope * alpha_bar
    return value, gradient


@_compiled
def run_log_likelihoods(positions: np.ndarray, d: CrossingArrays) -> np.ndarray:
    """Return log p(crossings of a run), its effect integrated out, shape (draw, run).

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (draw, n_dim).
    """
    out = np.empty((len(positions), len(d.batch)))
    ends, pull, at, sums = _room(d)
    for j in range(len(positions)):
        shared = _shared(positions[j].copy(), d)  # contiguous
        sigma = exp(positions[j, d.sigma_run_at])
        for i in range(len(d.batch)):
            m, inside = _standardised(i, sigma, shared, d, ends, pull, at)
            out[j, i] = inside + _integral(ends[:m], pull[:m], sums[:m])
    return out


@_compiled
def run_effects(positions: np.ndarray, uniform: np.ndarray, d: CrossingArrays) -> np.ndarray:
    """Return one draw of every run's effect given the shared parameters, shape (draw, run).

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (draw, n_dim).
    uniform : numpy.ndarray
        Random numbers between 0 and 1, shape (draw, run).
    """
    out = np.empty_like(uniform)
    ends, pull, at, _ = _room(d)
    for j in range(len(positions)):
        shared = _shared(positions[j].copy(), d)  # contiguous
        sigma = exp(positions[j, d.sigma_run_at])
        for i in range(len(d.batch)):
            m, _ = _standardised(i, sigma, shared, d, ends, pull, at)
            out[j, i] = sigma * _quantile(ends[:m], pull[:m], uniform[j, i])
    return out


@_compiled
def _room(d: CrossingArrays) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return arrays for one run's crossings: ends, pull, thresholds, sums."""
    n = len(d.threshold_logit)
    return np.empty((n, 3)), np.empty(n), np.empty(n, np.int64), np.empty((n, 3))


@_compiled
def _shared(position: np.ndarray, d: CrossingArrays) -> Shared:
    alpha, _, _ = _exponent(position, d, np.empty_like(position))
    ratio = _law(position, alpha, d)[2]
    carried, inverse_scale = _links(position, d)
    return _expected(position, ratio, d), carried, inverse_scale


@_compiled
def _exponent(
    position: np.ndarray, d: CrossingArrays, gradient: np.ndarray
) -> tuple[float, float, float]:
    """Return the exponent, its slope by its coordinate, and its log density with Jacobian."""
    if d.alpha_at < 0:
        return d.alpha, 0.0, 0.0
    lower, upper, mean, precision = d.alpha_prior
    v = position[d.alpha_at]
    t = exp(-abs(v))
    share, rest = (1.0 / (1.0 + t), t / (1.0 + t)) if v >= 0 else (t / (1.0 + t), 1.0 / (1.0 + t))
    alpha = lower + (upper - lower) * share
    slope = (upper - lower) * share * rest
    gradient[d.alpha_at] += rest - share - precision * (alpha - mean) * slope
    return alpha, slope, -abs(v) - 2.0 * log1p(t) - 0.5 * precision * (alpha - mean) ** 2


@_compiled
def _law(
    position: np.ndarray, alpha: float, d: CrossingArrays
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the noise scales, (scale, threshold), and x and log S/S_min, (batch, threshold)."""
    scales = np.exp(d.log_scales @ position).reshape((len(d.weights), len(d.threshold_logit)))
    noise = d.weights.T @ scales
    return scales, noise, np.log1p(noise**alpha) if d.power else alpha * np.log1p(noise)


@_compiled
def _expected(position: np.ndarray, ratio: np.ndarray, d: CrossingArrays) -> np.ndarray:
    """Return log S of each batch and threshold without run effects, shape (batch, threshold)."""
    log_s_min = np.zeros(ratio.shape[1])
    for k in range(1, len(log_s_min)):
        log_s_min[k] = log_s_min[k - 1] + exp(position[d.growth_at + k - 1])
    level = position[d.level_at] - ratio[-1, d.middle] - log_s_min[d.middle]
    return ratio + (log_s_min + level)


@_compiled
def _links(position: np.ndarray, d: CrossingArrays) -> tuple[np.ndarray, np.ndarray]:
    """Return what the deviation before is multiplied by, and 1/scale; both of shape (pair,)."""
    scale = exp(position[d.sigma_at]) * d.logistic
    if len(d.threshold_logit) == 1:
        return np.zeros(len(d.gaps)), np.full(len(d.gaps), 1.0 / scale)
    trend, length = position[d.trend_at], exp(position[d.length_at])
    x, before = d.threshold_logit[d.pairs[:, 0]], d.threshold_logit[d.pairs[:, 1]]
    carried = np.exp(trend * (x - before) - d.gaps / length)
    return carried, np.exp(-trend * x) / scale / np.sqrt(-np.expm1(-2.0 * d.gaps / length))


@_compiled
def _runs(
    sigma: float, shared: Shared, d: CrossingArrays, curve_bar: np.ndarray, links_bar: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Return the log likelihood; add its slopes to `curve_bar`, `links_bar` and `gradient`."""
    (curve, carried, inverse_scale), value = shared, 0.0
    ends, pull, at, sums = _room(d)
    for i in range(len(d.batch)):
        m, inside = _standardised(i, sigma, shared, d, ends, pull, at)
        value += inside + _integral(ends[:m], pull[:m], sums[:m])
        b = d.batch[i]
        for q in range(m):
            k, j = at[q], d.pair[i, at[q]]
            before = d.pairs[j, 1]
            shift, along, stretch = sums[q]
            center_bar = -inverse_scale[j] * shift
            curve_bar[b, k] += center_bar
            curve_bar[b, before] -= carried[j] * center_bar
            links_bar[j, 0] += (center_bar * (d.bounds[i, before, 2] - curve[b, before])
                                + inverse_scale[j] * sigma * along)
            width, rest = ends[q, 1] - ends[q, 0], ends[q, 2]
            links_bar[j, 1] -= width * rest / (1.0 - rest) + stretch
            gradient[d.sigma_run_at] -= pull[q] * along
    return value


@_compiled
def _standardised(
    i: int, sigma: float, shared: Shared, d: CrossingArrays, ends: np.ndarray, pull: np.ndarray,
    at: np.ndarray,
) -> tuple[int, float]:
    """Fill in a run's crossings in units of their scale; return how many, and their log widths.

    `ends` are a, b and exp(a - b), `pull` what one standard deviation of the run effect moves them
    by, `at` their thresholds.
    """
    curve, carried, inverse_scale = shared
    m, inside, b = 0, 0.0, d.batch[i]
    for k in range(len(d.threshold_logit)):
        j = d.pair[i, k]
        if j < 0:
            continue
        before = d.pairs[j, 1]
        center = curve[b, k] + carried[j] * (d.bounds[i, before, 2] - curve[b, before])
        ends[m, 0] = (d.bounds[i, k, 0] - center) * inverse_scale[j]
        ends[m, 1] = (d.bounds[i, k, 1] - center) * inverse_scale[j]
        ends[m, 2] = exp(ends[m, 0] - ends[m, 1])
        inside += log(-expm1(ends[m, 0] - ends[m, 1]))
        pull[m] = sigma * (1.0 - carried[j]) * inverse_scale[j]
        at[m] = k
        m += 1
    return m, inside


@_compiled
def _integral(ends: np.ndarray, pull: np.ndarray, sums: np.ndarray) -> float:
    """Return the log integral of a run's integrand over its effect, log widths left out.

    `sums` are filled with the means over z of ``above - below``, of that times z, and of
    ``b above - a below``, a row per crossing.
    """
    low, high, n_nodes = _nodes(ends, pull)
    step = (high - low) / (n_nodes - 1)
    peak, total = -np.inf, 0.0
    tails = np.empty((len(pull), 2))
    sums[:] = 0.0
    for node in range(n_nodes):
        z = low + step * node
        value, _ = _log_integrand(z, ends, pull, tails)
        if value > peak:  # sums are in units of the highest value so far
            shrink = exp(peak - value)
            total *= shrink
            sums *= shrink
            peak = value
        weight = exp(value - peak)
        total += weight
        for k in range(len(pull)):
            below, above = tails[k]
            a, b = ends[k, 0] - pull[k] * z, ends[k, 1] - pull[k] * z
            sums[k, 0] += weight * (above - below)
            sums[k, 1] += weight * (above - below) * z
            sums[k, 2] += weight * (b * above - a * below)
    sums /= total
    return peak + log(total * step) - 0.5 * log(2.0 * np.pi)


@_compiled
def _log_integrand(
    z: float, ends: np.ndarray, pull: np.ndarray, tails: np.ndarray
) -> tuple[float, float]:
    """Return the log integrand at an effect z, and its slope.

    `tails` are filled with P(Z <= a) and P(Z > b) of a standard logistic Z for each crossing. What
    they leave is 1/((1 + e^a)(1 + e^-b)); large exponents are added apart from the product.
    """
    product, linear, slope = 1.0, -0.5 * z * z, -z
    for k in range(len(pull)):
        a, b = ends[k, 0] - pull[k] * z, ends[k, 1] - pull[k] * z
        if a < -_FAR:
            low, high = 0.0, exp(min(-b, _FAR))
            linear -= max(-b - _FAR, 0.0)
        elif a < _FAR:
            low = exp(a)
            high = ends[k, 2] / low
        else:
            low, high = exp(_FAR), 0.0
            linear -= a - _FAR
        share = 1.0 / ((1.0 + low) * (1.0 + high))
        tails[k, 0], tails[k, 1] = low * (1.0 + high) * share, high * (1.0 + low) * share
        product *= share
        if product < _SMALL:
            linear += log(product)
            product = 1.0
        slope += pull[k] * (tails[k, 0] - tails[k, 1])
    return linear + log(product), slope


@_compiled
def _nodes(ends: np.ndarray, pull: np.ndarray) -> tuple[float, float, int]:
    """Return the first node of a run's integral, the last, and how many."""
    tails = np.empty((len(pull), 2))
    peak, top = _peak(ends, pull, tails)
    reach = sqrt(2.0 * _DROP) + 0.5  # the prior alone makes the integrand fall that far within
    low = _end(peak, -reach, top - _DROP, ends, pull, tails)
    high = _end(peak, reach, top - _DROP, ends, pull, tails)
    # a curvature that the log integrand cannot reach, and steps shorter than half the distance of
    # its poles from the real axis, pi/pull, where one crossing outweighs the others
    sharpest, largest = 1.0 + 0.5 * (pull**2).sum(), 0.0
    for steep in pull:
        largest = max(largest, 0.25 * steep**2)
    return low, high, min(ceil((high - low) * sqrt(sharpest + largest)) + 1, _MOST_NODES)


@_compiled
def _peak(ends: np.ndarray, pull: np.ndarray, tails: np.ndarray) -> tuple[float, float]:
    """Return about where the log integrand peaks and how high: Newton's method in a bracket."""
    high = np.abs(pull).sum() + 1.0  # beyond, the slope has one sign
    low, z, value = -high, 0.0, 0.0
    for _ in range(_MOST_STEPS):
        value, slope = _log_integrand(z, ends, pull, tails)
        curvature = 1.0 + ((tails * (1.0 - tails)).sum(axis=1) * pull**2).sum()
        low, high = (z, high) if slope > 0.0 else (low, z)
        step = slope / curvature
        if step * step * curvature < 0.04:  # a fifth of the width at the peak
            return z + step, value
        z = z + step if low < z + step < high else 0.5 * (low + high)
    return z, value


@_compiled
def _end(
    peak: float, away: float, level: float, ends: np.ndarray, pull: np.ndarray, tails: np.ndarray
) -> float:
    """Return where the log integrand has fallen to a level, or a little beyond.

    Newton's method from beyond does not pass the end: the log integrand lies below its tangents.
    """
    z = peak + away
    for _ in range(_MOST_STEPS):
        value, slope = _log_integrand(z, ends, pull, tails)
        step = (level - value) / slope
        if value >= level or abs(step) < 0.1 * abs(z - peak):
            break
        z += step
    return z


@_compiled
def _quantile(ends: np.ndarray, pull: np.ndarray, share: float) -> float:
    """Return the effect below which a share of its distribution lies, in standard deviations."""
    low, high, n_nodes = _nodes(ends, pull)
    tails, n = np.empty((len(pull), 2)), _FINER * n_nodes
    step, log_weight = (high - low) / (n - 1), np.empty(n)
    for node in range(n):
        log_weight[node] = _log_integrand(low + step * node, ends, pull, tails)[0]
    weight = np.exp(log_weight - log_weight.max())
    mass = np.zeros(n)
    mass[1:] = np.cumsum(0.5 * (weight[1:] + weight[:-1]))
    node = min(max(np.searchsorted(mass, share * mass[-1]), 1), n - 1)
    return low + step * (node - (mass[node] - share * mass[-1]) / (mass[node] - mass[node - 1]))


@_compiled
def _reverse_links(
    position: np.ndarray, carried: np.ndarray, links_bar: np.ndarray, d: CrossingArrays,
    gradient: np.ndarray,
) -> None:
    """Add the slopes by the residual's scale, trend and correlation length."""
    gradient[d.sigma_at] += links_bar[:, 1].sum()
    if len(d.threshold_logit) == 1:
        return
    length = exp(position[d.length_at])
    for j in range(len(d.gaps)):
        x, before = d.threshold_logit[d.pairs[j, 0]], d.threshold_logit[d.pairs[j, 1]]
        carried_bar = links_bar[j, 0] * carried[j]
        gradient[d.trend_at] += carried_bar * (x - before) + links_bar[j, 1] * x
        distance = d.gaps[j] / length
        square = exp(-2.0 * distance)
        if square > 0.0:  # nothing is left of the correlation, and 0 times infinity is NaN
            gradient[d.length_at] += distance * (
                carried_bar + links_bar[j, 1] * square / expm1(-2.0 * distance))


@_compiled
def _reverse_expected(
    position: np.ndarray, curve_bar: np.ndarray, d: CrossingArrays, gradient: np.ndarray
) -> None:
    """Add the slopes by the level of S and its growth, and to `curve_bar` that at the middle."""
    by_threshold = curve_bar.sum(axis=0)
    total = by_threshold.sum()
    gradient[d.level_at] += total
    harder = total  # slope by a rise of threshold k and all harder ones
    for k in range(1, len(by_threshold)):
        harder -= by_threshold[k - 1]
        at = d.growth_at + k - 1
        gradient[at] += exp(position[at]) * (harder - (total if k <= d.middle else 0.0))
    curve_bar[-1, d.middle] -= total


@_compiled
def _reverse_law(
    scales: np.ndarray, alpha: float, noise: np.ndarray, curve_bar: np.ndarray,
    d: CrossingArrays, gradient: np.ndarray,
) -> float:
    """Add the slopes by what log noise scales are made of; return that by the exponent."""
    raised = noise**alpha if d.power else noise
    relative = raised / (1.0 + raised)
    by_alpha = np.log(noise) * relative if d.power else np.log1p(noise)
    scales_bar = scales * (d.weights @ (alpha * relative / noise * curve_bar))
    gradient += scales_bar.reshape(-1) @ d.log_scales
    return (by_alpha * curve_bar).sum()
