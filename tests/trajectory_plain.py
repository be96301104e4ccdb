"""The trajectory model written plainly: every run one multivariate normal, nothing compiled."""

from __future__ import annotations

import numpy as np
from scipy.integrate import cumulative_trapezoid
from scipy.interpolate import CubicHermiteSpline
from scipy.stats import norm, truncnorm

from cbsbayes.models.laws import middle_batch

EDGE = 0.002


def log_prior(model, position):
    """Return the prior's log density of the unconstrained position, Jacobian included."""
    total = 0.0
    for block in model.blocks:
        x = position[model.slices[block.name]]
        if block.name == "alpha":
            mean, sd, lower, upper = model.priors.alpha
            share = 1 / (1 + np.exp(-x[0]))
            alpha = lower + (upper - lower) * share
            prior = truncnorm((lower - mean) / sd, (upper - mean) / sd, mean, sd)
            total += prior.logpdf(alpha) + np.log((upper - lower) * share * (1 - share))
        else:
            total += norm(block.center, block.sd).logpdf(x).sum()
    return total


def curve(model, p, log_tau):
    """Return observed accuracy and its slope by log progress."""
    ratio = law_ratio(model, p, *middle_batch(model.data.n_prompts, model.data.n_rollouts), 0.0)
    z = np.log(2) * np.exp(p["kappa"] * (log_tau - (p["log_half_level"] - ratio)))
    gain = (1 - p["start"]) / (1 + np.exp(-p["ceiling_logit"]))
    level = p["start"] + gain * (1 - np.exp(-z))
    bend, rise = bend_of(model, p, level)
    at_start = p["start"] + bend_of(model, p, p["start"])[0]
    return level + bend, gain * p["kappa"] * z * np.exp(-z) * (1 + rise), at_start


def bend_of(model, p, level):
    """Return the bend at levels of accuracy and its slope."""
    low, high = model.data.accuracy_range
    often = np.arange(1, len(p["item_set"]) + 1) * np.pi / (high - low)
    size = p["item_set"] * model.data.wave_sizes(len(often))
    angle = (np.asarray(level)[..., None] - low) * often
    return np.sin(angle) @ size, np.cos(angle) @ (often * size)


def law_ratio(model, p, n_prompts, n_rollouts, hard):
    """Return log S/S_min of the momentary noise at a hardness."""
    scales = {name: np.exp(model.data.log_batch_scale[name] + p[f"{name}_level"]
                           + p[f"{name}_trend"] * hard + p["noise_curvature"] * hard**2)
              for name in model.law.scales}
    return model.law.log_ratio(n_prompts, n_rollouts, scales, p.get("alpha"))


def run_log_likelihoods(model, position):
    """Return log p(curve) of every run, shape (run,)."""
    data = model.data
    p, at_start, splines = _splines(model, position)
    known = np.isfinite(data.start)
    shared = known.any() and np.ptp(data.start[known]) == 0
    total = []
    for i, spline in enumerate(splines):
        residual, columns, noise = _one_run(data, p, i, spline)
        covariance = columns.T @ columns + noise
        root = np.linalg.cholesky(covariance)
        value = (norm.logpdf(np.linalg.solve(root, residual)).sum()
                 - np.log(np.diag(root)).sum())
        if known[i]:
            q = np.clip(data.start[i], 0.5 / data.n_items, 1 - 0.5 / data.n_items)
            sd = p["sigma_noise"] * np.sqrt(q * (1 - q) / data.n_items)
            value += norm(at_start, sd).logpdf(data.start[i]) / (known.sum() if shared else 1)
        total.append(value)
    return np.array(total)


def run_deviations(model, position):
    """Yield mean and sd of every run's effect and its mean deviations, by normal regression."""
    p, _, splines = _splines(model, position)
    for i, spline in enumerate(splines):
        residual, columns, noise = _one_run(model.data, p, i, spline)
        weighted = np.linalg.solve(noise, columns.T)
        covariance = np.linalg.inv(np.eye(len(columns)) + columns @ weighted)
        mean = covariance @ weighted.T @ residual
        own = slice(model.data.run_start[i], model.data.run_start[i + 1])
        wander = model.data.ramps(np.log(model.data.steps[own])) @ mean[1:-1]
        yield (p["sigma_run"] * mean[0], p["sigma_run"] * np.sqrt(covariance[0, 0]),
               p["sigma_run"] * mean[0] + p["sigma_wander"] * wander)


def _splines(model, position):
    """Return the parameters, accuracy before training, and every run's curve over log s."""
    data = model.data
    p = {name: value[0] for name, value in model.variables(position[None]).items()}
    h, slope, at_start = curve(model, p, data.log_tau)
    inside = np.clip(h, EDGE, 1 - EDGE)
    hard = np.log(inside / (1 - inside)) - data.middle
    tau = np.exp(data.log_tau)
    splines = []
    for n_prompts, n_rollouts in zip(data.n_prompts, data.n_rollouts, strict=True):
        f = np.exp(-p.get("ceiling_loss", 0.0) / n_rollouts)
        pace = np.exp(law_ratio(model, p, n_prompts, n_rollouts, hard))
        steps = cumulative_trapezoid(pace, tau, initial=0) + tau[0] * pace[0]
        splines.append(straight_beyond(
            CubicHermiteSpline(np.log(steps), at_start + f * (h - at_start),
                               f * slope * steps / (tau * pace))))
    return p, at_start, splines


def straight_beyond(spline):
    """Return the spline and its slope as one function that goes straight on beyond its ends."""
    def at(x, order=0):
        near = np.clip(x, spline.x[0], spline.x[-1])
        return spline(near, 1) if order else spline(near) + spline(near, 1) * (x - near)

    return at


def _one_run(data, p, i, spline):
    """Return residuals, what the run's own parameters act through, and the noise's covariance."""
    own = slice(data.run_start[i], data.run_start[i + 1])
    x, reference = np.log(data.steps[own]), data.reference[own]
    steep = spline(x - reference, 1)
    residual = data.accuracy[own] - spline(x - reference) - steep * reference
    columns = np.array([-steep * p["sigma_run"],
                        *(-steep[:, None] * p["sigma_wander"] * data.ramps(x)).T,
                        np.full(len(x), p["sigma_offset"])])
    p_of = data.variance[own]
    spread = 2 * np.sqrt(p_of)
    white = (p["sigma_noise"]**2 * p_of / data.n_items / data.count[own]
             * spread**(2 * p["noise_trend"]))
    loading = p["sigma_serial"] * spread**(1 + p["noise_trend"])
    apart = np.abs(data.steps[own][:, None] - data.steps[own]) / data.spacing
    return residual, columns, (loading[:, None] * loading * np.exp(-apart / p["memory"])
                               + np.diag(white))
