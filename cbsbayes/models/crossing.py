r"""Log density and gradient of the crossing model, its run effects integrated out.

`cbsbayes.models.pymc_models` defines the model; tests hold this compiled restatement to it, and
its integral to brute force. A run's crossings are independent given its effect, z standard
deviations: crossing k lies in its interval with probability :math:`\sigma(b_k - p_k z) -
\sigma(a_k - p_k z)`, log-concave in z, so the integrand has one peak. The integral is a trapezoid
sum over multiples of a step, from the peak both ways until the integrand is e^-20 of it. The step
is set by the sharpest bend the integrand can have: for analytic functions the sum then converges
exponentially, and the slope of the sum at fixed nodes is that of the integral. From node to node
e^{-p z} changes by one factor, so that a node costs no exponentials.

The law's part of it is `cbsbayes.models.law_density`.
"""

from __future__ import annotations

from functools import partial
from math import exp, expm1, log, sqrt
from typing import NamedTuple

import numpy as np

from cbsbayes.models.compiled import compiled
from cbsbayes.models.crossing_parameters import CrossingArrays
from cbsbayes.models.law_density import exponent, law_ratio, reverse_law

__all__ = ["log_density", "run_effects", "run_log_likelihoods"]

_LEAST = exp(-20.0)  # of the peak, where the sum ends
_SPACING = 1.05  # nodes in the standard deviations of the sharpest integrand
_FINER = 4  # nodes of the integral cut in so many when run effects are drawn
_AFRESH = 64  # nodes after which exponentials are taken again: factors over- and underflow
_MOST_NODES, _MOST_STEPS = 4096, 40  # of a sum, of a search: some 8 and 3 are usual

Shared = tuple[np.ndarray, np.ndarray, np.ndarray]  # log S, carried, 1/scale: see _expected, _links
_compiled = partial(compiled, fastmath={"reassoc", "contract"})


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
    gradient, value = np.empty_like(position), d.constant
    for j in range(len(position)):
        away = position[j] - d.center[j]
        gradient[j] = -d.precision[j] * away
        value += 0.5 * gradient[j] * away
    alpha, alpha_slope = exponent(position, d)
    scales, noise, ratio = law_ratio(position, alpha, d)
    carried, inverse_scale = _links(position, d)
    shared = _expected(position, ratio, d), carried, inverse_scale
    curve_bar, links_bar = np.zeros_like(ratio), np.zeros((len(d.gaps), 2))
    sigma = exp(position[d.at.sigma_run])
    value += _runs(sigma, shared, d, curve_bar, links_bar, gradient)
    _reverse_links(position, carried, links_bar, d, gradient)
    _reverse_expected(position, curve_bar, d, gradient)
    alpha_bar = reverse_law(position, scales, alpha, noise, curve_bar, d, gradient)
    if d.at.alpha >= 0:
        mean, precision = d.alpha_prior[2], d.alpha_prior[3]
        value -= 0.5 * precision * (alpha - mean) ** 2
        gradient[d.at.alpha] += alpha_slope * (alpha_bar - precision * (alpha - mean))
    return value, gradient


@_compiled
def run_log_likelihoods(positions: np.ndarray, d: CrossingArrays) -> np.ndarray:
    """Return log p(crossings of a run), its effect integrated out, shape (draw, run).

    Parameters
    ----------
    positions : numpy.ndarray
        Shape (draw, n_dim).
    """
    out, room = np.empty((len(positions), len(d.batch))), _room(len(d.threshold_logit))
    for j in range(len(positions)):
        shared = _shared(positions[j].copy(), d)  # contiguous
        sigma = exp(positions[j, d.at.sigma_run])
        for i in range(len(d.batch)):
            m, inside = _standardised(i, sigma, shared, d, room)
            out[j, i] = inside + _integral(m, room)
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
    out, room = np.empty_like(uniform), _room(len(d.threshold_logit))
    for j in range(len(positions)):
        shared = _shared(positions[j].copy(), d)  # contiguous
        sigma = exp(positions[j, d.at.sigma_run])
        for i in range(len(d.batch)):
            m, _ = _standardised(i, sigma, shared, d, room)
            out[j, i] = sigma * _quantile(uniform[j, i], m, room)
    return out


class Room(NamedTuple):
    """Working arrays of one run, a column per crossing; (crossing, 3) for `ends`."""

    ends: np.ndarray  # a, b and exp(a - b): the interval in units of the residual's scale
    pull: np.ndarray  # what one standard deviation of the run effect moves a and b by
    at: np.ndarray  # index of the threshold
    begin: np.ndarray  # tails of `_log_integrand` near the peak
    tails: np.ndarray  # the same, of which the first and third follow the nodes
    node: np.ndarray  # P(Z <= a) and P(Z > b) at a node, and e^{-p z} over that of the node before
    sums: np.ndarray  # of `_integral`


@_compiled
def _room(n: int) -> Room:
    return Room(np.empty((n, 3)), np.empty(n), np.empty(n, np.int64), np.empty((4, n)),
                np.empty((4, n)), np.empty((3, n)), np.empty((3, n)))


@_compiled
def _shared(position: np.ndarray, d: CrossingArrays) -> Shared:
    ratio = law_ratio(position, exponent(position, d)[0], d)[2]
    carried, inverse_scale = _links(position, d)
    return _expected(position, ratio, d), carried, inverse_scale


@_compiled
def _expected(position: np.ndarray, ratio: np.ndarray, d: CrossingArrays) -> np.ndarray:
    """Return log S of each batch and threshold without run effects, shape (batch, threshold)."""
    growth = np.zeros(ratio.shape[1])  # of log S_min from the easiest threshold on
    for k in range(1, len(growth)):
        growth[k] = growth[k - 1] + exp(position[d.at.log_growth + k - 1])
    level = position[d.at.log_S_level] - ratio[-1, d.middle] - growth[d.middle]
    curve = np.empty_like(ratio)
    for b in range(len(ratio)):
        for k in range(len(growth)):
            curve[b, k] = ratio[b, k] + growth[k] + level
    return curve


@_compiled
def _links(position: np.ndarray, d: CrossingArrays) -> tuple[np.ndarray, np.ndarray]:
    """Return what the deviation before is multiplied by, and 1/scale; both of shape (pair,)."""
    scale = exp(position[d.at.sigma_residual]) * d.logistic
    carried, inverse_scale = np.zeros(len(d.gaps)), np.full(len(d.gaps), 1.0 / scale)
    if len(d.threshold_logit) > 1:
        trend, length = position[d.at.residual_trend], exp(position[d.at.residual_length])
        for j in range(len(d.gaps)):
            x, before = d.threshold_logit[d.pairs[j, 0]], d.threshold_logit[d.pairs[j, 1]]
            carried[j] = exp(trend * (x - before) - d.gaps[j] / length)
            inverse_scale[j] *= exp(-trend * x) / sqrt(-expm1(-2.0 * d.gaps[j] / length))
    return carried, inverse_scale


@_compiled
def _runs(
    sigma: float, shared: Shared, d: CrossingArrays, curve_bar: np.ndarray, links_bar: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Return the log likelihood; add its slopes to `curve_bar`, `links_bar` and `gradient`."""
    (curve, carried, inverse_scale), value = shared, 0.0
    room = _room(len(d.threshold_logit))
    for i in range(len(d.batch)):
        m, inside = _standardised(i, sigma, shared, d, room)
        value += inside + _integral(m, room)
        batch = d.batch[i]
        for q in range(m):
            k, pull, rest = room.at[q], room.pull[q], room.ends[q, 2]
            a, b = room.ends[q, 0], room.ends[q, 1]
            j = d.pair[i, k]
            before = d.pairs[j, 1]
            above, below, along = room.sums[0, q], room.sums[1, q], room.sums[2, q]
            center_bar = inverse_scale[j] * (below - above)
            curve_bar[batch, k] += center_bar
            curve_bar[batch, before] -= carried[j] * center_bar
            links_bar[j, 0] += (center_bar * (d.bounds[i, before, 2] - curve[batch, before])
                                + inverse_scale[j] * sigma * along)
            links_bar[j, 1] -= ((b - a) * rest / (1.0 - rest) + b * above - a * below
                                - pull * along)
            gradient[d.at.sigma_run] -= pull * along
    return value


@_compiled
def _standardised(
    i: int, sigma: float, shared: Shared, d: CrossingArrays, room: Room
) -> tuple[int, float]:
    """Fill in a run's crossings in units of their scale; return how many, and their log widths."""
    curve, carried, inverse_scale = shared
    m, inside, batch = 0, 0.0, d.batch[i]
    for k in range(len(d.threshold_logit)):
        j = d.pair[i, k]
        if j < 0:
            continue
        before = d.pairs[j, 1]
        center = curve[batch, k] + carried[j] * (d.bounds[i, before, 2] - curve[batch, before])
        a = (d.bounds[i, k, 0] - center) * inverse_scale[j]
        b = (d.bounds[i, k, 1] - center) * inverse_scale[j]
        shortfall = expm1(a - b)
        room.ends[m, 0], room.ends[m, 1], room.ends[m, 2] = a, b, 1.0 + shortfall
        inside += log(-shortfall)
        room.pull[m] = sigma * (1.0 - carried[j]) * inverse_scale[j]
        room.at[m] = k
        m += 1
    return m, inside


@_compiled
def _integral(m: int, room: Room) -> float:
    """Return the log integral of a run's integrand over its effect, log widths left out.

    `room.sums` are the means over z of P(Z > b), of P(Z <= a), and of z times their difference.
    """
    step = _spacing(m, room)
    start, top = _peak(step, m, room)
    for k in range(m):
        room.sums[0, k] = room.sums[1, k] = room.sums[2, k] = 0.0
    mass = (_walk(start, step, top, np.inf, m, room)[0]
            + _walk(start, -step, top, np.inf, m, room)[0])
    for k in range(m):
        for j in range(3):
            room.sums[j, k] /= mass
    return top + log(mass * step / sqrt(2.0 * np.pi))


@_compiled
def _spacing(m: int, room: Room) -> float:
    """Return the distance of a run's nodes.

    The log integrand cannot bend more than 1 + sum p^2 / 2; where one crossing outweighs the
    others, its poles at a distance of pi/p from the real axis ask for a little less.
    """
    bend, largest = 1.0, 0.0
    for p in room.pull[:m]:
        bend += 0.5 * p * p
        largest = max(largest, 0.25 * p * p)
    return _SPACING / sqrt(bend + largest)


@_compiled
def _walk(
    start: float, step: float, top: float, wanted: float, m: int, room: Room
) -> tuple[float, float]:
    """Add up nodes from a start outwards; return their mass and where it reached what was wanted.

    The mass is of trapezoids, in units of the step and of e^top; `room.sums` are added to.
    """
    tails, at_node, sums = room.tails, room.node, room.sums
    mass, before, prior, decay = 0.0, 0.0, 1.0, exp(-step * (start + 0.5 * step))
    fading = exp(-step * step)
    for k in range(m):
        at_node[2, k] = exp(-room.pull[k] * step)
        for j in range(4):
            tails[j, k] = room.begin[j, k]
    for node in range(_MOST_NODES):
        z = start + step * node
        if node % _AFRESH == 0 and node > 0:
            prior = exp(_log_integrand(z, m, room, tails)[0] - top)
            decay = exp(-step * (z + 0.5 * step))
        held = prior
        for k in range(m):
            low, high = tails[0, k] + tails[1, k], tails[2, k] + tails[3, k]
            inside = 1.0 / (low * high)  # of the crossing's probability, over that taken afresh
            at_node[0, k] = tails[0, k] * high * inside
            at_node[1, k] = tails[2, k] * low * inside
            held *= inside
        cell = 0.5 * (before + held) if node > 0 else 0.0
        if mass + cell >= wanted:
            return wanted, z - step * (mass + cell - wanted) / cell
        mass += cell
        share = held if node > 0 else 0.5 * held
        for k in range(m):
            below, above, factor = at_node[0, k], at_node[1, k], at_node[2, k]
            sums[0, k] += share * above
            sums[1, k] += share * below
            sums[2, k] += share * z * (above - below)
            tails[0, k] *= factor
            tails[2, k] /= factor
        if held < _LEAST:
            return mass, z
        before = held
        prior *= decay
        decay *= fading
    return mass, start


@_compiled
def _log_integrand(z: float, m: int, room: Room, tails: np.ndarray) -> tuple[float, float]:
    """Return the log integrand at an effect z, and its slope.

    `tails` are filled with P(Z <= a), P(Z > a), P(Z > b) and P(Z <= b) of a standard logistic Z
    for each crossing; the integrand is the product of the second and the fourth.
    """
    product, linear, slope = 1.0, -0.5 * z * z, -z
    for k in range(m):
        a, b = room.ends[k, 0] - room.pull[k] * z, room.ends[k, 1] - room.pull[k] * z
        of_a, of_b = exp(-abs(a)), exp(-abs(b))
        more, less = 1.0 / (1.0 + of_a), 1.0 / (1.0 + of_b)
        tails[0, k], tails[1, k] = (more, of_a * more) if a > 0.0 else (of_a * more, more)
        tails[2, k], tails[3, k] = (less, of_b * less) if b < 0.0 else (of_b * less, less)
        linear += min(b, 0.0) - max(a, 0.0)
        product *= more * less
        slope += room.pull[k] * (tails[0, k] - tails[2, k])
    return linear + log(product), slope


@_compiled
def _peak(step: float, m: int, room: Room) -> tuple[float, float]:
    """Return a multiple of a step near the peak, by Newton's method, and the log integrand."""
    tails, high = room.begin, 1.0
    for k in range(m):
        high += abs(room.pull[k])  # beyond, the slope has one sign
    low, z = -high, 0.0
    for _ in range(_MOST_STEPS):
        _, slope = _log_integrand(z, m, room, tails)
        curvature = 1.0
        for k in range(m):
            bend = tails[0, k] * tails[1, k] + tails[2, k] * tails[3, k]
            curvature += room.pull[k] ** 2 * bend
        low, high = (z, high) if slope > 0.0 else (low, z)
        move = slope / curvature
        if move * move * curvature < 0.5:  # the width at the peak is 1
            z += move
            break
        z = z + move if low < z + move < high else 0.5 * (low + high)
    z = step * np.round(z / step)
    return z, _log_integrand(z, m, room, tails)[0]


@_compiled
def _quantile(share: float, m: int, room: Room) -> float:
    """Return the effect below which a share of its distribution lies, in standard deviations."""
    step = _spacing(m, room) / _FINER
    start, top = _peak(step, m, room)
    ahead, _ = _walk(start, step, top, np.inf, m, room)
    behind, _ = _walk(start, -step, top, np.inf, m, room)
    beyond = share * (ahead + behind) - behind
    return _walk(start, step if beyond > 0.0 else -step, top, abs(beyond), m, room)[1]


@_compiled
def _reverse_links(
    position: np.ndarray, carried: np.ndarray, links_bar: np.ndarray, d: CrossingArrays,
    gradient: np.ndarray,
) -> None:
    """Add the slopes by the residual's scale, trend and correlation length."""
    for j in range(len(d.gaps)):
        carried_bar, scale_bar = links_bar[j, 0] * carried[j], links_bar[j, 1]
        gradient[d.at.sigma_residual] += scale_bar
        if len(d.threshold_logit) > 1:
            x, before = d.threshold_logit[d.pairs[j, 0]], d.threshold_logit[d.pairs[j, 1]]
            gradient[d.at.residual_trend] += carried_bar * (x - before) + scale_bar * x
            # 0 times infinity is NaN
            distance = min(d.gaps[j] / exp(position[d.at.residual_length]), 300.0)
            gradient[d.at.residual_length] += distance * (
                carried_bar + scale_bar / (1.0 - exp(2.0 * distance)))


@_compiled
def _reverse_expected(
    position: np.ndarray, curve_bar: np.ndarray, d: CrossingArrays, gradient: np.ndarray
) -> None:
    """Add the slopes by the level of S and its growth, and to `curve_bar` that at the middle."""
    total = 0.0
    for bar in curve_bar.flat:
        total += bar
    gradient[d.at.log_S_level] += total
    harder = total  # slope by a rise of threshold k and all harder ones
    for k in range(1, curve_bar.shape[1]):
        for b in range(len(curve_bar)):
            harder -= curve_bar[b, k - 1]
        at = d.at.log_growth + k - 1
        gradient[at] += exp(position[at]) * (harder - (total if k <= d.middle else 0.0))
    curve_bar[-1, d.middle] -= total
