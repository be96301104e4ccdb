r"""Log density and gradient of the trajectory model as one compiled pass over flat arrays.

`cbsbayes.models.trajectory_flat` says what the model is; tests hold this restatement of its
likelihood to a plain one and to finite differences. It is written by hand because everything else
about a fit is cheap: with the runs' own parameters integrated out in closed form, sampling costs
some twenty thousand of these passes and nothing more.

One pass, forward:

1. the shared curve A(τ), what the validation set shows of it, h(τ), and their slopes at the nodes
   of a fixed grid of log τ;
2. updates s(τ) of every distinct batch, :math:`s = \int (1 + N(A)/P)^\alpha d\tau`;
3. every evaluation: h at its update by cubic Hermite interpolation over log s, whose node slopes
   are exact; a group that saturates lower shows a share f of what the curve has gained by then;
4. every run: a scalar Kalman filter takes the serial correlation out of its residuals and of the
   columns that its own parameters act through, whose normal prior is then integrated out.

Then the same backwards. All functions live in this file, because numba's disk cache does not see
changes of a callee elsewhere; constants of other modules come in through the data, one block of
memory made by `cbsbayes.models.trajectory_words`, so that a sampler may call this by its address.
"""

from __future__ import annotations

from functools import cache
from math import exp, log, log1p, pi, sqrt
from typing import Any

import numpy as np
from numba import carray, types

from cbsbayes.models.compiled import compiled, compiled_callback

__all__ = [
    "ALPHA", "BRIDGE", "CEILING", "CURVATURE", "EDGE", "LENGTH", "LEVEL", "LOSS",
    "N_LATENT", "N_RAMPS", "N_SCALES", "N_STARTS", "OFFSET", "PARTS", "POWER", "SCALES",
    "SERIAL", "SHAPE", "SIGMA_NOISE", "SIGMA_RUN", "START", "TREND", "WANDER", "gradients",
    "log_densities", "log_density", "prepare", "run_posteriors", "sampler_callbacks",
]

PARTS = ("layout", "run_cell", "run_start",
         "center", "precision", "constants", "log_tau", "weights",
         "log_step", "reference", "accuracy", "variance", "spread", "gap", "ramps",
         "base", "bridge", "bridge_slope", "bridge_start", "group_share")
"""The data's parts in their order; the first three are integers (see `trajectory_words`)."""

# Places in `layout`: where a block of the position starts (-1: not in this model), and facts.
(START, CEILING, LEVEL, SHAPE, SCALES, CURVATURE, ALPHA, SIGMA_RUN, WANDER, OFFSET,
 SIGMA_NOISE, SERIAL, LENGTH, TREND, BRIDGE, LOSS) = range(16)
N_STARTS = 16
POWER, N_SCALES = 16, 17

N_RAMPS = 4  # increments of a run's wander
N_LATENT = N_RAMPS + 2  # run effect, wander, offset
EDGE = 0.002  # accuracies nearer to 0 and 1 count as this one where noise is concerned

def log_density(position: np.ndarray, words: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the log density of the unconstrained position, and its gradient.

    Parameters
    ----------
    position : numpy.ndarray
        Point of the unconstrained space, shape (n,).
    words : numpy.ndarray
        The data, from `cbsbayes.models.trajectory_words.data_words`.

    Returns
    -------
    tuple
        Log density, and its gradient of shape (n,).
    """
    value, gradient = gradients(position[None], words)
    return value[0], gradient[0]


def gradients(positions: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log density of many positions, shape (draw,), and its gradient, (draw, n)."""
    return _evaluate_many(np.ascontiguousarray(positions), words, words.view(np.float64), True)[:2]


def log_densities(
    positions: np.ndarray, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log density of many positions, and the log likelihood of every run.

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (draw, n).
    words : numpy.ndarray
        The data.

    Returns
    -------
    tuple
        Log density, shape (draw,), and log p(curve of a run), shape (draw, run).
    """
    value, _, runs = _evaluate_many(np.ascontiguousarray(positions), words,
                                    words.view(np.float64), False)
    return value, runs


def run_posteriors(
    positions: np.ndarray, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the data say of each run's own parameters, given the shared ones.

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (draw, n).
    words : numpy.ndarray
        The data.

    Returns
    -------
    tuple
        Mean, shape (draw, run, latent), and covariance, shape (draw, run, latent, latent), in
        units of the prior's spread: run effect, wander increments, offset.
    """
    return _run_posteriors(np.ascontiguousarray(positions), words, words.view(np.float64))


def prepare() -> None:
    """Compile what takes many positions, or read it where it is kept, before it is needed."""
    given = types.float64[:, ::1], types.int64[::1], types.float64[::1]
    _evaluate_many.compile((*given, types.boolean))
    _run_posteriors.compile(given)


@cache
def sampler_callbacks() -> tuple[Any, Any]:
    """Return the C functions that nutpie calls: log density with gradient, and a copy of a draw.

    Both get the data's address as their last argument and return 0, or another number where
    the point has no finite density.
    """
    double = types.CPointer(types.double)
    density = types.int64(types.uint64, double, double, double, types.voidptr)
    copy = types.int64(types.uint64, types.uint64, double, double, types.voidptr)
    return (compiled_callback(density)(_density_callback),
            compiled_callback(copy)(_copy_callback))


def _density_callback(n: Any, at: Any, out: Any, result: Any, data: Any) -> int:
    whitened, gradient = carray(at, (n,)), carray(out, (n,))
    n_words = carray(data, (1,), np.int64)[0]
    words, reals = carray(data, (n_words,), np.int64), carray(data, (n_words,), np.float64)
    value = _evaluate_whitened(whitened, words, reals, gradient)
    carray(result, (1,))[0] = value
    finite = np.isfinite(value)
    for slope in gradient:
        finite &= np.isfinite(slope)
    return 0 if finite else 1


def _copy_callback(n: Any, n_out: Any, at: Any, out: Any, data: Any) -> int:
    position, copy = carray(at, (n,)), carray(out, (n_out,))
    for j in range(n_out):
        copy[j] = position[j]
    return 0


@compiled
def _evaluate_whitened(
    whitened: np.ndarray, words: np.ndarray, reals: np.ndarray, gradient: np.ndarray
) -> float:
    """Return the density over a whitened position, x = m + L z, with m and L after the parts."""
    n = len(whitened)
    first = words[len(PARTS)]
    middle, factor = reals[first:first + n], reals[first + n:first + n + n * n].reshape((n, n))
    position, slope = np.empty(n), np.empty(n)
    for j in range(n):
        position[j] = middle[j]
        for k in range(j + 1):
            position[j] += factor[j, k] * whitened[k]
    value = _evaluate(position, words, reals, slope)
    for k in range(n):
        gradient[k] = 0.0
    for j in range(n):
        for k in range(j + 1):
            gradient[k] += factor[j, k] * slope[j]
    return value


@compiled
def _part(values: np.ndarray, words: np.ndarray, place: int) -> np.ndarray:
    """Return one part of the data; word 0 is the length of all, then come the parts' ends."""
    first = words[place] if place > 0 else len(PARTS) + 1
    return values[first:words[place + 1]]


@compiled
def _evaluate_many(
    positions: np.ndarray, words: np.ndarray, reals: np.ndarray, backward: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n_runs = len(_part(words, words, 1))
    values, runs = np.empty(len(positions)), np.empty((len(positions), n_runs))
    gradient = np.empty_like(positions)
    means, covariances = np.empty((0, N_LATENT)), np.empty((0, N_LATENT, N_LATENT))
    for d in range(len(positions)):
        values[d] = _pass(positions[d], words, reals, gradient[d], backward, runs[d], means,
                          covariances)
    return values, gradient, runs


@compiled
def _run_posteriors(
    positions: np.ndarray, words: np.ndarray, reals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    n_runs = len(_part(words, words, 1))
    shape = (len(positions), n_runs, N_LATENT)
    means, covariances = np.empty(shape), np.empty((*shape, N_LATENT))
    gradient, runs = np.empty(positions.shape[1]), np.empty(n_runs)
    for d in range(len(positions)):
        _pass(positions[d], words, reals, gradient, False, runs, means[d], covariances[d])
    return means, covariances


@compiled
def _evaluate(
    position: np.ndarray, words: np.ndarray, reals: np.ndarray, gradient: np.ndarray
) -> float:
    """Return the log density and fill in its gradient; `reals` are the words read as reals."""
    runs = np.empty(len(_part(words, words, 1)))
    means, covariances = np.empty((0, N_LATENT)), np.empty((0, N_LATENT, N_LATENT))
    return _pass(position, words, reals, gradient, True, runs, means, covariances)


@compiled
def _pass(
    position: np.ndarray, words: np.ndarray, reals: np.ndarray, gradient: np.ndarray,
    backward: bool, runs: np.ndarray, means: np.ndarray, covariances: np.ndarray,
) -> float:
    """Return the log density; fill `runs`, the gradient if asked, the runs' own if wanted."""
    layout = _part(words, words, 0)
    constants, log_tau = _part(reals, words, 5), _part(reals, words, 6)
    n_scales, n_nodes = layout[N_SCALES], len(log_tau)
    weights = _part(reals, words, 7)
    n_cells = len(weights) // n_scales - 1
    weights = weights.reshape((n_scales, n_cells + 1))

    value = constants[0] + _normal_priors(position, _part(reals, words, 3),
                                          _part(reals, words, 4), gradient)
    alpha, alpha_slope, log_p = _exponent(position, layout, constants, gradient)
    value += log_p

    middle_noise = _middle_noise(position, layout, weights, alpha)
    log_half = position[layout[LEVEL]] - middle_noise
    basis, basis_slope = _part(reals, words, 16), _part(reals, words, 17)
    curve = np.empty((n_nodes, 3))  # level A, observed h, dh/dlog τ
    _curve(position, layout, log_tau, log_half, basis, basis_slope, curve)
    noise, hard = np.empty((n_scales, n_nodes)), np.empty(n_nodes)
    _noise(position, layout, constants[6], curve, hard, noise)
    nodes = np.empty((n_cells, n_nodes, 2))  # log s, dh/dlog s
    slopes = np.empty((n_cells, n_nodes, 4))
    tau = np.exp(log_tau)
    _steps(tau, weights, noise, curve, alpha, layout[POWER] == 1, nodes, slopes)

    curve_bar = np.zeros_like(curve)
    nodes_bar = np.zeros_like(nodes)
    value += _runs(position, words, reals, layout, constants, curve, nodes, backward, runs,
                   means, covariances, curve_bar, nodes_bar, gradient)
    if not backward:
        return value

    noise_bar = np.zeros_like(noise)
    alpha_bar = _reverse_steps(tau, weights, noise, nodes, slopes, nodes_bar, curve_bar,
                               noise_bar)
    _reverse_noise(position, layout, curve, hard, noise_bar, curve_bar, gradient)
    half_bar = _reverse_curve(position, layout, log_tau, log_half, basis, basis_slope, curve_bar,
                              gradient)
    gradient[layout[LEVEL]] += half_bar
    alpha_bar += _reverse_middle_noise(position, layout, weights, alpha, -half_bar, gradient)
    if layout[ALPHA] >= 0:
        gradient[layout[ALPHA]] += alpha_slope * alpha_bar
    return value


@compiled
def _normal_priors(
    position: np.ndarray, center: np.ndarray, precision: np.ndarray, gradient: np.ndarray
) -> float:
    """Return the log density of all normal priors but for constants, and set its gradient."""
    value = 0.0
    for j in range(len(position)):
        away = position[j] - center[j]
        gradient[j] = -precision[j] * away
        value += 0.5 * gradient[j] * away
    return value


@compiled
def _exponent(
    position: np.ndarray, layout: np.ndarray, constants: np.ndarray, gradient: np.ndarray
) -> tuple[float, float, float]:
    """Return the exponent, its slope by its coordinate, and its log density with Jacobian."""
    if layout[ALPHA] < 0:
        return constants[1], 0.0, 0.0
    lower, upper, mean, precision = constants[2:6]
    v = position[layout[ALPHA]]
    t = exp(-abs(v))
    below, above = (1.0, t) if v >= 0 else (t, 1.0)
    share, rest = below / (1.0 + t), above / (1.0 + t)
    alpha = lower + (upper - lower) * share
    slope = (upper - lower) * share * rest
    away = alpha - mean
    gradient[layout[ALPHA]] += rest - share - precision * away * slope
    return alpha, slope, -abs(v) - 2.0 * log1p(t) - 0.5 * precision * away * away


@compiled
def _law(noise: float, alpha: float, power: bool) -> tuple[float, float, float]:
    """Return log S/S_min of noise over prompts, and its slopes by log noise and by alpha."""
    if power:
        log_noise = log(noise)
        y = alpha * log_noise
        t = exp(-abs(y))
        share = (1.0 if y >= 0 else t) / (1.0 + t)
        return max(y, 0.0) + log1p(t), alpha * share, log_noise * share
    growth = log1p(noise)
    return alpha * growth, alpha * noise / (1.0 + noise), growth


@compiled
def _middle_noise(
    position: np.ndarray, layout: np.ndarray, weights: np.ndarray, alpha: float
) -> float:
    """Return log S/S_min at the middle batch and the middle accuracy, where levels are stated."""
    noise = 0.0
    for s in range(len(weights)):
        noise += exp(position[layout[SCALES] + 2 * s]) * weights[s, -1]
    return _law(noise, alpha, layout[POWER] == 1)[0]


@compiled
def _reverse_middle_noise(
    position: np.ndarray, layout: np.ndarray, weights: np.ndarray, alpha: float, bar: float,
    gradient: np.ndarray,
) -> float:
    """Add the slopes by the noise levels; return that by the exponent."""
    noise = 0.0
    for s in range(len(weights)):
        noise += exp(position[layout[SCALES] + 2 * s]) * weights[s, -1]
    _, by_noise, by_alpha = _law(noise, alpha, layout[POWER] == 1)
    for s in range(len(weights)):
        at = layout[SCALES] + 2 * s
        gradient[at] += bar * by_noise * exp(position[at]) * weights[s, -1] / noise
    return bar * by_alpha


@compiled
def _logistic(v: float) -> float:
    return 1.0 / (1.0 + exp(-v)) if v >= 0 else exp(v) / (1.0 + exp(v))


@compiled
def _curve(
    position: np.ndarray, layout: np.ndarray, log_tau: np.ndarray, log_half: float,
    basis: np.ndarray, basis_slope: np.ndarray, curve: np.ndarray,
) -> None:
    """Fill in level A, observed accuracy h and dh/dlog τ: a stretched exponential and its bend."""
    start, shape = _logistic(position[layout[START]]), exp(position[layout[SHAPE]])
    gain = (1.0 - start) * _logistic(position[layout[CEILING]])
    n_nodes, first = len(log_tau), layout[BRIDGE]
    for k in range(n_nodes):
        bend, bend_slope = 0.0, 0.0
        for j in range(len(position) - first):
            bend += position[first + j] * basis[j * n_nodes + k]
            bend_slope += position[first + j] * basis_slope[j * n_nodes + k]
        z = log(2.0) * exp(min(shape * (log_tau[k] - log_half), 6.0))  # e^6 ln 2: A is the ceiling
        rest = exp(-z)
        curve[k, 0] = start + gain * (1.0 - rest)
        curve[k, 1] = curve[k, 0] + bend
        curve[k, 2] = gain * shape * rest * z + bend_slope


@compiled
def _reverse_curve(
    position: np.ndarray, layout: np.ndarray, log_tau: np.ndarray, log_half: float,
    basis: np.ndarray, basis_slope: np.ndarray, curve_bar: np.ndarray, gradient: np.ndarray,
) -> float:
    """Add the slopes by start, ceiling, shape and bend; return that by the log of the half time."""
    start, shape = _logistic(position[layout[START]]), exp(position[layout[SHAPE]])
    share = _logistic(position[layout[CEILING]])
    gain = (1.0 - start) * share
    n_nodes, first = len(log_tau), layout[BRIDGE]
    half_bar, start_bar, gain_bar = 0.0, 0.0, 0.0
    for k in range(n_nodes):
        away = shape * (log_tau[k] - log_half)
        z = log(2.0) * exp(min(away, 6.0))
        rest = exp(-z)
        up, slope = curve_bar[k, 0] + curve_bar[k, 1], curve_bar[k, 2]
        start_bar += up
        gain_bar += up * (1.0 - rest) + slope * shape * rest * z
        away_bar = 0.0
        if away < 6.0:
            away_bar = rest * z * gain * (up + slope * shape * (1.0 - z))
        gradient[layout[SHAPE]] += away_bar * away + slope * gain * shape * rest * z
        half_bar -= away_bar * shape
        for j in range(len(position) - first):
            gradient[first + j] += (curve_bar[k, 1] * basis[j * n_nodes + k]
                                    + slope * basis_slope[j * n_nodes + k])
    gradient[layout[CEILING]] += gain_bar * gain * (1.0 - share)
    gradient[layout[START]] += (start_bar - gain_bar * share) * start * (1.0 - start)
    return half_bar


@compiled
def _noise(
    position: np.ndarray, layout: np.ndarray, reference: float, curve: np.ndarray,
    hard: np.ndarray, noise: np.ndarray,
) -> None:
    """Fill in logit accuracy from the reference, and the momentary noise over its level."""
    curvature = position[layout[CURVATURE]]
    for k in range(len(hard)):
        a = min(max(curve[k, 1], EDGE), 1.0 - EDGE)
        x = log(a / (1.0 - a)) - reference
        hard[k] = x
        for s in range(len(noise)):
            at = layout[SCALES] + 2 * s
            noise[s, k] = exp(position[at] + position[at + 1] * x + curvature * x * x)


@compiled
def _reverse_noise(
    position: np.ndarray, layout: np.ndarray, curve: np.ndarray, hard: np.ndarray,
    noise_bar: np.ndarray, curve_bar: np.ndarray, gradient: np.ndarray,
) -> None:
    """Add the slopes by levels and trends, and by accuracy; `noise_bar` is by the log noise."""
    curvature = position[layout[CURVATURE]]
    for s in range(len(noise_bar)):
        at = layout[SCALES] + 2 * s
        for k in range(len(hard)):
            bar, x, a = noise_bar[s, k], hard[k], curve[k, 1]
            gradient[at] += bar
            gradient[at + 1] += bar * x
            gradient[layout[CURVATURE]] += bar * x * x
            if EDGE < a < 1.0 - EDGE:
                curve_bar[k, 1] += (bar * (position[at + 1] + 2.0 * curvature * x)
                                    / (a * (1.0 - a)))


@compiled
def _steps(
    tau: np.ndarray, weights: np.ndarray, noise: np.ndarray, curve: np.ndarray, alpha: float,
    power: bool, nodes: np.ndarray, slopes: np.ndarray,
) -> None:
    """Fill in every batch's nodes, and how the law's log ratio falls with noise and exponent."""
    n_cells, n_nodes = nodes.shape[0], nodes.shape[1]
    for c in range(n_cells):
        before, s = 0.0, 0.0
        for k in range(n_nodes):
            over = 0.0
            for j in range(len(weights)):
                over += noise[j, k] * weights[j, c]
            ratio, by_noise, by_alpha = _law(over, alpha, power)
            factor = exp(ratio)
            s += tau[k] * factor if k == 0 else 0.5 * (tau[k] - tau[k - 1]) * (before + factor)
            nodes[c, k, 0] = log(s)
            nodes[c, k, 1] = curve[k, 2] * s / (tau[k] * factor)
            slopes[c, k, 0], slopes[c, k, 1] = s, factor
            slopes[c, k, 2], slopes[c, k, 3] = by_noise / over, by_alpha
            before = factor


@compiled
def _reverse_steps(
    tau: np.ndarray, weights: np.ndarray, noise: np.ndarray, nodes: np.ndarray,
    slopes: np.ndarray, nodes_bar: np.ndarray, curve_bar: np.ndarray,
    noise_bar: np.ndarray,
) -> float:
    """Add the slopes by the curve and by log noise; return that by the exponent."""
    n_cells, n_nodes = nodes.shape[0], nodes.shape[1]
    alpha_bar = 0.0
    for c in range(n_cells):
        s_bar = 0.0  # by s at this node and all later ones
        for k in range(n_nodes - 1, -1, -1):
            s, factor = slopes[c, k, 0], slopes[c, k, 1]
            by_slope = nodes_bar[c, k, 1]
            curve_bar[k, 2] += by_slope * s / (tau[k] * factor)
            later = s_bar  # the factor at this node enters s here and at the next node
            s_bar += (nodes_bar[c, k, 0] + by_slope * nodes[c, k, 1]) / s
            weight = tau[k] if k == 0 else 0.5 * (tau[k] - tau[k - 1])
            ratio_bar = s_bar * weight * factor - by_slope * nodes[c, k, 1]
            if k < n_nodes - 1:
                ratio_bar += later * 0.5 * (tau[k + 1] - tau[k]) * factor
            alpha_bar += ratio_bar * slopes[c, k, 3]
            for j in range(len(weights)):
                noise_bar[j, k] += ratio_bar * slopes[c, k, 2] * noise[j, k] * weights[j, c]
    return alpha_bar


@compiled
def _cubic(
    t: float, d: float, y0: float, y1: float, m0: float, m1: float
) -> tuple[float, float, float]:
    """Return a cubic Hermite piece of width d at its share t, and both derivatives."""
    rise = (y0 - y1) / d
    value = (y0 * (1.0 - t * t * (3.0 - 2.0 * t)) + y1 * t * t * (3.0 - 2.0 * t)
             + d * t * (1.0 - t) * (m0 * (1.0 - t) - m1 * t))
    slope = (6.0 * t * (t - 1.0) * rise + m0 * (1.0 - t) * (1.0 - 3.0 * t)
             + m1 * t * (3.0 * t - 2.0))
    bend = ((12.0 * t - 6.0) * rise + m0 * (6.0 * t - 4.0) + m1 * (6.0 * t - 2.0)) / d
    return value, slope, bend


@compiled
def _on_curve(
    x: float, k: int, curve: np.ndarray, nodes: np.ndarray
) -> tuple[float, float, float]:
    """Return h, dh/dlog s and its own slope; straight on beyond both ends of the grid."""
    n = len(nodes)
    if k < 0:
        return curve[0, 1] + nodes[0, 1] * (x - nodes[0, 0]), nodes[0, 1], 0.0
    if k >= n - 1:
        return curve[n - 1, 1] + nodes[n - 1, 1] * (x - nodes[n - 1, 0]), nodes[n - 1, 1], 0.0
    d = nodes[k + 1, 0] - nodes[k, 0]
    return _cubic((x - nodes[k, 0]) / d, d, curve[k, 1], curve[k + 1, 1], nodes[k, 1],
                  nodes[k + 1, 1])


@compiled
def _reverse_on_curve(
    x: float, k: int, value_bar: float, slope_bar: float, curve: np.ndarray, nodes: np.ndarray,
    curve_bar: np.ndarray, nodes_bar: np.ndarray,
) -> None:
    n = len(nodes)
    if k < 0 or k >= n - 1:
        j = 0 if k < 0 else n - 1
        curve_bar[j, 1] += value_bar
        nodes_bar[j, 1] += value_bar * (x - nodes[j, 0]) + slope_bar
        nodes_bar[j, 0] -= value_bar * nodes[j, 1]
        return
    d = nodes[k + 1, 0] - nodes[k, 0]
    t = (x - nodes[k, 0]) / d
    y0, y1, m0, m1 = curve[k, 1], curve[k + 1, 1], nodes[k, 1], nodes[k + 1, 1]
    _, slope, bend = _cubic(t, d, y0, y1, m0, m1)
    later, steep = t * t * (3.0 - 2.0 * t), 6.0 * t * (t - 1.0)
    curve_bar[k, 1] += value_bar * (1.0 - later) + slope_bar * steep / d
    curve_bar[k + 1, 1] += value_bar * later - slope_bar * steep / d
    first, second = t * (1.0 - t) * (1.0 - t), -t * t * (1.0 - t)
    nodes_bar[k, 1] += value_bar * d * first + slope_bar * (1.0 - t) * (1.0 - 3.0 * t)
    nodes_bar[k + 1, 1] += value_bar * d * second + slope_bar * t * (3.0 * t - 2.0)
    t_bar = d * (value_bar * slope + slope_bar * bend)
    d_bar = (value_bar * (m0 * first + m1 * second) - slope_bar * steep * (y0 - y1) / (d * d)
             - t_bar * t / d)
    nodes_bar[k, 0] -= t_bar / d + d_bar
    nodes_bar[k + 1, 0] += d_bar


@compiled
def _runs(
    position: np.ndarray, words: np.ndarray, reals: np.ndarray, layout: np.ndarray,
    constants: np.ndarray, curve: np.ndarray, nodes: np.ndarray,
    backward: bool, runs: np.ndarray, means: np.ndarray, covariances: np.ndarray,
    curve_bar: np.ndarray, nodes_bar: np.ndarray, gradient: np.ndarray,
) -> float:
    """Return the log likelihood of all runs and add its slopes."""
    run_cell, run_start = _part(words, words, 1), _part(words, words, 2)
    base = _part(reals, words, 15).reshape((len(run_cell), 3))
    sds = np.empty(N_LATENT)
    sds[0] = exp(position[layout[SIGMA_RUN]])
    sds[1:N_LATENT - 1] = exp(position[layout[WANDER]])
    sds[N_LATENT - 1] = exp(position[layout[OFFSET]])
    phi_sq, ar_sq = exp(2.0 * position[layout[SIGMA_NOISE]]), exp(2.0 * position[layout[SERIAL]])
    length, trend = exp(position[layout[LENGTH]]), position[layout[TREND]]
    bars = np.zeros(N_LATENT + 6)  # by log sds, of white and serial noise too, length, trend,
    # then by the share of the gain that the run's group shows, and by where that gain begins
    loss, foot = 0.0, 0.0
    if layout[LOSS] >= 0:
        loss, foot = position[layout[LOSS]], _foot(position, layout, _part(reals, words, 18))
    group_share = _part(reals, words, 19)
    foot_bar = 0.0
    longest = 0
    for i in range(len(run_cell)):
        longest = max(longest, run_start[i + 1] - run_start[i])
    work = np.empty((longest, 2 * (N_LATENT + 1) + 8))
    _start_terms(position, layout, _part(reals, words, 18), phi_sq, base, backward, runs, bars,
                 gradient)
    total = 0.0
    for i in range(len(run_cell)):
        c = run_cell[i]
        shown = exp(-loss * group_share[i])
        bars[N_LATENT + 4], bars[N_LATENT + 5] = 0.0, 0.0
        runs[i] += _one_run(
            words, reals, run_start[i], run_start[i + 1], curve, nodes[c], shown, foot, sds,
            phi_sq, ar_sq, length, trend, backward, work, means[i:i + 1], covariances[i:i + 1],
            curve_bar, nodes_bar[c], bars)
        total += runs[i]
        if backward and layout[LOSS] >= 0:
            gradient[layout[LOSS]] -= bars[N_LATENT + 4] * shown * group_share[i]
            foot_bar += bars[N_LATENT + 5]
    if backward:
        if layout[LOSS] >= 0:
            _reverse_foot(position, layout, _part(reals, words, 18), foot_bar, gradient)
        gradient[layout[SIGMA_RUN]] += bars[0]
        for j in range(1, N_LATENT - 1):
            gradient[layout[WANDER]] += bars[j]
        gradient[layout[OFFSET]] += bars[N_LATENT - 1]
        gradient[layout[SIGMA_NOISE]] += bars[N_LATENT]
        gradient[layout[SERIAL]] += bars[N_LATENT + 1]
        gradient[layout[LENGTH]] += bars[N_LATENT + 2]
        gradient[layout[TREND]] += bars[N_LATENT + 3]
    return total


@compiled
def _start_terms(
    position: np.ndarray, layout: np.ndarray, basis: np.ndarray, phi_sq: float, base: np.ndarray,
    backward: bool, runs: np.ndarray, bars: np.ndarray, gradient: np.ndarray,
) -> None:
    """Set each run's log likelihood to that of its evaluation before training."""
    h = _foot(position, layout, basis)
    h_bar = 0.0
    for i in range(len(base)):
        weight = base[i, 2]
        runs[i] = 0.0
        if weight > 0.0:
            variance = phi_sq * base[i, 1]
            away = base[i, 0] - h
            runs[i] = -0.5 * weight * (log(2.0 * pi * variance) + away * away / variance)
            h_bar += weight * away / variance
            bars[N_LATENT] += weight * (away * away / variance - 1.0)
    if backward:
        _reverse_foot(position, layout, basis, h_bar, gradient)


@compiled
def _foot(position: np.ndarray, layout: np.ndarray, basis: np.ndarray) -> float:
    """Return the accuracy that the validation set shows before training."""
    h = _logistic(position[layout[START]])
    for j in range(len(basis)):
        h += position[layout[BRIDGE] + j] * basis[j]
    return h


@compiled
def _reverse_foot(
    position: np.ndarray, layout: np.ndarray, basis: np.ndarray, bar: float, gradient: np.ndarray
) -> None:
    a = _logistic(position[layout[START]])
    gradient[layout[START]] += bar * a * (1.0 - a)
    for j in range(len(basis)):
        gradient[layout[BRIDGE] + j] += bar * basis[j]


@compiled
def _one_run(
    words: np.ndarray, reals: np.ndarray, first: int, last: int, curve: np.ndarray,
    nodes: np.ndarray, shown: float, foot: float, sds: np.ndarray, phi_sq: float, ar_sq: float,
    length: float, trend: float, backward: bool, work: np.ndarray, mean: np.ndarray,
    covariance: np.ndarray, curve_bar: np.ndarray, nodes_bar: np.ndarray, bars: np.ndarray,
) -> float:
    """Return log p(curve of one run | shared parameters), its own parameters integrated out.

    The run shows the share `shown` of what the curve has gained since its `foot`.
    `work` holds, per evaluation: whitened residual and columns (their innovations), the filter's
    states before them, and what the way back needs.
    """
    q = N_LATENT
    log_step, reference = _part(reals, words, 8), _part(reals, words, 9)
    accuracy, variance = _part(reals, words, 10), _part(reals, words, 11)
    spread, gap = _part(reals, words, 12), _part(reals, words, 13)
    ramps = _part(reals, words, 14)
    state = np.zeros(q + 1)  # of the residual, then of the columns
    known = np.zeros((q, q))
    pull = np.zeros(q)
    square, log_det = 0.0, 0.0
    uncertainty = 0.0
    piece = 0
    # work's columns: 0 innovation r, 1..q innovations V, q+1 .. 2q+1 states before,
    # then: F, gain, predicted P, rho, P before, piece of the grid, h' of the run, curve's gain
    f0 = 2 * (q + 1)
    for e in range(first, last):
        j = e - first
        x = log_step[e] - reference[e]
        while piece < len(nodes) and nodes[piece, 0] <= x:
            piece += 1
        while piece > 0 and nodes[piece - 1, 0] > x:
            piece -= 1
        k = piece - 1
        h, slope, _ = _on_curve(x, k, curve, nodes)
        gained = h - foot
        h -= (1.0 - shown) * gained
        slope *= shown
        rho = exp(-gap[e] / length)
        predicted = rho * rho * uncertainty + ar_sq * (1.0 - rho * rho)
        loading = exp((1.0 + trend) * log(spread[e]))
        white = phi_sq * variance[e] * exp(2.0 * trend * log(spread[e]))
        total = loading * loading * predicted + white
        gain = predicted * loading / total
        for m in range(q + 1):
            work[j, q + 1 + m] = state[m]
            if m == 0:
                signal = accuracy[e] - h - slope * reference[e]
            elif m == 1:
                signal = -slope * sds[0]
            elif m < q:
                signal = -slope * sds[m - 1] * ramps[e * N_RAMPS + m - 2]
            else:
                signal = sds[q - 1]
            ahead = rho * state[m]
            innovation = signal - loading * ahead
            work[j, m] = innovation
            state[m] = ahead + gain * innovation
        work[j, f0], work[j, f0 + 1], work[j, f0 + 2] = total, gain, predicted
        work[j, f0 + 3], work[j, f0 + 4] = rho, uncertainty
        work[j, f0 + 5], work[j, f0 + 6], work[j, f0 + 7] = k, slope, gained
        uncertainty = (1.0 - gain * loading) * predicted
        log_det += log(total)
        square += work[j, 0] * work[j, 0] / total
        for m in range(q):
            scaled = work[j, m + 1] / total
            pull[m] += scaled * work[j, 0]
            for n in range(m + 1):
                known[m, n] += scaled * work[j, n + 1]
    n_evaluations = last - first
    center, spread_of, half_log_det = _solve(known, pull)
    value = -0.5 * (n_evaluations * log(2.0 * pi) + log_det + square) - half_log_det
    for m in range(q):
        value += 0.5 * pull[m] * center[m]
    if len(mean) > 0:
        mean[0, :] = center
        covariance[0, :, :] = spread_of
    if backward:
        _reverse_run(reals, words, first, last, curve, nodes, shown, sds, phi_sq, ar_sq, length,
                     trend, center, spread_of, work, curve_bar, nodes_bar, bars)
    return value


@compiled
def _solve(known: np.ndarray, pull: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (1 + K)^-1 b, (1 + K)^-1 and half its log determinant; K's lower half is given."""
    q = len(pull)
    factor = np.zeros((q, q))
    half_log_det = 0.0
    for m in range(q):
        for n in range(m + 1):
            s = known[m, n] + (1.0 if m == n else 0.0)
            for r in range(n):
                s -= factor[m, r] * factor[n, r]
            if m == n:
                factor[m, m] = sqrt(s)
                half_log_det += log(factor[m, m])
            else:
                factor[m, n] = s / factor[n, n]
    inverse = np.zeros((q, q))  # of the factor
    for n in range(q):
        inverse[n, n] = 1.0 / factor[n, n]
        for m in range(n + 1, q):
            s = 0.0
            for r in range(n, m):
                s -= factor[m, r] * inverse[r, n]
            inverse[m, n] = s / factor[m, m]
    covariance = np.zeros((q, q))
    for m in range(q):
        for n in range(q):
            for r in range(max(m, n), q):
                covariance[m, n] += inverse[r, m] * inverse[r, n]
    center = np.zeros(q)
    for m in range(q):
        for n in range(q):
            center[m] += covariance[m, n] * pull[n]
    return center, covariance, half_log_det


@compiled
def _reverse_run(
    reals: np.ndarray, words: np.ndarray, first: int, last: int, curve: np.ndarray,
    nodes: np.ndarray, shown: float, sds: np.ndarray, phi_sq: float, ar_sq: float,
    length: float, trend: float, center: np.ndarray, covariance: np.ndarray, work: np.ndarray,
    curve_bar: np.ndarray, nodes_bar: np.ndarray, bars: np.ndarray,
) -> None:
    """Add the slopes of one run's log likelihood, evaluations taken from the last to the first."""
    q = N_LATENT
    log_step, reference = _part(reals, words, 8), _part(reals, words, 9)
    variance, spread = _part(reals, words, 11), _part(reals, words, 12)
    gap, ramps = _part(reals, words, 13), _part(reals, words, 14)
    f0 = 2 * (q + 1)
    state_bar = np.zeros(q + 1)
    innovation_bar = np.empty(q + 1)
    uncertainty_bar = 0.0
    for e in range(last - 1, first - 1, -1):
        j = e - first
        total, gain, predicted = work[j, f0], work[j, f0 + 1], work[j, f0 + 2]
        rho, before = work[j, f0 + 3], work[j, f0 + 4]
        log_spread = log(spread[e])
        loading = exp((1.0 + trend) * log_spread)
        # the integral over the run's own parameters
        left = work[j, 0]
        for m in range(q):
            left -= work[j, m + 1] * center[m]
        uncertain = 0.0
        innovation_bar[0] = -left / total
        for m in range(q):
            s = 0.0
            for n in range(q):
                s += covariance[m, n] * work[j, n + 1]
            uncertain += s * work[j, m + 1]
            innovation_bar[m + 1] = (center[m] * left - s) / total
        total_bar = 0.5 * ((left * left + uncertain) / total - 1.0) / total
        # the filter
        gain_bar, rho_bar, loading_bar = 0.0, 0.0, 0.0
        slope_bar, residual_bar = 0.0, 0.0
        slope = work[j, f0 + 6]
        for m in range(q + 1):
            bar = innovation_bar[m] + gain * state_bar[m]
            gain_bar += work[j, m] * state_bar[m]
            ahead_bar = state_bar[m] - loading * bar
            rho_bar += work[j, q + 1 + m] * ahead_bar
            loading_bar -= rho * work[j, q + 1 + m] * bar
            state_bar[m] = rho * ahead_bar
            if m == 0:
                residual_bar = bar
            elif m == 1:
                slope_bar -= bar * sds[0]
                bars[0] -= bar * slope * sds[0]
            elif m < q:
                ramp = ramps[e * N_RAMPS + m - 2]
                slope_bar -= bar * sds[m - 1] * ramp
                bars[m - 1] -= bar * slope * sds[m - 1] * ramp
            else:
                bars[q - 1] += bar * sds[q - 1]
        predicted_bar = (1.0 - gain * loading) * uncertainty_bar
        loading_bar -= gain * predicted * uncertainty_bar
        gain_bar -= loading * predicted * uncertainty_bar
        predicted_bar += gain_bar * loading / total
        loading_bar += gain_bar * predicted / total
        total_bar -= gain_bar * gain / total
        predicted_bar += loading * loading * total_bar
        loading_bar += 2.0 * loading * predicted * total_bar
        white = phi_sq * variance[e] * exp(2.0 * trend * log_spread)
        bars[q] += 2.0 * white * total_bar
        bars[q + 3] += log_spread * (loading * loading_bar + 2.0 * white * total_bar)
        bars[q + 1] += 2.0 * ar_sq * (1.0 - rho * rho) * predicted_bar
        rho_bar += 2.0 * rho * (before - ar_sq) * predicted_bar
        uncertainty_bar = rho * rho * predicted_bar
        bars[q + 2] += rho_bar * rho * gap[e] / length
        # the curve: residual = y - h - h' r, the run's h = foot + shown (curve - foot)
        slope_bar -= residual_bar * reference[e]
        bars[q + 4] += slope_bar * slope / shown - residual_bar * work[j, f0 + 7]
        bars[q + 5] -= (1.0 - shown) * residual_bar
        _reverse_on_curve(log_step[e] - reference[e], int(work[j, f0 + 5]), -residual_bar * shown,
                          slope_bar * shown, curve, nodes, curve_bar, nodes_bar)
