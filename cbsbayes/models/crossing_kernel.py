r"""Log density and gradient of the crossing model as one compiled pass over flat arrays.

`cbsbayes.models.crossing` defines the model and `cbsbayes.models.laws` the law; tests hold this
restatement to both, constants included. It exists because compiling the definition's graph anew
for every law takes several times as long as sampling it, while this is compiled once and kept on
disk.

Forward and reverse passes are written by hand. With :math:`x_{b,k} = \sum_s B_{s,k} w_{s,b}` at
batch b and threshold k, the law and its derivatives are

.. math::

    f = \alpha \log(1 + x), \qquad
    \partial f / \partial \log B_s = \alpha B_s w_s / (1 + x), \qquad
    \partial f / \partial \alpha = f / \alpha,

and :math:`f = \mathrm{softplus}(\alpha \log x)` under the law ``power``. Runs of one batch share
f, and crossings of one pair of thresholds share the residual's scale and correlation, so that a
crossing itself costs three exponentials and a logarithm.

Run effects are coordinates, or are integrated out where the position holds none (``RUN`` is -1):
each run's likelihood is log-concave in its own effect, and a Gauss-Hermite rule around its peak
takes the integral to some 1e-3 of a nat. The slopes given with it are those of the integrand
averaged over the rule's nodes, and do not follow how the nodes themselves move: exact but for the
rule's error.

Every function here lives in this one file, because numba's disk cache does not see changes of a
callee elsewhere; for the same reason constants of other modules come in through the arguments.
The data are one block of memory, made by `cbsbayes.models.crossing_words`, so that a sampler may
call this by its address, without Python.
"""

from __future__ import annotations

from functools import cache
from math import exp, expm1, log, log1p
from typing import Any

import numpy as np
from numba import carray, types

from cbsbayes.models.compiled import compiled, compiled_callback

__all__ = [
    "ALPHA", "GROWTH", "LENGTH", "LOG_NOISE", "MIDDLE", "N_PARTS", "N_RANGES", "N_SCALES",
    "OFFSET", "PARTS", "POWER", "RUN", "SCATTER", "SIGMA", "SIGMA_RUN", "STEPS_LEVEL", "TREND",
    "log_densities", "log_density", "run_effects", "sampler_callbacks",
]

PARTS = ("layout", "batch", "link", "pairs", "center", "precision", "constants", "hardness",
         "weights", "bounds", "gaps", "noise")
"""The data's parts in their order; integers first, then reals (see `crossing_words`)."""

# Places in `layout`: where a block of the position starts (-1: not in this model), and facts.
ALPHA, STEPS_LEVEL, GROWTH, SIGMA_RUN, RUN, SIGMA, TREND, LENGTH = range(8)
MIDDLE, POWER, N_SCALES = 8, 9, 10
OFFSET, SCATTER, LOG_NOISE, N_PARTS, N_RANGES = 11, 12, 13, 14, 15  # measured noise; -1 without

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)  # of the rule for a run's effect
_LOG_WEIGHTS = np.log(_WEIGHTS / np.sqrt(2.0 * np.pi)) + 0.5 * _NODES**2
_MOST_STEPS, _NEAR = 40, 0.05  # of the search for a peak, and how many widths off is near
_FAR = 40.0  # in logistic scales: what lies beyond weighs less than rounding
_TANGENT, _MOST_TRIES = 1.2, 1000  # of draws of a run's effect: tangents in widths off the peak


def log_density(position: np.ndarray, words: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the log density of the unconstrained position, and its gradient.

    Parameters
    ----------
    position : numpy.ndarray
        Point of the unconstrained space, shape (n,).
    words : numpy.ndarray
        The data, from `cbsbayes.models.crossing_words.data_words`.

    Returns
    -------
    tuple
        Log density, and its gradient of shape (n,).
    """
    value, gradient, _ = _evaluate_many(position[None], words, words.view(np.float64), True)
    return value[0], gradient[0]


def log_densities(
    positions: np.ndarray, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log density of many positions, and the log likelihood of every run.

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (draw, n).
    words : numpy.ndarray
        The data, of a model whose run effects are integrated out.

    Returns
    -------
    tuple
        Log density, shape (draw,), and log p(crossings of a run), shape (draw, run).
    """
    value, _, log_p = _evaluate_many(np.ascontiguousarray(positions), words,
                                     words.view(np.float64), False)
    return value, log_p


def gradients(positions: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log density of many positions, shape (draw,), and its gradient, (draw, n)."""
    value, gradient, _ = _evaluate_many(np.ascontiguousarray(positions), words,
                                        words.view(np.float64), True)
    return value, gradient


def run_effects(positions: np.ndarray, words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one draw of every run's effect given the shared parameters, shape (draw, run).

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (draw, n).
    words : numpy.ndarray
        The data, of a model whose run effects are integrated out.
    rng : numpy.random.Generator
        Source of randomness.
    """
    return _effects_of_many(np.ascontiguousarray(positions), words, words.view(np.float64), rng)


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
    position, gradient = carray(at, (n,)), carray(out, (n,))
    n_words = carray(data, (1,), np.int64)[0]
    value = _evaluate(position, carray(data, (n_words,), np.int64),
                      carray(data, (n_words,), np.float64), gradient, np.empty(0), True)
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
def _evaluate_many(
    positions: np.ndarray, words: np.ndarray, reals: np.ndarray, slopes: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values, gradients if `slopes`, and log p of every run if run effects are not in.

    The one way in from Python, because every other would compile all of this again.
    """
    value, gradient = np.empty(len(positions)), np.empty_like(positions)
    log_p = np.empty((len(positions), words[2] - words[1]))
    for j in range(len(positions)):
        value[j] = _evaluate(positions[j], words, reals, gradient[j], log_p[j], slopes)
    return value, gradient, log_p


@compiled
def _evaluate(
    position: np.ndarray, words: np.ndarray, reals: np.ndarray, gradient: np.ndarray,
    run_log_p: np.ndarray, slopes: bool,
) -> float:
    """Return the log density and fill in its gradient; `reals` are the words read as reals.

    Without `slopes` the gradient is of no use; `run_log_p` is filled in where run effects are
    integrated out.
    """
    layout, batch, link, pairs = _parts(words, words)[:4]
    center, precision, constants, hardness, weights, bounds, gaps, noise = _parts(reals, words)[4:]
    link = link.reshape((len(batch), len(hardness)))
    pairs = pairs.reshape((len(gaps), 2))
    weights = weights.reshape((layout[N_SCALES], len(weights) // layout[N_SCALES]))
    bounds = bounds.reshape((len(batch), len(hardness), 3))
    power = layout[POWER] == 1

    value = constants[0] + _normal_priors(position, center, precision, gradient)
    alpha, slope, log_p = _exponent(position, layout, constants, gradient)
    scales = _noise_scales(position, hardness, len(weights), constants[6])
    ratio, relative = _law(scales, weights, alpha, power)
    curve = _expected(position, layout, ratio)
    correlation, inverse_scale = _links(position, layout, hardness, pairs, gaps, constants[7])

    curve_bar, links_bar = np.zeros_like(ratio), np.zeros((len(gaps), 2))
    if layout[RUN] >= 0:
        value += log_p + _crossings(position, layout, curve, batch, bounds, link, pairs,
                                    correlation, inverse_scale, curve_bar, links_bar, gradient)
    else:
        value += log_p + _marginal(position, layout, curve, batch, bounds, link, pairs,
                                   correlation, inverse_scale, curve_bar, links_bar, gradient,
                                   slopes, run_log_p)

    scales_bar = np.zeros_like(scales)
    if slopes:
        _reverse_links(position, layout, hardness, pairs, gaps, correlation, links_bar, gradient)
        _reverse_expected(position, layout, curve_bar, gradient)
        alpha_bar = _reverse_law(scales, weights, alpha, power, ratio, relative, curve_bar,
                                 scales_bar)
        if layout[ALPHA] >= 0:
            gradient[layout[ALPHA]] += slope * alpha_bar
    if layout[LOG_NOISE] >= 0:
        value += _measured_noise(position, layout, noise, scales, scales_bar, gradient)
    if slopes:
        _reverse_noise_scales(scales_bar, hardness, constants[6], gradient)
    return value


@compiled
def _parts(values: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return all parts of the data; word 0 is the length of all, then come the parts' ends."""
    e = words[: len(PARTS) + 1]
    return (values[len(PARTS) + 1:e[1]], values[e[1]:e[2]], values[e[2]:e[3]], values[e[3]:e[4]],
            values[e[4]:e[5]], values[e[5]:e[6]], values[e[6]:e[7]], values[e[7]:e[8]],
            values[e[8]:e[9]], values[e[9]:e[10]], values[e[10]:e[11]], values[e[11]:e[12]])


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
def _noise_scales(
    position: np.ndarray, hardness: np.ndarray, n_scales: int, spread: float
) -> np.ndarray:
    """Return exp of level, trend and deviations, shape (scale, threshold)."""
    n_thresholds = len(hardness)
    scales = np.empty((n_scales, n_thresholds))
    if n_thresholds == 1:
        for s in range(n_scales):
            scales[s, 0] = exp(position[s])
        return scales
    for s in range(n_scales):
        start = s * (n_thresholds + 2)
        for k in range(n_thresholds):
            scales[s, k] = exp(position[start] + position[start + 1] * hardness[k]
                               + spread * position[start + 2 + k])
    return scales


@compiled
def _law(
    scales: np.ndarray, weights: np.ndarray, alpha: float, power: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return log S/S_min and 1/(1 + x), of ``power`` x^alpha/(1 + x^alpha); (batch, threshold)."""
    n_scales, n_batches = weights.shape
    n_thresholds = scales.shape[1]
    ratio = np.empty((n_batches, n_thresholds))
    relative = np.empty((n_batches, n_thresholds))
    for b in range(n_batches):
        for k in range(n_thresholds):
            x = 0.0
            for s in range(n_scales):
                x += scales[s, k] * weights[s, b]
            if power:
                y = alpha * log(x)
                t = exp(-abs(y))
                ratio[b, k] = max(y, 0.0) + log1p(t)
                relative[b, k] = (1.0 if y >= 0 else t) / (1.0 + t)
            else:
                ratio[b, k] = alpha * log1p(x)
                relative[b, k] = 1.0 / (1.0 + x)
    return ratio, relative


@compiled
def _expected(position: np.ndarray, layout: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return log S of each batch and threshold without run effects, shape (batch, threshold)."""
    n_batches, n_thresholds = ratio.shape[0] - 1, ratio.shape[1]
    middle = layout[MIDDLE]
    log_s_min = np.empty(n_thresholds)
    climb = 0.0
    for k in range(n_thresholds):
        if k > 0:
            climb += exp(position[layout[GROWTH] + k - 1])
        log_s_min[k] = climb
    base = position[layout[STEPS_LEVEL]] - ratio[n_batches, middle] - log_s_min[middle]
    curve = np.empty((n_batches, n_thresholds))
    for b in range(n_batches):
        for k in range(n_thresholds):
            curve[b, k] = base + log_s_min[k] + ratio[b, k]
    return curve


@compiled
def _links(
    position: np.ndarray, layout: np.ndarray, hardness: np.ndarray, pairs: np.ndarray,
    gaps: np.ndarray, log_logistic: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the previous deviation is multiplied by, and 1/scale; both of shape (pair,)."""
    correlation, inverse_scale = np.zeros(len(gaps)), np.empty(len(gaps))
    log_scale = position[layout[SIGMA]] + log_logistic
    if len(hardness) == 1:
        inverse_scale[:] = exp(-log_scale)
        return correlation, inverse_scale
    trend, length = position[layout[TREND]], exp(position[layout[LENGTH]])
    for j in range(len(gaps)):
        x, before = hardness[pairs[j, 0]], hardness[pairs[j, 1]]
        correlation[j] = exp(trend * (x - before) - gaps[j] / length)
        inverse_scale[j] = exp(-log_scale - trend * x) / np.sqrt(-expm1(-2.0 * gaps[j] / length))
    return correlation, inverse_scale


@compiled
def _crossings(
    position: np.ndarray, layout: np.ndarray, curve: np.ndarray, batch: np.ndarray,
    bounds: np.ndarray, link: np.ndarray, pairs: np.ndarray, correlation: np.ndarray,
    inverse_scale: np.ndarray, curve_bar: np.ndarray, links_bar: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Return the log likelihood; add its slopes to `curve_bar`, `links_bar` and `gradient`."""
    sigma_run = exp(position[layout[SIGMA_RUN]])
    value, sigma_bar = 0.0, 0.0
    for i in range(len(batch)):
        b = batch[i]
        effect = sigma_run * position[layout[RUN] + i]
        effect_bar = 0.0
        for k in range(link.shape[1]):
            j = link[i, k]
            if j < 0:
                continue
            before = pairs[j, 1]
            residual = bounds[i, before, 2] - curve[b, before] - effect
            center = curve[b, k] + effect + correlation[j] * residual
            log_p, shift, stretch = _log_interval((bounds[i, k, 0] - center) * inverse_scale[j],
                                                  (bounds[i, k, 1] - center) * inverse_scale[j])
            value += log_p
            center_bar = -inverse_scale[j] * shift
            curve_bar[b, k] += center_bar
            curve_bar[b, before] -= correlation[j] * center_bar
            effect_bar += (1.0 - correlation[j]) * center_bar
            links_bar[j, 0] += center_bar * residual
            links_bar[j, 1] -= stretch
        gradient[layout[RUN] + i] += sigma_run * effect_bar
        sigma_bar += effect * effect_bar
    gradient[layout[SIGMA_RUN]] += sigma_bar
    return value


@compiled
def _marginal(
    position: np.ndarray, layout: np.ndarray, curve: np.ndarray, batch: np.ndarray,
    bounds: np.ndarray, link: np.ndarray, pairs: np.ndarray, correlation: np.ndarray,
    inverse_scale: np.ndarray, curve_bar: np.ndarray, links_bar: np.ndarray,
    gradient: np.ndarray, slopes: bool, run_log_p: np.ndarray,
) -> float:
    """Return the log likelihood with run effects integrated out, and add its slopes.

    A run's effect is measured in its standard deviations, z, so that crossing k's bounds in units
    of its scale are ``ends[k] - pull[k] z``.
    """
    sigma = exp(position[layout[SIGMA_RUN]])
    n = link.shape[1]
    ends, pull, at = np.empty((n, 3)), np.empty(n), np.empty(n, np.int64)
    shift, stretch = np.empty((n, len(_NODES))), np.empty((n, len(_NODES)))
    z, share = np.empty(len(_NODES)), np.empty(len(_NODES))
    value = 0.0
    for i in range(len(batch)):
        m, log_p = _standardised(i, sigma, curve[batch[i]], bounds, link, pairs, correlation,
                                 inverse_scale, ends, pull, at)
        peak, width = _peak(ends[:m], pull[:m])
        highest = -np.inf
        for q in range(len(_NODES)):
            z[q] = peak + width * _NODES[q]
            product, linear = 1.0, 0.0
            for k in range(m):
                a, b = ends[k, 0] - pull[k] * z[q], ends[k, 1] - pull[k] * z[q]
                below, above, factor, straight = _outside(a, b, ends[k, 2])
                product *= factor
                linear += straight
                if slopes:
                    shift[k, q] = above - below
                    stretch[k, q] = b * above - a * below
            share[q] = _LOG_WEIGHTS[q] - log(product) - linear - 0.5 * z[q] * z[q]
            highest = max(highest, share[q])
        total = 0.0
        for q in range(len(_NODES)):
            share[q] = exp(share[q] - highest)
            total += share[q]
        log_p += log(width) + highest + log(total)
        value += log_p
        run_log_p[i] = log_p
        if slopes:
            share /= total
            gradient[layout[SIGMA_RUN]] += _reverse_run(
                i, sigma, curve[batch[i]], bounds, pairs, correlation, inverse_scale, ends, pull,
                at[:m], z, share, shift, stretch, curve_bar[batch[i]], links_bar, link)
    return value


@compiled
def _standardised(
    i: int, sigma: float, curve: np.ndarray, bounds: np.ndarray, link: np.ndarray,
    pairs: np.ndarray, correlation: np.ndarray, inverse_scale: np.ndarray, ends: np.ndarray,
    pull: np.ndarray, at: np.ndarray,
) -> tuple[int, float]:
    """Fill in a run's informative crossings; return how many, and what no effect changes."""
    m, log_inside = 0, 0.0
    for k in range(link.shape[1]):
        j = link[i, k]
        if j < 0:
            continue
        before = pairs[j, 1]
        center = curve[k] + correlation[j] * (bounds[i, before, 2] - curve[before])
        ends[m, 0] = (bounds[i, k, 0] - center) * inverse_scale[j]
        ends[m, 1] = (bounds[i, k, 1] - center) * inverse_scale[j]
        pull[m] = sigma * (1.0 - correlation[j]) * inverse_scale[j]
        at[m] = k
        inside = -expm1(ends[m, 0] - ends[m, 1])
        ends[m, 2] = 1.0 - inside
        log_inside += log(inside)
        m += 1
    return m, log_inside


@compiled
def _outside(a: float, b: float, rest: float) -> tuple[float, float, float, float]:
    """Return P(Z <= a) and P(Z > b) of a standard logistic Z, and minus log of what they leave.

    That is log(factor) + straight, for a factor from 1 to 4, so that many may be multiplied
    before one logarithm. `rest` is exp(a - b): one exponential serves both ends.
    """
    if a > -_FAR:
        ea = exp(-a)
        eb = ea * rest
        below = 1.0 / (1.0 + ea)
        factor, straight = (1.0 + ea, a) if a >= 0 else (1.0 + 1.0 / ea, 0.0)
    else:
        eb = exp(min(-b, _FAR))
        below, factor, straight = 0.0, 1.0, 0.0
    if b >= 0:
        factor *= 1.0 + eb
    else:
        factor *= 1.0 + 1.0 / eb
        straight -= b
    return below, eb / (1.0 + eb), factor, straight


@compiled
def _peak(ends: np.ndarray, pull: np.ndarray) -> tuple[float, float]:
    """Return where a run's integrand peaks and how wide it is there, in sds of the run effect.

    Newton's method on the slope, which falls everywhere; a step that leaves the bracket is
    replaced by its middle, because far out the logistic's curvature vanishes.
    """
    high = 0.0
    for k in range(len(pull)):
        high += abs(pull[k])
    low, z, width = -high, 0.0, 1.0
    for _ in range(_MOST_STEPS):
        slope, curvature = -z, 1.0
        for k in range(len(pull)):
            below, above, _, _ = _outside(ends[k, 0] - pull[k] * z, ends[k, 1] - pull[k] * z,
                                          ends[k, 2])
            slope += pull[k] * (below - above)
            curvature += pull[k] * pull[k] * (below * (1.0 - below) + above * (1.0 - above))
        width = 1.0 / np.sqrt(curvature)
        if slope > 0.0:
            low = z
        else:
            high = z
        step = slope / curvature
        near = abs(step) < _NEAR * width
        z = z + step if near or low < z + step < high else 0.5 * (low + high)
        if near:
            break
    return z, width


@compiled
def _reverse_run(
    i: int, sigma: float, curve: np.ndarray, bounds: np.ndarray, pairs: np.ndarray,
    correlation: np.ndarray, inverse_scale: np.ndarray, ends: np.ndarray, pull: np.ndarray,
    at: np.ndarray, z: np.ndarray, share: np.ndarray, shift: np.ndarray, stretch: np.ndarray,
    curve_bar: np.ndarray, links_bar: np.ndarray, link: np.ndarray,
) -> float:
    """Add a run's slopes, averaged over its effect; return that by the log of its spread."""
    sigma_bar = 0.0
    for m in range(len(at)):
        j = link[i, at[m]]
        before = pairs[j, 1]
        mean, along, stretched = 0.0, 0.0, 0.0
        for q in range(len(z)):
            mean += share[q] * shift[m, q]
            along += share[q] * shift[m, q] * z[q]
            stretched += share[q] * stretch[m, q]
        width, rest = ends[m, 1] - ends[m, 0], ends[m, 2]
        center_bar = -inverse_scale[j] * mean
        curve_bar[at[m]] += center_bar
        curve_bar[before] -= correlation[j] * center_bar
        links_bar[j, 0] += (center_bar * (bounds[i, before, 2] - curve[before])
                            + inverse_scale[j] * sigma * along)
        links_bar[j, 1] -= width * rest / (1.0 - rest) + stretched
        sigma_bar -= pull[m] * along
    return sigma_bar


@compiled
def _effects_of_many(
    positions: np.ndarray, words: np.ndarray, reals: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    layout, batch, link, pairs = _parts(words, words)[:4]
    _, _, constants, hardness, weights, bounds, gaps, _ = _parts(reals, words)[4:]
    n = len(hardness)
    link = link.reshape((len(batch), n))
    pairs = pairs.reshape((len(gaps), 2))
    weights = weights.reshape((layout[N_SCALES], len(weights) // layout[N_SCALES]))
    bounds = bounds.reshape((len(batch), n, 3))
    ends, pull, at = np.empty((n, 3)), np.empty(n), np.empty(n, np.int64)
    effect, unused = np.empty((len(positions), len(batch))), np.empty(positions.shape[1])
    for d in range(len(positions)):
        position = positions[d]
        alpha, _, _ = _exponent(position, layout, constants, unused)
        scales = _noise_scales(position, hardness, len(weights), constants[6])
        ratio, _ = _law(scales, weights, alpha, layout[POWER] == 1)
        curve = _expected(position, layout, ratio)
        correlation, inverse_scale = _links(position, layout, hardness, pairs, gaps, constants[7])
        sigma = exp(position[layout[SIGMA_RUN]])
        for i in range(len(batch)):
            m, _ = _standardised(i, sigma, curve[batch[i]], bounds, link, pairs, correlation,
                                 inverse_scale, ends, pull, at)
            effect[d, i] = sigma * _effect(ends[:m], pull[:m], rng)
    return effect


@compiled
def _effect(ends: np.ndarray, pull: np.ndarray, rng: np.random.Generator) -> float:
    """Return a draw of a run's effect in its sds: rejection from three tangents of its log density.

    It is log-concave, so tangents lie above it (Gilks & Wild 1992); seven in eight are accepted.
    """
    peak, width = _peak(ends, pull)
    at, slope, height = np.empty(3), np.empty(3), np.empty(3)
    for j in range(3):
        at[j] = peak + (j - 1) * _TANGENT * width
        height[j], slope[j] = _effect_density(ends, pull, at[j])
    top = height[1]
    cut = np.array([-np.inf, _meeting(at, height, slope, 0), _meeting(at, height, slope, 1),
                    np.inf])
    mass = np.empty(3)
    for j in range(3):
        mass[j] = _mass_below(cut[j], cut[j + 1], at[j], height[j] - top, slope[j])
    for _ in range(_MOST_TRIES):
        place = rng.random() * (mass[0] + mass[1] + mass[2])
        j = 0
        while j < 2 and place > mass[j]:
            place -= mass[j]
            j += 1
        z = _under_tangent(cut[j], cut[j + 1], at[j], height[j] - top, slope[j], place)
        above = height[j] + slope[j] * (z - at[j])
        if log(1.0 - rng.random()) <= _effect_density(ends, pull, z)[0] - above:
            return z
    return peak


@compiled
def _effect_density(ends: np.ndarray, pull: np.ndarray, z: float) -> tuple[float, float]:
    """Return the log density of a run's effect but for a constant, and its slope."""
    product, linear, slope = 1.0, 0.0, -z
    for k in range(len(pull)):
        below, above, factor, straight = _outside(
            ends[k, 0] - pull[k] * z, ends[k, 1] - pull[k] * z, ends[k, 2])
        product *= factor
        linear += straight
        slope += pull[k] * (below - above)
    return -log(product) - linear - 0.5 * z * z, slope


@compiled
def _meeting(at: np.ndarray, height: np.ndarray, slope: np.ndarray, j: int) -> float:
    """Return where the tangents at points j and j + 1 meet, which lies between the points."""
    rise = height[j + 1] - slope[j + 1] * at[j + 1] - height[j] + slope[j] * at[j]
    return min(max(rise / (slope[j] - slope[j + 1]), at[j]), at[j + 1])


@compiled
def _mass_below(low: float, high: float, at: float, height: float, slope: float) -> float:
    """Return the integral of exp(tangent) from `low` to `high`."""
    if low == -np.inf:
        return exp(height + slope * (high - at)) / slope
    if high == np.inf:
        return -exp(height + slope * (low - at)) / slope
    bend = slope * (high - low)
    factor = 1.0 + 0.5 * bend if abs(bend) < 1e-6 else expm1(bend) / bend
    return exp(height + slope * (low - at)) * (high - low) * factor


@compiled
def _under_tangent(
    low: float, high: float, at: float, height: float, slope: float, mass: float
) -> float:
    """Return up to where the integral of exp(tangent) from `low` is `mass`."""
    if low == -np.inf:
        return at + (log(mass * slope) - height) / slope
    share = mass / exp(height + slope * (low - at))
    if abs(slope * share) < 1e-9:
        return low + share
    return min(low + log1p(slope * share) / slope, high)


@compiled
def _log_interval(a: float, b: float) -> tuple[float, float, float]:
    """Return log P(a < Z <= b) of a standard logistic Z (see `likelihood.log_interval`).

    With it its slope by a shift of both ends and by the logarithm of their common factor. The
    two large terms of narrow intervals cancel in the shift by hand.
    """
    width = b - a
    ta, tb = exp(-abs(a)), exp(-abs(b))
    inside = -expm1(-width)
    value = log(inside / ((1.0 + ta) * (1.0 + tb))) - max(a, 0.0) - max(-b, 0.0)
    below_a = (1.0 if a >= 0 else ta) / (1.0 + ta)
    above_b = (1.0 if b < 0 else tb) / (1.0 + tb)
    stretch = width * (1.0 - inside) / inside - a * below_a + b * above_b
    return value, above_b - below_a, stretch


@compiled
def _reverse_links(
    position: np.ndarray, layout: np.ndarray, hardness: np.ndarray, pairs: np.ndarray,
    gaps: np.ndarray, correlation: np.ndarray, links_bar: np.ndarray, gradient: np.ndarray,
) -> None:
    """Add the slopes by the residual's scale, trend and correlation length."""
    for j in range(len(gaps)):
        gradient[layout[SIGMA]] += links_bar[j, 1]
    if len(hardness) == 1:
        return
    length = exp(position[layout[LENGTH]])
    for j in range(len(gaps)):
        x, before = hardness[pairs[j, 0]], hardness[pairs[j, 1]]
        correlation_bar = links_bar[j, 0] * correlation[j]
        gradient[layout[TREND]] += correlation_bar * (x - before) + links_bar[j, 1] * x
        distance = gaps[j] / length
        square = exp(-2.0 * distance)
        if square > 0.0:  # nothing is left of the correlation, and 0 times infinity is NaN
            scale_slope = square / expm1(-2.0 * distance)
            gradient[layout[LENGTH]] += distance * (correlation_bar + links_bar[j, 1] * scale_slope)


@compiled
def _reverse_expected(
    position: np.ndarray, layout: np.ndarray, curve_bar: np.ndarray, gradient: np.ndarray
) -> None:
    """Add the slopes by the level of S and its growth, and to `curve_bar` that at the middle."""
    total = 0.0
    for b in range(len(curve_bar) - 1):
        for k in range(curve_bar.shape[1]):
            total += curve_bar[b, k]
    gradient[layout[STEPS_LEVEL]] += total
    harder = total  # slope by a rise of threshold k and all harder ones
    for k in range(1, curve_bar.shape[1]):
        for b in range(len(curve_bar) - 1):
            harder -= curve_bar[b, k - 1]
        at = layout[GROWTH] + k - 1
        gradient[at] += exp(position[at]) * (harder - (total if k <= layout[MIDDLE] else 0.0))
    curve_bar[-1, layout[MIDDLE]] = -total


@compiled
def _reverse_law(
    scales: np.ndarray, weights: np.ndarray, alpha: float, power: bool, ratio: np.ndarray,
    relative: np.ndarray, curve_bar: np.ndarray, scales_bar: np.ndarray,
) -> float:
    """Set `scales_bar`, slopes by log noise scales; return the slope by the exponent."""
    alpha_bar = 0.0
    for b in range(len(ratio)):
        for k in range(ratio.shape[1]):
            slope = alpha * relative[b, k] * curve_bar[b, k]
            if power:
                scales_bar[0, k] += slope
                alpha_bar += (log(scales[0, k] * weights[0, b]) * relative[b, k]
                              * curve_bar[b, k])
            else:
                for s in range(len(scales)):
                    scales_bar[s, k] += slope * scales[s, k] * weights[s, b]
                alpha_bar += ratio[b, k] / alpha * curve_bar[b, k]
    return alpha_bar


@compiled
def _reverse_noise_scales(
    scales_bar: np.ndarray, hardness: np.ndarray, spread: float, gradient: np.ndarray
) -> None:
    """Add the slopes by levels, trends and deviations of the noise scales."""
    n_scales, n_thresholds = scales_bar.shape
    for s in range(n_scales):
        start = s * (n_thresholds + 2) if n_thresholds > 1 else s
        for k in range(n_thresholds):
            gradient[start] += scales_bar[s, k]
            if n_thresholds > 1:
                gradient[start + 1] += hardness[k] * scales_bar[s, k]
                gradient[start + 2 + k] += spread * scales_bar[s, k]


@compiled
def _measured_noise(
    position: np.ndarray, layout: np.ndarray, noise: np.ndarray, scales: np.ndarray,
    scales_bar: np.ndarray, gradient: np.ndarray,
) -> float:
    """Return the log density of measured noise (see `noise_terms`); add all its slopes."""
    n_parts, n_ranges, n_scales = layout[N_PARTS], layout[N_RANGES], len(scales)
    mix = noise[: n_parts * n_scales].reshape((n_parts, n_scales))
    total = noise[n_parts * n_scales: n_parts * (n_scales + 1)]
    ranges = noise[n_parts * (n_scales + 1):].reshape((n_ranges, -1))
    value = 0.0
    moment, moment_bar = np.empty((n_parts, n_ranges)), np.zeros((n_parts, n_ranges))
    for q in range(n_parts):
        for k in range(n_ranges):
            moment[q, k] = exp(position[layout[LOG_NOISE] + q * n_ranges + k])
        value += _deviations(position, layout, moment[q], ranges[:, 0], mix[q], scales,
                             scales_bar, moment_bar[q], gradient)
    for k in range(n_ranges):
        if ranges[k, 1] > 0.0:
            value += _probes(moment[:, k], total, ranges[k], moment_bar[:, k])
    for q in range(n_parts):
        for k in range(n_ranges):
            gradient[layout[LOG_NOISE] + q * n_ranges + k] = moment_bar[q, k]
    return value


@compiled
def _probes(
    moment: np.ndarray, total: np.ndarray, about: np.ndarray, moment_bar: np.ndarray
) -> float:
    """Return what one range's averages say; add the slopes by log noise to `moment_bar`."""
    d, freedom = len(moment), about[1]
    z, w = about[2: d + 3], about[d + 3:].reshape((d + 1, d + 1))
    h = np.ones(d + 1)
    for q in range(d):  # assigning a slice would compile the words of its error for seconds
        h[q] = moment[q]
    along, across, square, weight = 0.0, 0.0, 0.0, 0.0
    wh, wz = np.zeros(d + 1), np.zeros(d + 1)
    for i in range(d + 1):
        for j in range(d + 1):
            wh[i] += w[i, j] * h[j]
            wz[i] += w[i, j] * z[j]
        along += h[i] * wh[i]
        across += h[i] * wz[i]
        square += z[i] * wz[i]
    for q in range(d):
        weight += total[q] * moment[q]
    best = across / along  # |G|² where the line along h is nearest to the averages
    misfit = square - across * best
    steep = (freedom + d) / (freedom + misfit)
    for q in range(d):
        slope = total[q] / weight - wh[q] / along + steep * best * (wz[q] - best * wh[q])
        moment_bar[q] += slope * moment[q]
    return log(weight) - 0.5 * log(along) - 0.5 * (freedom + d) * log1p(misfit / freedom)


@compiled
def _deviations(
    position: np.ndarray, layout: np.ndarray, moment: np.ndarray, correlation: np.ndarray,
    mix: np.ndarray, scales: np.ndarray, scales_bar: np.ndarray, moment_bar: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Return the log density of one part's deviations, with the Jacobian; add its slopes."""
    n, log_scatter = len(moment), position[layout[SCATTER]]
    average, kept, target = np.empty(n), np.zeros(n), np.zeros(n)
    deviation, deviation_bar, log_average_bar = np.empty(n), np.zeros(n), np.zeros(n)
    value = 0.0
    for k in range(n):
        average[k] = moment[k]
        if k > 0:
            growth = exp(position[layout[GROWTH] + k - 1])
            kept[k] = exp(-growth)
            average[k] = kept[k] * average[k - 1] - expm1(-growth) * moment[k]
            value += log(-expm1(-growth)) + log(moment[k]) - log(average[k])
            moment_bar[k] += 1.0
            log_average_bar[k] -= 1.0
        for s in range(len(mix)):
            target[k] += mix[s] * scales[s, k]
        deviation[k] = log(average[k]) - log(target[k]) - position[layout[OFFSET]]
        rest = 1.0 - correlation[k] ** 2
        away = deviation[k] - (correlation[k] * deviation[k - 1] if k > 0 else 0.0)
        pull = away * exp(-2.0 * log_scatter) / rest
        value -= 0.5 * away * pull + log_scatter + 0.5 * log(2.0 * np.pi * rest)
        gradient[layout[SCATTER]] += away * pull - 1.0
        deviation_bar[k] -= pull
        if k > 0:
            deviation_bar[k - 1] += correlation[k] * pull
    average_bar = 0.0
    for k in range(n - 1, -1, -1):
        gradient[layout[OFFSET]] -= deviation_bar[k]
        for s in range(len(mix)):
            scales_bar[s, k] -= deviation_bar[k] * mix[s] * scales[s, k] / target[k]
        average_bar += (deviation_bar[k] + log_average_bar[k]) / average[k]
        if k == 0:
            moment_bar[0] += average_bar * moment[0]
            break
        growth = exp(position[layout[GROWTH] + k - 1])
        moment_bar[k] -= average_bar * expm1(-growth) * moment[k]
        fading = kept[k] * (average_bar * (moment[k] - average[k - 1]) - 1.0 / expm1(-growth))
        gradient[layout[GROWTH] + k - 1] += growth * fading
        average_bar *= kept[k]
    return value
