"""Measured noise made up for tests of the model, and what the page says of a fit's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cbsbayes.models.noise_data import NoiseData
from cbsbayes.report.facts import Facts
from cbsbayes.report.fit_page import fit_page

__all__ = ["noise_for", "noise_section", "with_noise"]


def noise_section(fit):
    return next(section for section in fit_page(Facts(fit), []).sections if section.slug == "noise")


def noise_for(law, n_ranges, *, parts=None, seed=3):
    """Return noise data: of both parts (or of N at 8 rollouts) for a law of two axes.

    Some ranges are resolved, one is not, one is without.
    """
    rng = np.random.default_rng(seed)
    if not law.two_axis:
        names, mix, total = ("B_noise",), np.ones((1, 1)), np.ones(1)
    elif parts == "N":
        names, mix, total = ("N",), np.array([[1.0, 1 / 7]]), np.ones(1)
    else:
        names, mix, total = law.scales, np.eye(2), np.array([1.0, 1 / 7])
    d = len(names)
    estimate = np.empty((n_ranges, d + 1))
    estimate[:, :d] = np.array([50.0, 300.0])[:d] * (1 + 0.1 * rng.normal(size=(n_ranges, d)))
    estimate[:, d] = 2.0 - 1.9 * np.arange(n_ranges) / max(n_ranges - 1, 1)  # the last one hardly
    root = rng.normal(size=(n_ranges, d + 1, d + 1)) * 0.2 + np.eye(d + 1)
    covariance = root @ root.transpose(0, 2, 1)
    covariance[:, :d, :d] += 20.0 * np.eye(d)
    freedom = np.full(n_ranges, 6.5)
    if n_ranges > 2:
        freedom[1] = 0.0
    return NoiseData(tuple(names), mix, total, estimate, covariance, freedom,
                     np.where(freedom > 0, 8, 0))


def with_noise(data, law, **kwargs):
    """Return crossing data with noise up to its last but one threshold."""
    n = max(len(data.threshold) - 1, 1)
    return replace(data, noise=noise_for(law, n, **kwargs))
